"""Runs whose primary metric is undefined at some epochs: no crash or zero, and a reason in record and tables."""

from __future__ import annotations

import dataclasses

import pytest
from recorded import built, changed, record
from support import interrupt, small, without_cost

from rosa_bench.records.display import result_table, score_text
from rosa_bench.records.record import read_record
from rosa_bench.run import run as run_experiment
from rosa_bench.tables.formats import markdown
from rosa_bench.tasks.kinds.classify import Classify

EPOCHS = ("task=cola", "method=lora", "train.max_steps=18")  # three epochs of six steps


@pytest.fixture
def constant(monkeypatch):
    """Predict class 1 for all rows in some evaluations, counted from 0."""

    def at(*evaluations: int) -> None:
        original, count = Classify.predictions, iter(range(99))

        def classify(kind, task, examples, values):
            result, now = original(kind, task, examples, values), next(count)
            if now in evaluations:
                return [dataclasses.replace(p, value=1) for p in result]
            return [dataclasses.replace(p, value=i % 2) for i, p in enumerate(result)]  # never constant

        monkeypatch.setattr(Classify, "predictions", classify)

    return at


def test_an_epoch_without_the_primary_metric_is_not_the_best(tmp_path, constant):
    constant(0, 2)
    result = run_experiment(small(tmp_path, *EPOCHS))
    assert result.status == "done" and result.primary["best_epoch"] == 2.0
    assert result.scores["validation"][""] == {} and "last" not in result.primary
    assert result.primary["best"] == result.primary["best_scores"]["validation"]["matthews"]
    assert result.facts["absent_metrics"] == {"matthews": "undefined: every prediction is 1 (validation)"}
    assert score_text(result).startswith("matthews – (validation), best epoch ")
    assert "matthews is absent: undefined" in result_table([result], [tmp_path])
    assert read_record(tmp_path / result.run_id / "record.json").primary == result.primary
    grid = built(tmp_path)[0]
    assert "cola matthews is absent in 1 run: undefined: every prediction is 1 (validation)." in markdown(grid)


def test_a_run_without_the_primary_metric(tmp_path, constant, capsys):
    constant(*range(9))
    result = run_experiment(small(tmp_path, *EPOCHS))
    progress = [line for line in capsys.readouterr().out.splitlines() if "epoch " in line]
    assert len(progress) == 3 and all(line.endswith("  no score (validation)") for line in progress)
    assert not [line for line in result_table([result], [tmp_path]).splitlines() if line.startswith("validation:")]
    assert result.status == "done" and not {"best", "last", "best_epoch"} & set(result.primary)
    assert score_text(result) == "–"
    assert " – |" in markdown(built(tmp_path)[0])


def test_a_run_that_is_stopped_before_a_defined_epoch(tmp_path, constant):
    constant(0, 2)
    whole = run_experiment(small(tmp_path / "whole", *EPOCHS))
    constant(0)
    interrupt(small(tmp_path / "parts", *EPOCHS), 8)
    constant(1)
    resumed = run_experiment(small(tmp_path / "parts", *EPOCHS, "resume=must"))
    assert without_cost(resumed) == without_cost(whole) and resumed.facts == whole.facts


def test_variants_with_and_without_the_metric(tmp_path, constant):
    constant(3, 4)
    result = run_experiment(small(tmp_path, "task=cola", "method=dylora", "method.rank_max=4", "train.max_steps=18"))
    scores = result.scores["validation"]
    without = [name for name, values in scores.items() if "matthews" not in values]
    assert without == ["r1", "r2"] and {"last", "best"} <= set(result.primary)
    assert result.facts["absent_metrics"]["matthews"].endswith("(validation r1, validation r2)")


def test_seeds_without_the_metric_are_not_averaged(tmp_path):
    for seed in (1, 2, 3):
        path = record(tmp_path, "method=lora", seed=seed, last=50.0)
    facts = {"absent_metrics": {"matthews": "undefined: every prediction is 1 (validation)"}}
    changed(path, scores={"validation": {"": {}}}, primary={"metric": "matthews", "split": "validation"}, facts=facts)
    text = markdown(built(tmp_path)[0])
    assert "50.00 ± 0.00 |" in text and "n=2" in text and "cola matthews is absent in 1 run" in text
