"""Sweeps whose cells Optuna chooses: `python -m rosa_bench -m hydra/sweeper=optuna KEY=interval(A,B) ...`.

The extra `optuna` (hydra-optuna-sweeper) asks Optuna for trials and runs them like any sweep. This module supplies what
the command line leaves open: the direction of the task's primary metric, one trial at a time, and a seed, so that a
restarted sweep proposes the same trials and skips the finished ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig

from rosa_bench.config import resolve
from rosa_bench.config.compose import compose, plain
from rosa_bench.errors import EXIT_DONE, UsageError
from rosa_bench.records.record import read_record
from rosa_bench.records.run_key import config_key, run_id

SWEEPER = "hydra/sweeper"
NEEDS = f"{SWEEPER}=optuna needs the extra optuna: pip install 'rosa_bench[optuna]'"


def is_requested(overrides: Sequence[str]) -> bool:
    """Whether the command line chooses Optuna."""
    chosen = [value for key, _, value in (o.partition("=") for o in overrides) if key == SWEEPER]
    return bool(chosen) and chosen[-1] == "optuna"


def completed(overrides: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The overrides and, if they choose Optuna, the sweeper's options that they do not set.

    Raises:
        UsageError: if the extra is not installed, or the command line is not a sweep of valid runs.
    """
    if not is_requested(overrides):
        return list(overrides)
    if any(not _installed(name) for name in ("hydra_plugins.hydra_optuna_sweeper", "optuna")):
        raise UsageError(NEEDS)
    names = {flag.partition("=")[0] for flag in flags}
    if not {"-m", "--multirun"} & names:
        raise UsageError(f"{SWEEPER}=optuna needs -m")
    if {"-cn", "--config-name"} & names:
        raise UsageError(
            f"{SWEEPER}=optuna cannot start from the configuration of a run; give its overrides instead of -cn"
        )
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UsageError(plain(error, overrides)) from error
    swept = [str(item.key_or_group) for item in parsed if item.is_sweep_override()]
    if not swept:
        raise UsageError(
            f'{SWEEPER}=optuna has nothing to choose; give a key several values: "train.lr=interval(1e-4,1e-2)"'
        )
    if "task" in swept:
        raise UsageError(f"{SWEEPER}=optuna compares the scores of one task; name one instead of a list")
    run = compose([_first(item) for item in parsed if not str(item.key_or_group).startswith("hydra")])
    given = {str(item.key_or_group): item for item in parsed}
    options = {"hydra.sweeper.direction": "maximize" if run.task.higher_is_better else "minimize"}
    options["hydra.sweeper.max_failure_rate"] = "1.0"  # a trial that diverges has no score, and the others continue
    if given.get("hydra/launcher") is None:
        options["hydra.sweeper.n_jobs"] = "1"  # each trial learns from all before it
    if "hydra/sweeper/sampler" not in given or given["hydra/sweeper/sampler"].value() != "grid":
        options["hydra.sweeper.sampler.seed"] = str(run.seed)
    return [*overrides, *(f"{key}={value}" for key, value in options.items() if key not in given)]


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that would contain it is missing
        return False


def _first(item: Override) -> str:
    """An override with the first value of its sweep."""
    if not item.is_sweep_override():
        return str(item.input_line)
    value = item.value()
    first = value.start if isinstance(value, IntervalSweep) else next(item.sweep_iterator(Transformer.encode))
    return f"{item.get_key_element()}={first}"


class Trial:
    """A finished trial: the overrides of its cell, and its record if it is done."""

    def __init__(self, overrides: Sequence[str], code: int, cfg: DictConfig) -> None:
        self.overrides = overrides
        run = resolve(cfg, overrides) if code == EXIT_DONE else None
        self.path = None if run is None else Path(run.output_dir) / run_id(run, config_key(run)) / "record.json"
        self.record = None if self.path is None else read_record(self.path)

    @property
    def score(self) -> float | None:
        """The primary metric of the last epoch; None if there is none, which Optuna counts as a failed trial."""
        return None if self.record is None else self.record.primary.get("last")


def best(trials: Sequence[Trial]) -> str | None:
    """The best trial with the values in which trials differ, and its record, in two lines; None if none has a score."""
    scored = [(trial, trial.record, trial.score) for trial in trials if trial.record and trial.score is not None]
    if not scored:
        return None
    sign = 1 if scored[0][1].primary["higher_is_better"] else -1
    trial, record, score = max(scored, key=lambda item: sign * item[2])
    common = set.intersection(*(set(trial.overrides) for trial in trials)) if len(trials) > 1 else set()
    values = " ".join(value for value in trial.overrides if value not in common)
    without = f" ({len(trials) - len(scored)} without a score)" if len(trials) > len(scored) else ""
    where = f"{record.primary['metric']} {score:.2f} ({record.primary['split']})"
    return f"best of {len(trials)} trials{without}: {where} with {values}\nrecord: {trial.path}"
