"""Paired tests of two groups of runs on the same examples: does the difference hold for new examples and new seeds?

The inputs are stored predictions (`predictions-<split>[-<variant>].jsonl.gz`) of a method's and a baseline's seeds.
`docs/background/statistics.md` explains each number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from rosa_bench import metrics
from rosa_bench.config import choice_files, target_class
from rosa_bench.core.task import Task
from rosa_bench.errors import UsageError, first_line
from rosa_bench.metrics.metric import Test
from rosa_bench.records.predictions import Predictions
from rosa_bench.stats import significance
from rosa_bench.stats.bootstrap import Statistic, differences

ENOUGH_EXAMPLES = 10  # fewest examples for a bootstrap
UNDEFINED = 0.01  # largest share of resamples in which a metric may be undefined


@dataclass(frozen=True)
class Comparison:
    """A method's mean score minus the baseline's, in the unit of the metric.

    `low` to `high` is a 95 % interval of the difference on new examples with the same runs; `p` tests the hypothesis of
    no difference. `seeds_low` to `seeds_high` is a 95 % interval for new seeds on the same examples. Absent values are
    None; `test` and `seed_test` then give the reason, otherwise the method of computation.
    """

    metric: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    seeds_low: float | None
    seeds_high: float | None
    n_examples: int
    n_seeds: int
    test: str
    seed_test: str = "absent"
    n_seeds_baseline: int = 1

    def holds(self, adjusted: float | None) -> bool:
        """Whether the difference holds for new examples (Holm-corrected p) and, with the same sign, for new seeds."""
        if adjusted is None or adjusted >= significance.ALPHA or self.seeds_low is None or self.seeds_high is None:
            return False
        return self.seeds_low > 0 if self.difference > 0 else self.seeds_high < 0

    def better(self) -> bool:
        """Whether the method is better than the baseline by this metric."""
        return self.difference > 0 if metrics.traits(self.metric)[1] else self.difference < 0


def task_of(config: Mapping[str, Any]) -> Task:
    """Build the task of a record's `config`. Raises UsageError if this version does not accept it."""
    values = dict(config["task"])
    target, choice = str(values.pop("_target_", "")), (config.get("choices") or {}).get("task")
    if (path := choice_files("task").get(str(choice))) is not None:  # the class may have moved
        target = str(dict(OmegaConf.load(path))["_target_"])
    cls = target_class("task", target)
    try:
        task: Task = cls(**values)
    except ValueError as error:
        raise UsageError(f"cannot rebuild the task of a record ({first_line(error)})") from error
    return task


def compare(
    task: Task,
    metric: str,
    method: Sequence[Predictions],
    baseline: Sequence[Predictions],
    resamples: int = significance.RESAMPLES,
) -> Comparison:
    """Compare a method's runs with a baseline's by a metric of the task, one run per seed.

    Raises:
        UsageError: if a group is empty or has two runs of one seed, or if the runs differ in their examples or
            their order; the message names both files.
        NoStatisticError: if the metric is unknown, undefined for a run, or cannot be computed here.
    """
    same_examples([*method, *baseline])
    for group in (method, baseline):
        distinct_seeds(group)
    ours, theirs = ([run.statistic(task, metric) for run in group] for group in (method, baseline))
    scores = [{run.seed: run.statistic(task, metric).score for run in group} for group in (method, baseline)]
    difference = float(np.mean(list(scores[0].values())) - np.mean(list(scores[1].values())))
    low, high, p, test = examples_test(metrics.traits(metric)[0], difference, ours, theirs, resamples)
    seeds = significance.seed_interval(*scores)
    return Comparison(
        metric=metric,
        difference=difference,
        low=low,
        high=high,
        p=p,
        seeds_low=seeds.low,
        seeds_high=seeds.high,
        n_examples=ours[0].examples,
        n_seeds=len(method),
        test=test,
        seed_test=seeds.test,
        n_seeds_baseline=len(baseline),
    )


def same_examples(runs: Sequence[Predictions]) -> None:
    """Raise UsageError with two files and their first difference unless all have the same rows in the same order."""
    for run in runs[1:]:
        first = runs[0]
        if len(run.rows) != len(first.rows):
            raise UsageError(f"{first.path} has {len(first.rows)} predictions, but {run.path} has {len(run.rows)}")
        for number, (a, b) in enumerate(zip(first.rows, run.rows, strict=True), start=1):
            # The id of a local row without one is its file and line; the folder may have moved.
            if a.id.rpartition("/")[2] != b.id.rpartition("/")[2]:
                raise UsageError(f"{first.path} and {run.path}: the ids of prediction {number} are {a.id} and {b.id}")
            if (a.label, a.references) != (b.label, b.references):
                raise UsageError(f"{first.path} and {run.path}: {a.id} has different labels or references")


def distinct_seeds(group: Sequence[Predictions]) -> None:
    """Raise UsageError unless the group has runs, all of different seeds."""
    if not group:
        raise UsageError("a comparison needs predictions of a method and of a baseline")
    by_seed: dict[int, Path] = {}
    for run in group:
        if run.seed in by_seed:
            raise UsageError(f"{by_seed[run.seed]} and {run.path} both have seed {run.seed}")
        by_seed[run.seed] = run.path


def examples_test(
    kind: Test, difference: float, ours: Sequence[Statistic], theirs: Sequence[Statistic], resamples: int
) -> tuple[float | None, float | None, float | None, str]:
    """Interval and p value of a difference for new examples, and how they were computed.

    Accuracies are tested by sign flips, other metrics by a bootstrap over examples. The interval is from the bootstrap.

    Returns:
        low, high, p, test.
    """
    p, test = signs(*(_correct(group) for group in (ours, theirs))) if kind == "signs" else (None, "")
    examples = ours[0].examples
    if examples < ENOUGH_EXAMPLES:
        return None, None, p, test or f"absent: {examples} examples are too few for a bootstrap"
    values = differences(ours, theirs, resamples)
    defined = values[np.isfinite(values)]
    if len(defined) < (1 - UNDEFINED) * len(values):
        return None, None, p, test or f"absent: undefined in {len(values) - len(defined)} of {len(values)} resamples"
    centered, low, high = significance.null_centered(difference, defined)
    return low, high, centered if p is None else p, test or "paired bootstrap of examples"


def _correct(group: Sequence[Statistic]) -> NDArray[np.int64]:
    """Correctness [runs, E] of each run's predictions."""
    return np.stack([run.correct for run in group if run.correct is not None])


def signs(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[float, str]:
    """Permutation test of the difference in correctness [runs, E], averaged over each group's runs.

    With one run each, examples that both get right or both get wrong drop out, and the signs of the others are binomial
    with probability 1/2: McNemar's exact test.

    Returns:
        The p value and the name of the test.
    """
    runs = math.lcm(len(ours), len(theirs))  # differences of averages are integer multiples of 1 / runs
    gaps = ours.sum(0) * (runs // len(ours)) - theirs.sum(0) * (runs // len(theirs))
    return significance.sign_flip(gaps), "exact McNemar" if runs == 1 else "sign flips of examples"
