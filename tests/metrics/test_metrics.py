"""Metrics against closed forms, the reference libraries and the official script's own scores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import SHARED

from rosa_bench.metrics.glue import scores
from rosa_bench.metrics.text import bleu

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
    text = evaluate.load(str(MODULES / "rosa_bench_bleu"), cache_dir=str(tmp_path))
    outputs, references = ["the cat sat on the mat"], [["the cat sat on a mat", "a cat was on the mat"]]
    assert text.compute(predictions=outputs, references=references)["bleu"] == pytest.approx(bleu(outputs, references))


def test_bleu_of_a_copy_is_100_and_of_no_match_0():
    assert bleu(["a b c d e"], [["a b c d e"]]) == pytest.approx(100.0)
    assert bleu(["x y z w"], [["a b c d"]]) == 0.0


def test_bleu_refuses_missing_references():
    with pytest.raises(ValueError, match="lists of references"):
        bleu(["a"], [[]])


CASES = ["syn_e2e_good", "syn_e2e_medium", "syn_e2e_bad", "e2e_test_tgen", "e2e_dev80_heldout", "e2e_example"]


@pytest.mark.parametrize("case", CASES)
def test_bleu_equals_the_official_script(case):
    folder = SHARED / "oracle" / "cases" / case
    if not folder.is_dir():
        pytest.skip("no folder of officially scored outputs beside the checkout")
    official = json.loads((folder / "official.json").read_text())["cli_default"]["BLEU"]
    outputs = (folder / "sys.txt").read_text(encoding="utf-8").split("\n")[:-1]
    shared = {"e2e_test": "e2e_test_refs.txt", "e2e_dev80": "e2e_dev80_refs.txt"}
    named = next((f for prefix, f in shared.items() if case.startswith(prefix)), None)
    path = folder.parent / "_shared" / named if named else folder / "refs.txt"
    blocks = [block.strip("\n").split("\n") for block in path.read_text(encoding="utf-8").strip("\n").split("\n\n")]
    assert bleu(outputs, blocks) == pytest.approx(100 * float(official), abs=0.01)
