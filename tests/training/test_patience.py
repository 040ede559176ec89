"""Early stopping by `train.patience`: the epoch of the stop, the record, and resuming."""

from __future__ import annotations

import json

import pytest
from support import composed, interrupt, small, without_cost

from rosa_bench.evaluation.scorer import Scorer
from rosa_bench.records.best_epoch import best_epoch, evaluations_since_best
from rosa_bench.run import run as run_experiment
from rosa_bench.training import trainer

# Matthews after each epoch: the best one is the second, so that a patience of 3 ends with the fifth.
CURVE = [10.0, 30.0, 30.0, 20.0, 5.0, 90.0, 95.0, 99.0]


@pytest.fixture
def curve(monkeypatch):
    """Replace the scores at epoch ends by `CURVE`; return the list of scored epochs."""
    scored = []
    evaluate = Scorer.epoch_scores
    score = trainer.Loop._score

    def _score(self, state):
        scored.append(state.global_step // 3)
        score(self, state)

    def epoch_scores(self):
        evaluate(self)
        return {"validation": {"matthews": CURVE[scored[-1] - 1]}}

    monkeypatch.setattr(Scorer, "epoch_scores", epoch_scores)
    monkeypatch.setattr(trainer.Loop, "_score", _score)
    return scored


def run_of(folder, *overrides: str):
    """A run of up to eight epochs of three steps."""
    short = ["train.max_steps=24", "train.limit_train=24", "train.limit_eval=8", "save=adapter"]
    return small(folder, "method=lora", *short, *overrides)


def rates(folder, record) -> list[float]:
    lines = (folder / record.run_id / "events.jsonl").read_text().splitlines()
    return [event["lr"] for event in map(json.loads, lines) if "lr" in event]


def test_a_run_stops_when_patience_is_exhausted(curve, tmp_path):
    whole = run_experiment(run_of(tmp_path / "whole"))
    assert curve == [1, 2, 3, 4, 5, 6, 7, 8] and "stopped_early" not in whole.facts
    curve.clear()
    record = run_experiment(run_of(tmp_path / "stopped", "train.patience=3"))
    assert curve == [1, 2, 3, 4, 5]
    reason = "matthews on validation did not improve in the last 3 evaluations"
    assert record.facts["stopped_early"] == {"epoch": 5.0, "reason": reason}
    assert record.primary["best_epoch"] == 2.0 and record.primary["best"] == 30.0
    schedule = rates(tmp_path / "stopped", record)
    assert schedule and schedule == rates(tmp_path / "whole", whole)[: len(schedule)]  # that of all epochs


@pytest.mark.parametrize("patience", [4, 8])
def test_an_improvement_in_time_or_the_last_epoch_does_not_stop_a_run(patience, curve, tmp_path):
    record = run_experiment(run_of(tmp_path, f"train.patience={patience}"))
    assert len(curve) == 8 and "stopped_early" not in record.facts


@pytest.mark.parametrize("step", [4, 15])
def test_an_interrupted_run_stops_at_the_same_epoch(step, curve, tmp_path):
    """Also if interrupted at the last step before the stop (15), where the evaluation follows the interruption."""
    overrides = ["train.patience=3"]
    whole = run_experiment(run_of(tmp_path / "whole", *overrides))
    interrupt(run_of(tmp_path / "parts", *overrides), step)
    resumed = run_experiment(run_of(tmp_path / "parts", *overrides, "resume=must"))
    assert without_cost(resumed) == without_cost(whole)
    assert resumed.facts["stopped_early"] == whole.facts["stopped_early"]
    first, second = (tmp_path / part / whole.run_id / "adapter/adapter.safetensors" for part in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_killed_after_its_stop_does_not_train_further(curve, tmp_path, monkeypatch):
    overrides = ["train.patience=3"]
    whole = run_experiment(run_of(tmp_path / "whole", *overrides))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_experiment(run_of(tmp_path / "parts", *overrides))
    curve.clear()
    monkeypatch.setattr(trainer.BenchTrainer, "training_step", lambda *_: pytest.fail("it trained"))
    resumed = run_experiment(run_of(tmp_path / "parts", *overrides, "resume=must"))
    assert not curve and resumed.facts["stopped_early"] == whole.facts["stopped_early"]
    assert without_cost(resumed)["primary"] == without_cost(whole)["primary"]


def test_evaluations_are_counted_from_the_best():
    task = composed("task=cola").task

    def history(*values):
        return [
            {"step": n, "evaluation": {"validation": {} if value is None else {"matthews": value}}}
            for n, value in enumerate(values)
        ]

    assert evaluations_since_best(task, history(1.0)) == 0
    assert evaluations_since_best(task, history(1.0, 2.0, 2.0, 0.0)) == 2
    assert evaluations_since_best(task, history(None, None, None)) == 2  # undefined so far
    assert evaluations_since_best(task, history(None, 1.0, None)) == 1


def test_the_best_epoch_of_an_error_is_the_lowest():
    task = composed("task=stsb", "task.metrics=[pearson,mse]", "task.primary=mse").task
    history = [{"step": n, "evaluation": {"validation": {"mse": value}}} for n, value in enumerate((1.0, 0.5, 2.0))]
    assert best_epoch(task, history) == history[1] and evaluations_since_best(task, history) == 1
