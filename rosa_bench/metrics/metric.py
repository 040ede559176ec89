"""The `Metric` object: a metric's score, direction, resampled form and test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rosa_bench.metrics.scores import AbsentError, Scores
from rosa_bench.stats.bootstrap import NoStatisticError, Statistic

Test = Literal["signs", "bootstrap"]


@dataclass(frozen=True)
class Metric:
    """A metric of E predictions and their labels.

    `compute(values, labels)` returns the score on the scale that the papers print, or raises `AbsentError`. Values and
    labels are arrays [E] or [E, outputs].
    `resample(score, values, labels)` returns the same metric as a function of resampled examples, for significance
    tests. `test` is the paired test over examples: sign flips if the metric is a share of correct predictions, else a
    bootstrap.
    """

    name: str
    compute: Callable[[Any, Any], float]
    resample: Callable[[float, Any, Any], Statistic]
    higher_is_better: bool = True
    test: Test = "bootstrap"

    def statistic(self, values: Any, labels: Any) -> Statistic:
        """The score and its resampled form.

        Raises:
            NoStatisticError: if the metric is undefined for these predictions.
        """
        try:
            return self.resample(self.compute(values, labels), values, labels)
        except AbsentError as error:
            raise NoStatisticError(f"{self.name}: {error}") from error


def require_spread(values: Any, name: str) -> None:
    """Raise AbsentError if all values are equal, since a correlation divides by their spread."""
    if min(values) == max(values):
        raise AbsentError(f"undefined: every {name} is {values[0]:g}")


def score_all(metrics: Sequence[Metric], values: Any, labels: Any) -> Scores:
    """Score predictions against numeric labels, both [E] or [E, outputs].

    Raises:
        ValueError: if the lengths differ, there are no rows, or a value is not finite.
    """
    if len(values) != len(labels):
        raise ValueError(f"{len(values)} predictions but {len(labels)} labels")
    if not len(labels):
        raise ValueError("no rows to score")
    predicted, true = np.asarray(values, np.float64), np.asarray(labels, np.float64)
    if not (np.isfinite(predicted).all() and np.isfinite(true).all()):
        raise ValueError("a prediction or label is not a finite number")
    scores = Scores()
    for metric in metrics:
        scores.enter(metric.name, lambda metric=metric: metric.compute(predicted, true))  # type: ignore[misc]
    return scores
