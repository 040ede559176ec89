"""Bootstrap over examples: the distribution of a score under resampling with replacement.

A resample is a row of counts: how often each example was drawn. Most metrics are functions of sums over examples, so
one matrix product and one formula score all resamples of a chunk. Sizes: R resamples, E examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rosa_bench.stats.significance import RESAMPLES
from rosa_bench.stats.summary import SEED, Numbers

CHUNK = 200_000  # counts per chunk; fits in the processor's cache
Combine = Callable[[Numbers], Numbers]


class NoStatisticError(Exception):
    """A metric of these predictions cannot be tested; the message says why."""


@dataclass(frozen=True)
class Statistic:
    """A metric of one run's predictions: its official score and its value for every resample of the examples.

    `resampled` maps counts [R, E] to scores [R], with nan where the metric is undefined. `correct` [E] is set only for
    a metric that is the share of correct predictions.
    """

    score: float
    examples: int
    resampled: Callable[[Numbers], Numbers]
    correct: NDArray[np.int64] | None = None


def sums(score: float, rows: Any, combine: Combine) -> Statistic:
    """A metric computed by `combine` from sums [R, K] of per-example terms `rows` [E, K]."""
    terms = np.ascontiguousarray(rows, dtype=np.float64)
    return Statistic(score, len(terms), lambda counts: combine(counts @ terms))


def mean(score: float, values: Any, scale: float = 1.0) -> Statistic:
    """A metric that is the mean of one value per example, times `scale`."""
    rows = np.asarray(values, dtype=np.float64)[:, None]
    return sums(score, rows, lambda total: scale * total[:, 0] / len(rows))


def draws(examples: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[Numbers]:
    """Yield counts [R, E] in chunks; a row says how often each example was drawn, with replacement, in one resample."""
    generator, remaining = np.random.default_rng(seed), resamples
    while remaining:
        rows = min(remaining, max(1, CHUNK // examples))
        indices = generator.integers(0, examples, (rows, examples), dtype=np.int64)
        indices += np.arange(rows)[:, None] * examples
        counts = np.bincount(indices.ravel(), minlength=rows * examples).reshape(rows, examples)
        yield counts.astype(np.float64, order="F")  # an example's counts are contiguous, for running totals
        remaining -= rows


def differences(
    method: Sequence[Statistic], baseline: Sequence[Statistic], resamples: int = RESAMPLES, seed: int = SEED
) -> Numbers:
    """Differences [R] between the mean scores of two groups of runs, all scored on the same resampled examples."""
    chunks = []
    for counts in draws(method[0].examples, resamples, seed):
        method_scores, baseline_scores = ([run.resampled(counts) for run in group] for group in (method, baseline))
        chunks.append(np.mean(method_scores, axis=0) - np.mean(baseline_scores, axis=0))
    return np.concatenate(chunks)


def ratio(top: Numbers, bottom: Numbers, otherwise: float = np.nan) -> Numbers:
    """Elementwise quotient; `otherwise` where the divisor is 0."""
    out: Numbers = np.full(np.broadcast(top, bottom).shape, otherwise)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out
