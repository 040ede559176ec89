"""Sweeps whose cells Optuna chooses."""

from __future__ import annotations

import importlib.util

import pytest
from support import SMALL

from rosa_bench import cli
from rosa_bench.errors import UsageError
from rosa_bench.records.record import read_record
from rosa_bench.suite import optuna_sweep

SWEEP = ["-m", "hydra/sweeper=optuna", *SMALL, "method=lora", "method.rank=1", "train.lr=tag(log,interval(1e-4,1e-2))"]
INSTALLED = importlib.util.find_spec("optuna") is not None
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the Optuna that the sweeper needs
needs_optuna = pytest.mark.skipif(not INSTALLED, reason="the extra optuna is not installed")


def completed(*overrides: str) -> list[str]:
    return optuna_sweep.completed(["hydra/sweeper=optuna", *overrides], ["-m"])


@pytest.mark.parametrize("absent", ["hydra_plugins.hydra_optuna_sweeper", "optuna"])
def test_without_the_extra_a_line_says_what_to_install(monkeypatch, capsys, absent):
    find = importlib.util.find_spec
    monkeypatch.setattr(optuna_sweep, "find_spec", lambda name: None if name == absent else find("json"))
    assert cli.main(SWEEP) == 2
    assert capsys.readouterr().err == f"rosa_bench: {optuna_sweep.NEEDS}\n"


@needs_optuna
def test_a_sweep_keeps_the_best_in_the_metrics_direction_and_can_be_repeated(tmp_path, capsys):
    arguments = [*SWEEP, "hydra.sweeper.n_trials=3", "task=sst2", "task.tune_share=0.5", f"output_dir={tmp_path}"]
    assert cli.main(arguments) == 0
    records = [read_record(path) for path in tmp_path.glob("*/record.json")]
    assert len({record.config["train"]["lr"] for record in records}) == 3
    assert {record.primary["split"] for record in records} == {"tune"}
    scores = {record.run_id: record.primary["last"] for record in records}
    lines = capsys.readouterr().out.splitlines()
    winner = next(record for record in records if f"/{record.run_id}/" in lines[-1])
    assert winner.primary["last"] == max(scores.values())
    assert lines[-2].startswith(f"best of 3 trials: accuracy {winner.primary['last']:.2f} (tune) with train.lr=")
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("already done") == 3 and len(list(tmp_path.glob("*/record.json"))) == 3


@needs_optuna
def test_a_trial_without_a_score_does_not_end_a_sweep(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "run_apart", lambda run: 1)
    monkeypatch.setattr(cli, "report_if_done", lambda run: None)
    assert cli.main([*SWEEP, "hydra.sweeper.n_trials=2", f"output_dir={tmp_path}"]) == 1
    assert capsys.readouterr().err == "rosa_bench: no trial has a score\n"


@needs_optuna
@pytest.mark.parametrize(
    ("task", "direction"),
    [
        (["cola"], "maximize"),
        (["synthetic"], "minimize"),
        (["synthetic", "task.primary=r2"], "maximize"),
        (["webnlg"], "maximize"),
    ],
)
def test_the_direction_is_that_of_the_tasks_metric(task, direction):
    overrides = completed(f"task={task[0]}", *task[1:], "train.lr=interval(1e-4,1e-2)", "seed=5")
    assert f"hydra.sweeper.direction={direction}" in overrides and "hydra.sweeper.sampler.seed=5" in overrides


@needs_optuna
def test_options_of_the_command_line_take_precedence():
    own = ["hydra.sweeper.direction=minimize", "hydra.sweeper.n_jobs=3", "hydra.sweeper.sampler.seed=9"]
    overrides = completed("method.rank=1,2", *own)
    assert [o for o in overrides if o.startswith("hydra.sweeper.") and "failure" not in o] == own
    assert not any("seed" in o for o in completed("method.rank=1,2", "hydra/sweeper/sampler=grid"))


@needs_optuna
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=cola"], "nothing to choose"),
        (["task=cola,sst2"], "the scores of one task"),
        (["train.lr=interval(-1,1)"], "train.lr=-1"),
        (["method.rnk=1,2"], "did you mean method.rank"),
        (["train.lr=interval(1"], r"train\.lr=interval\(1 cannot be parsed"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_before_its_first_trial(overrides, message):
    with pytest.raises(UsageError, match=message):
        completed(*overrides)


@needs_optuna
def test_it_is_a_sweep_of_overrides():
    with pytest.raises(UsageError, match="needs -m"):
        optuna_sweep.completed(["hydra/sweeper=optuna", "method.rank=1,2"], [])
    with pytest.raises(UsageError, match="instead of -cn"):
        optuna_sweep.completed(["hydra/sweeper=optuna", "method.rank=1,2"], ["-m", "-cn", "config"])
    assert optuna_sweep.completed(["method.rank=1,2"], ["-m"]) == ["method.rank=1,2"]
