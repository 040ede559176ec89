"""Metrics of resampled examples: how a score would differ had other examples been drawn.

A resample is a row of counts: how often each example was drawn. Most metrics are functions of sums over examples, so
that all resamples of a chunk are scored by one matrix product and one formula. Sizes: R resamples, E examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rosa_bench.stats.significance import RESAMPLES
from rosa_bench.stats.summary import SEED, Numbers

CHUNK = 200_000  # counts at a time: what stays in a processor's cache
Combine = Callable[[Numbers], Numbers]


class NoStatisticError(Exception):
    """A metric of these predictions cannot be tested; the text says why."""


@dataclass(frozen=True)
class Statistic:
    """A metric of one run's predictions: its official score, and its value for every resample of the examples.

    `resampled` takes counts [R, E] and gives scores [R], nan where the metric is undefined. `correct` [E] is there for
    a metric that is the share of right predictions, and nothing else.
    """

    score: float
    examples: int
    resampled: Callable[[Numbers], Numbers]
    correct: NDArray[np.int64] | None = None


def sums(score: float, rows: Any, combine: Combine) -> Statistic:
    """A metric that is `combine` of sums [R, K] of what each example adds, rows [E, K]."""
    added = np.ascontiguousarray(rows, dtype=np.float64)
    return Statistic(score, len(added), lambda counts: combine(counts @ added))


def mean(score: float, values: Any, scale: float = 1.0) -> Statistic:
    """A metric that is the mean of one value per example, times a scale."""
    rows = np.asarray(values, dtype=np.float64)[:, None]
    return sums(score, rows, lambda total: scale * total[:, 0] / len(rows))


def draws(examples: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[Numbers]:
    """Counts [R, E] in chunks: each row says how often every example was drawn, with replacement, in one resample."""
    generator, left = np.random.default_rng(seed), resamples
    while left:
        rows = min(left, max(1, CHUNK // examples))
        drawn = generator.integers(0, examples, (rows, examples), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * examples
        counts = np.bincount(drawn.ravel(), minlength=rows * examples).reshape(rows, examples)
        yield counts.astype(np.float64, order="F")  # the counts of one example lie together, for running totals
        left -= rows


def differences(
    method: Sequence[Statistic], baseline: Sequence[Statistic], resamples: int = RESAMPLES, seed: int = SEED
) -> Numbers:
    """The difference of mean scores [R] of two groups of runs, all scored on the same resampled examples."""
    found = []
    for counts in draws(method[0].examples, resamples, seed):
        ours, theirs = ([run.resampled(counts) for run in group] for group in (method, baseline))
        found.append(np.mean(ours, axis=0) - np.mean(theirs, axis=0))
    return np.concatenate(found)


def ratio(top: Numbers, bottom: Numbers, otherwise: float = np.nan) -> Numbers:
    """A quotient by elements; `otherwise` where the divisor is 0."""
    out: Numbers = np.full(np.broadcast(top, bottom).shape, otherwise)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out
