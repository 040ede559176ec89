"""Metrics against closed forms, reference libraries and scores of the official script."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rosa_bench.metrics import find
from rosa_bench.metrics.conventions import score
from rosa_bench.metrics.metric import score_all
from rosa_bench.metrics.scores import Scores

MODULES = Path(__file__).parent.parent.parent / "rosa_bench" / "metrics" / "modules"


def scores(names: list[str], predictions: list[float], labels: list[float]) -> Scores:
    return score_all([find(name) for name in names], predictions, labels)


def test_matthews_closed_form():
    labels, predictions = [1, 1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1, 1, 0]
    tp, tn, fp, fn = 3, 3, 1, 1
    expected = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert scores(["matthews"], predictions, labels)["matthews"] == pytest.approx(100 * expected)


CONSTANT = {  # predictions, labels, and why there is no correlation
    "predictions": ([1, 1, 1, 1], [0, 1, 1, 1], "every prediction is 1"),
    "labels": ([0, 1, 1, 1], [0, 0, 0, 0], "every label is 0"),
    "both": ([2, 2], [2, 2], "every prediction is 2"),
    "one row": ([3], [1], "every prediction is 3"),
}


@pytest.mark.parametrize("case", CONSTANT)
@pytest.mark.parametrize("metric", ["matthews", "pearson", "spearman"])
@pytest.mark.filterwarnings("error")
def test_a_correlation_with_a_constant_is_absent(metric, case):
    """Its formula divides by the standard deviation of both sides: 0 / 0."""
    predictions, labels, reason = CONSTANT[case]
    result = scores([metric, "accuracy"], predictions, labels)
    assert set(result) == {"accuracy"} and result.absent == {metric: f"undefined: {reason}"}


@pytest.mark.parametrize(
    ("predictions", "labels", "value"),
    [([0, 0, 0], [0, 0, 0], None), ([0, 0, 0], [0, 1, 0], 0.0), ([1, 0, 0], [0, 0, 0], 0.0), ([1, 0], [1, 1], 200 / 3)],
)
@pytest.mark.filterwarnings("error")
def test_f1_is_absent_only_without_a_positive_prediction_and_label(predictions, labels, value):
    """2 tp / (2 tp + fp + fn) is 0 / 0 if nothing is positive, and 0 if only one side has positives."""
    result = scores(["accuracy", "f1"], predictions, labels)
    assert result.get("f1") == pytest.approx(value)
    assert ("f1" in result.absent) == (value is None)
    if value is None:
        assert result["accuracy"] == 100 and "no prediction and no label is positive" in result.absent["f1"]


def test_cider_of_one_example_is_absent():
    result = score("e2e", "official", ["a pub"], [["a pub", "a nice pub"]], ["cider", "bleu"])
    assert set(result) == {"bleu"} and "one example" in result.absent["cider"]
    assert score("e2e", "official", ["a pub", "an inn"], [["a pub"], ["an inn"]], ["cider"])["cider"] > 0


def test_outputs_without_a_word():
    """BLEU is 0, its brevity penalty. Metrics for which the official program divides by zero are absent."""
    outputs, references = ["", ""], [["a pub"], ["an inn"]]
    official, lora = (score("e2e", name, outputs, references, ["bleu", "nist"]) for name in ("official", "lora"))
    assert official == {"bleu": 0.0, "nist": 0.0} and "nist" in {**lora, **lora.absent}
    triples = score("triples", "lora", [""], [["a pub"]], ["bleu", "ter"])
    assert "bleu" in triples.absent and triples["ter"] == 1.0


def test_f1_is_of_the_positive_class():
    assert scores(["f1"], [1, 1, 0, 0], [1, 0, 1, 0])["f1"] == pytest.approx(50.0)


def test_correlations():
    predictions, labels = [1.0, 2.0, 4.0, 8.0], [0.0, 1.0, 2.0, 3.0]
    result = scores(["pearson", "spearman"], predictions, labels)
    assert result["spearman"] == pytest.approx(100.0)
    assert result["pearson"] == pytest.approx(100 * 11.5 / math.sqrt(28.75 * 5))


@pytest.mark.parametrize(("predictions", "labels"), [([1], [1, 0]), ([], []), ([math.nan], [1.0]), ([math.inf], [1.0])])
def test_invalid_inputs_are_refused(predictions, labels):
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
        result = text.compute(predictions=outputs, references=references)
        result.pop("absent", None)
        assert result == pytest.approx(score(family, convention, outputs, references))
