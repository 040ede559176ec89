"""Comparing two groups of runs from their files: which test applies, what is refused, what is stored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats
from support import composed

from rosa_bench.core.task import Prediction
from rosa_bench.errors import UsageError
from rosa_bench.metrics import find
from rosa_bench.metrics.metric import score_all
from rosa_bench.records import predictions
from rosa_bench.records.predictions import prediction_row, read_predictions
from rosa_bench.stats.bootstrap import NoStatisticError
from rosa_bench.system.files import write_json_lines_gz
from rosa_bench.tables import comparison_cache
from rosa_bench.tables.comparison_cache import Test, content, identity, load_tests, save_tests
from rosa_bench.tables.paired_tests import Comparison, compare, task_of

N = 120
LABELS = np.random.default_rng(0).integers(0, 2, N)


def stored(path: Path, predictions, labels=None, name: str = "label") -> Path:
    """A file of predictions as a run writes it."""
    labels = LABELS if labels is None else labels
    pairs = zip(np.asarray(predictions).tolist(), labels.tolist() if name == "label" else labels, strict=True)
    write_json_lines_gz(path, ({"id": f"row {i}", "prediction": v, name: true} for i, (v, true) in enumerate(pairs)))
    return path


def right(share: float, seed: int) -> np.ndarray:
    """Predictions, a given share of them right."""
    return np.where(np.random.default_rng(seed).random(N) < share, LABELS, 1 - LABELS)


def group(folder: Path, name: str, share: float, seeds) -> list[predictions.Predictions]:
    folder.mkdir(exist_ok=True)
    return [
        read_predictions(stored(folder / f"{name}-{seed}.jsonl.gz", right(share, seed + len(name))), seed)
        for seed in seeds
    ]


def test_mcnemars_test_for_one_run_each(tmp_path):
    ours, theirs = right(0.8, 1), right(0.7, 2)
    runs = [[read_predictions(stored(tmp_path / f"{i}.jsonl.gz", v), 1)] for i, v in enumerate((ours, theirs))]
    comparison = compare(composed("task=sst2").task, "accuracy", *runs)
    a, b = ((x == LABELS) & (y != LABELS) for x, y in ((ours, theirs), (theirs, ours)))
    assert comparison.p == pytest.approx(scipy_stats.binomtest(int(a.sum()), int((a | b).sum())).pvalue)
    assert comparison.difference == pytest.approx(100 * (a.sum() - b.sum()) / N)
    assert comparison.test == "exact McNemar" and comparison.n_examples == N and comparison.n_seeds == 1
    assert comparison.seeds_low is None and comparison.seed_test == "absent: one seed" and not comparison.holds(0.001)
    assert (
        comparison.low is not None
        and comparison.high is not None
        and comparison.low < comparison.difference < comparison.high
    )


@pytest.mark.parametrize(("metric", "task"), [("accuracy", "mrpc"), ("f1", "mrpc"), ("matthews", "cola")])
def test_several_seeds(metric, task, tmp_path):
    ours, theirs = group(tmp_path, "ours", 0.9, (1, 2, 3)), group(tmp_path, "theirs", 0.6, (1, 2, 3))
    comparison = compare(composed(f"task={task}").task, metric, ours, theirs)
    scores = [
        [score_all([find(metric)], [row.value for row in run.rows], LABELS)[metric] for run in runs]
        for runs in (ours, theirs)
    ]
    assert comparison.difference == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]), rel=1e-12)
    oracle = scipy_stats.ttest_rel(*scores).confidence_interval(0.95)
    assert (comparison.seeds_low, comparison.seeds_high) == pytest.approx((oracle.low, oracle.high))
    assert comparison.p is not None and comparison.p < 0.001 and comparison.better()
    assert comparison.holds(comparison.p) and not comparison.holds(0.06) and not comparison.holds(None)
    assert comparison.test == ("sign flips of examples" if metric == "accuracy" else "paired bootstrap of examples")
    turned = compare(composed(f"task={task}").task, metric, theirs, ours)
    assert turned.difference == pytest.approx(-comparison.difference) and turned.p == pytest.approx(comparison.p)
    assert turned.holds(turned.p) and not turned.better()


def test_different_numbers_of_seeds_are_averaged(tmp_path):
    ours, theirs = group(tmp_path, "ours", 0.75, (1, 2, 3)), group(tmp_path, "theirs", 0.7, (4, 5))
    comparison = compare(composed("task=sst2").task, "accuracy", ours, theirs)
    apart = sum(2 * (np.array([r.value for r in run.rows]) == LABELS) for run in ours)
    apart = apart - sum(3 * (np.array([r.value for r in run.rows]) == LABELS) for run in theirs)
    flipped = np.random.default_rng(0).choice([-1, 1], (40_000, N)) @ apart
    assert comparison.p == pytest.approx(np.mean(np.abs(flipped) >= abs(apart.sum())), abs=0.01)
    assert comparison.seed_test == "Welch" and (comparison.n_seeds, comparison.n_seeds_baseline) == (3, 2)


def test_equal_runs_do_not_differ(tmp_path):
    runs = [read_predictions(stored(tmp_path / "a.jsonl.gz", right(0.7, 1)), 1)]
    for metric in ("accuracy", "f1"):
        comparison = compare(composed("task=mrpc").task, metric, runs, runs)
        assert (comparison.difference, comparison.low, comparison.high, comparison.p) == (0.0, 0.0, 0.0, 1.0)
        assert not comparison.better()


def test_scores_of_several_outputs(tmp_path):
    labels = np.random.default_rng(1).standard_normal((30, 4))
    runs = []
    for i, noise in enumerate((0.5, 1.0)):
        values = labels + noise * np.random.default_rng(i).standard_normal((30, 4))
        runs.append([read_predictions(stored(tmp_path / f"{i}.jsonl.gz", values, labels), 1)])
    comparison = compare(composed("task=synthetic").task, "mse", *runs)
    assert comparison.difference < 0 and comparison.better() and comparison.p is not None and comparison.p < 0.01


def test_texts_are_compared_by_the_tasks_convention(tmp_path):
    references = [[f"the pub number {i} is cheap .", f"pub {i} costs little ."] for i in range(40)]
    good = [f"the pub number {i} is cheap ." if i % 4 else "a pub ." for i in range(40)]
    runs = []
    for name, texts in (("good", good), ("bad", [f"pub {i} is nice ." for i in range(40)])):
        path = stored(tmp_path / f"{name}.jsonl.gz", texts, references, "references")
        runs.append([read_predictions(path, 1)])
    task = composed("task=webnlg").task
    comparison = compare(task, "bleu", *runs)
    scores = [task.primary_score("test", run[0].rows) for run in runs]
    assert comparison.difference == scores[0] - scores[1] and comparison.p is not None and comparison.p < 0.01
    assert comparison.test == "paired bootstrap of examples"
    assert compare(task, "ter", *runs).difference < 0 and compare(task, "ter", *runs).better()


def test_a_subset_is_compared_alone(tmp_path):
    rows = [
        {"id": str(i), "prediction": i % 2, "label": 1, "subset": "seen" if i < 30 else "unseen"} for i in range(50)
    ]
    write_json_lines_gz(tmp_path / "a.jsonl.gz", rows)
    assert len(read_predictions(tmp_path / "a.jsonl.gz", 1, "seen").rows) == 30
    with pytest.raises(UsageError, match=r"a\.jsonl\.gz.*subset other"):
        read_predictions(tmp_path / "a.jsonl.gz", 1, "other")


def test_too_few_examples_have_no_bootstrap(tmp_path):
    paths = [stored(tmp_path / f"{i}.jsonl.gz", [i, 1, 0, 1], np.array([0, 1, 0, 1])) for i in range(2)]
    runs = [[read_predictions(path, 1)] for path in paths]
    comparison = compare(composed("task=cola").task, "matthews", *runs)
    assert (comparison.p, comparison.low, comparison.high) == (None, None, None) and "4 examples" in comparison.test
    exact = compare(composed("task=sst2").task, "accuracy", *runs)
    assert exact.p == 1.0 and exact.low is None and exact.test == "exact McNemar"


def test_a_metric_that_is_often_undefined_has_no_bootstrap(tmp_path):
    labels = np.arange(12.0) / 3
    runs = []
    for i, other in enumerate((1.0, 2.0)):
        values = np.r_[np.zeros(11), other]
        runs.append([read_predictions(stored(tmp_path / f"{i}.jsonl.gz", values, labels), 1)])
    comparison = compare(composed("task=stsb").task, "pearson", *runs)
    assert comparison.p is None and "undefined in" in comparison.test and comparison.difference == pytest.approx(0)
    runs[1] = [read_predictions(stored(tmp_path / "2.jsonl.gz", np.ones(12), labels), 1)]
    with pytest.raises(NoStatisticError, match="pearson: undefined"):
        compare(composed("task=stsb").task, "pearson", *runs)


def test_runs_on_different_examples_are_refused(tmp_path):
    task = composed("task=sst2").task
    a = read_predictions(stored(tmp_path / "a.jsonl.gz", right(0.7, 1)), 1)
    shorter = read_predictions(stored(tmp_path / "b.jsonl.gz", right(0.7, 1)[:50], LABELS[:50]), 1)
    relabeled = read_predictions(stored(tmp_path / "c.jsonl.gz", right(0.7, 1), 1 - LABELS), 1)
    rows = [{"id": f"row {i}", "prediction": 1, "label": 1} for i in range(N)]
    write_json_lines_gz(tmp_path / "d.jsonl.gz", [rows[1], rows[0], *rows[2:]])
    turned = read_predictions(tmp_path / "d.jsonl.gz", 1)
    for other, message in (
        (shorter, "50"),
        (relabeled, "row 0 has different labels"),
        (turned, "ids of prediction 1 are row 0 and row 1"),
    ):
        with pytest.raises(UsageError, match=message) as raised:
            compare(task, "accuracy", [a], [other])
        assert str(a.path) in str(raised.value) and str(other.path) in str(raised.value)
    with pytest.raises(UsageError, match="both have seed 1"):
        compare(task, "accuracy", [a, a], [a])
    with pytest.raises(UsageError, match="needs predictions"):
        compare(task, "accuracy", [a], [])


def test_rows_without_an_id_are_the_same_in_a_moved_folder(tmp_path):
    runs = []
    for folder in ("data", "/elsewhere/data"):
        rows = [{"id": f"{folder}/glue/sst2/validation.jsonl:{i + 1}", "prediction": 1, "label": 1} for i in range(N)]
        write_json_lines_gz(path := tmp_path / f"{len(runs)}.jsonl.gz", rows)
        runs.append([read_predictions(path, 1)])
    assert compare(composed("task=sst2").task, "accuracy", *runs).difference == 0


def test_predictions_of_a_run_are_read_back(tmp_path):
    written = (
        Prediction("row 0", 1, 0, logits=(0.1, 0.9)),
        Prediction("row 1", 2.5, 3.0, subset="seen"),
        Prediction("row 2", [1.0, 2.0], [1.5, 2.0]),
        Prediction("row 3", "", references=("a text", "another")),
    )
    write_json_lines_gz(tmp_path / "p.jsonl.gz", map(prediction_row, written))
    read = read_predictions(tmp_path / "p.jsonl.gz", 1).rows
    assert read == tuple(dataclasses.replace(row, logits=()) for row in written)


GOOD = {"id": "1", "prediction": 1, "label": 1}


@pytest.mark.parametrize(
    "row",
    [
        [],
        {"id": 3, "prediction": 1, "label": 1},
        {"id": "1", "label": 1},
        {"id": "1", "prediction": 1},
        {"id": "1", "prediction": [1.0, 2.0], "label": 1},
        {"id": "1", "prediction": True, "label": 1},
        {"id": "1", "prediction": "a text"},
        {"id": "1", "prediction": "a text", "references": []},
        {"id": "1", "prediction": "a text", "references": [1]},
    ],
)
def test_an_invalid_row_is_named(row, tmp_path):
    write_json_lines_gz(tmp_path / "p.jsonl.gz", [GOOD, row])
    with pytest.raises(UsageError, match=r"p\.jsonl\.gz:2: a pred"):
        read_predictions(tmp_path / "p.jsonl.gz", 1)


def test_damaged_files_are_named(tmp_path):
    path = stored(tmp_path / "p.jsonl.gz", right(0.7, 1))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not gzip", b""):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"p\.jsonl\.gz"):
            read_predictions(path, 1)
    with pytest.raises(UsageError, match=r"absent\.jsonl\.gz"):
        read_predictions(tmp_path / "absent.jsonl.gz", 1)


def test_a_task_is_made_from_its_record():
    run = composed("task=webnlg", "task.scoring=webnlg2017")
    assert task_of(run.to_dict()) == run.task
    with pytest.raises(UsageError, match="cannot rebuild"):
        task_of({"task": run.to_dict()["task"] | {"no_such_key": 1}})
    with pytest.raises(UsageError, match="_target_"):
        task_of({"task": {"_target_": "os.system"}})


COMPARISON = Comparison(
    "f1", 1.5, 0.2, 2.8, 0.03, None, None, 408, 1, "paired bootstrap of examples", "absent: one seed"
)


def test_comparisons_are_stored_and_reused(tmp_path):
    file = tmp_path / "tables" / "tests.json"
    assert load_tests(file.parent) == {}
    key = identity(["b", "a"], ["c"], "f1", "validation")
    assert key == identity(["a", "b"], ["c"], "f1", "validation")
    others = [
        identity(["a"], ["c"], "f1", "validation"),
        identity(["c"], ["a", "b"], "f1", "validation"),
        identity(["a", "b"], ["c"], "accuracy", "validation"),
        identity(["a", "b"], ["c"], "f1", "test"),
        identity(["a", "b"], ["c"], "f1", "validation", ("r4", "")),
    ]
    assert len({key, *others}) == 6
    tests = {key: Test("rosa r=4", "lora r=4", "mrpc", "validation", "0" * 64, COMPARISON)}
    save_tests(file, tests)
    assert load_tests(file.parent) == tests
    entry = json.loads(file.read_text())["tests"][key]
    assert entry["method"] == "rosa r=4" and entry["difference"] == 1.5 and "seeds_low" not in entry
    save_tests(file, load_tests(file.parent))
    assert load_tests(file.parent) == tests and [p.name for p in file.parent.iterdir()] == ["tests.json"]


def test_a_comparison_is_tied_to_its_predictions(tmp_path):
    paths = [stored(tmp_path / f"{i}.jsonl.gz", right(0.7, i)) for i in range(3)]
    hashed = content(paths[:2], paths[2:])
    assert hashed is not None and hashed == content(paths[1::-1], paths[2:]) != content(paths[2:], paths[:2])
    test = Test("rosa", "lora", "mrpc", "validation", hashed, COMPARISON)
    stored(paths[1], right(0.7, 9))
    assert test.current(hashed) and not test.current(content(paths[:2], paths[2:]))
    paths[0].unlink()
    assert content(paths[:2], paths[2:]) is None and test.current(None)


def test_a_damaged_file_of_comparisons_is_named(tmp_path):
    file = tmp_path / "tests.json"
    save_tests(file, {"k": Test("rosa", "lora", "mrpc", "validation", "0", COMPARISON)})
    good = json.loads(file.read_text())
    entry = good["tests"]["k"]
    damaged = [
        [],
        good | {"schema": 99},
        good | {"tests": {"k": {name: value for name, value in entry.items() if name != "method"}}},
        good | {"tests": {"k": entry | {"other": 1}}},
        good | {"tests": {"k": entry | {"p": "small"}}},
        good | {"tests": {"k": {name: value for name, value in entry.items() if name != "n_seeds"}}},
        good | {"tests": []},
    ]
    for content_of in (*map(json.dumps, damaged), "{", ""):
        file.write_text(content_of)
        with pytest.raises(UsageError, match=r"tests\.json holds no comparisons"):
            comparison_cache.load_tests(file.parent)
