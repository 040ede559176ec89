"""Mean, median, spread and confidence intervals of a few seeds, as pure functions.

`docs/background/statistics.md` explains the choice of intervals and gives their measured coverage.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

LEVEL = 0.95  # of every interval
SEED = 20_240_707  # of every generator in this package, so that results are reproducible
NO_SPREAD = 1e-9  # a standard deviation below this share of the largest value is rounding error
ORDERED_FROM = 6  # fewest values whose extremes enclose the median with probability 0.95

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Summary of one cell's values.

    `low` to `high` is a 95 % interval of the mean, `median_low` to `median_high` of the median. The intervals are None
    for one value and for equal values; `sd` is None for one value.
    """

    n: int
    mean: float
    median: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    median_low: float | None = None
    median_high: float | None = None


def summary(values: Sequence[float]) -> Summary:
    """Mean, median, standard deviation (n - 1), and an interval of the mean and of the median.

    The interval of the mean is Student's. For up to 5 values, the interval of the median is a parametric bootstrap-t
    under the normal distribution. From 6 values on, it is given by the order statistics that cover the median with a
    probability of at least 0.95 for every continuous distribution.

    Raises:
        ValueError: if `values` is empty or a value is not finite.
    """
    scores = [float(value) for value in values]
    if not scores or not all(map(math.isfinite, scores)):
        raise ValueError(f"a summary needs finite values, got {list(values)!r}")
    n, mean, median = len(scores), statistics.fmean(scores), statistics.median(scores)
    if n == 1:
        return Summary(1, mean, median)
    sd = statistics.stdev(scores)
    if no_spread(sd, scores):
        return Summary(n, mean, median, sd)
    half, (low, high) = student(n - 1) * sd / math.sqrt(n), _median_interval(scores, median, sd)
    return Summary(n, mean, median, sd, mean - half, mean + half, low, high)


def no_spread(sd: float, values: Sequence[float]) -> bool:
    """Whether the values are equal up to rounding."""
    return sd <= NO_SPREAD * max(map(abs, values))


@cache
def student(freedom: float) -> float:
    """The factor of a 95 % interval: the upper 2.5 % point of Student's distribution."""
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))


def _median_interval(values: Sequence[float], median: float, sd: float) -> tuple[float, float]:
    n = len(values)
    if n < ORDERED_FROM:
        half = _median_factor(n) * sd / math.sqrt(n)
        return median - half, median + half
    rank = max(k for k in range(n // 2) if special.bdtr(k, n, 0.5) <= (1 - LEVEL) / 2)
    ordered = sorted(values)
    return ordered[rank], ordered[n - 1 - rank]


@cache
def _median_factor(n: int) -> float:
    """The 95 % point of |median| / (sd / sqrt(n)) over samples of a standard normal distribution."""
    samples = np.random.default_rng(SEED).standard_normal((200_000, n))
    ratios = np.abs(np.median(samples, axis=1)) / (samples.std(axis=1, ddof=1) / math.sqrt(n))
    return float(np.quantile(ratios, LEVEL))
