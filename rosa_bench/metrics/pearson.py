"""Pearson correlation in points (-100 to 100)."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

from rosa_bench.metrics.metric import Metric, require_spread
from rosa_bench.stats.bootstrap import Statistic, ratio, sums
from rosa_bench.stats.summary import Numbers


def scored_by(
    function: Callable[[Numbers, Numbers], tuple[float, float]],
) -> Callable[[Numbers, Numbers], float]:
    """Convert a scipy correlation to a score in points, absent if all predictions or all labels are equal."""

    def compute(predictions: Numbers, labels: Numbers) -> float:
        require_spread(predictions, "prediction")
        require_spread(labels, "label")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about nearly constant values
            return 100 * float(function(predictions, labels)[0])

    return compute


def correlation(covariance: Numbers, first: Numbers, second: Numbers) -> Numbers:
    """Correlation in points, from sums of products about the means."""
    return 100 * ratio(covariance, np.sqrt(first * second))


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    x, y = predictions - predictions.mean(), labels - labels.mean()
    rows = np.stack([x, y, x * x, y * y, x * y], axis=1)

    def combine(total: Numbers) -> Numbers:
        x, y, xx, yy, xy = total.T
        n = len(rows)
        return correlation(xy - x * y / n, _spread(xx, x, n), _spread(yy, y, n))

    return sums(score, rows, combine)


def _spread(squares: Numbers, values: Numbers, n: int) -> Numbers:
    """Sum of squares about the mean; 0 if it is only rounding error, as in a resample of a single value."""
    spread: Numbers = squares - values**2 / n
    return np.where(spread > 1e-12 * squares, spread, 0.0)


METRIC = Metric("pearson", scored_by(stats.pearsonr), _resample)
