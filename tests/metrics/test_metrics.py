"""Metrics against closed forms, the reference libraries and the official script's own scores."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rosa_bench.metrics.conventions import score
from rosa_bench.metrics.glue import scores

MODULES = Path(__file__).parent.parent.parent / "rosa_bench" / "metrics" / "modules"


def test_matthews_closed_form():
    labels, predictions = [1, 1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1, 1, 0]
    tp, tn, fp, fn = 3, 3, 1, 1
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert scores(["matthews"], predictions, labels)["matthews"] == pytest.approx(100 * expected)


def test_a_constant_prediction_is_matthews_zero_and_has_no_correlation():
    assert scores(["matthews", "accuracy"], [1, 1, 1, 1], [0, 1, 1, 1]) == {"matthews": 0.0, "accuracy": 75.0}
    assert scores(["pearson", "spearman"], [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == {}


def test_f1_is_of_the_positive_class():
    assert scores(["f1"], [1, 1, 0, 0], [1, 0, 1, 0])["f1"] == pytest.approx(50.0)


def test_correlations():
    predictions, labels = [1.0, 2.0, 4.0, 8.0], [0.0, 1.0, 2.0, 3.0]
    found = scores(["pearson", "spearman"], predictions, labels)
    assert found["spearman"] == pytest.approx(100.0)
    assert found["pearson"] == pytest.approx(100 * 11.5 / math.sqrt(28.75 * 5))


@pytest.mark.parametrize(("predictions", "labels"), [([1], [1, 0]), ([], []), ([math.nan], [1.0]), ([math.inf], [1.0])])
def test_refuses_what_cannot_be_scored(predictions, labels):
    with pytest.raises(ValueError):
        scores(["accuracy"], predictions, labels)


@pytest.mark.filterwarnings("ignore")  # evaluate's own
def test_modules_load_offline_by_path_and_agree(tmp_path):
    import evaluate

    cola = evaluate.load(str(MODULES / "rosa_bench_glue"), "cola", cache_dir=str(tmp_path))
    assert cola.compute(predictions=[1, 0, 1], references=[1, 0, 0]) == scores(["matthews"], [1, 0, 1], [1, 0, 0])
    stsb = evaluate.load(str(MODULES / "rosa_bench_glue"), "stsb", cache_dir=str(tmp_path))
    assert stsb.compute(predictions=[1.0, 2.0, 4.0], references=[1.0, 2.0, 3.0])["spearman"] == pytest.approx(100.0)
    outputs, references = ["the cat sat on the mat"], [["the cat sat on a mat", "a cat was on the mat"]]
    for name, family, convention in ((None, "e2e", "official"), ("triples-lora", "triples", "lora")):
        text = evaluate.load(str(MODULES / "rosa_bench_text"), name, cache_dir=str(tmp_path))
        found = text.compute(predictions=outputs, references=references)
        found.pop("absent", None)
        assert found == pytest.approx(score(family, convention, outputs, references))
