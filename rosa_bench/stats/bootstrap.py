"""Metrics of resampled examples: how a score would differ had other examples been drawn.

A resample is a row of counts: how often each example was drawn. Most metrics are functions of sums over examples, so
that all resamples of a chunk are scored by one matrix product and one formula. Sizes: R resamples, E examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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


# Metrics of predictions with a label. Each makes a Statistic of a score, predictions and labels.


def _accuracy(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    correct = (predictions == labels).astype(np.int64)
    found = mean(score, correct, 100)
    return Statistic(score, found.examples, found.resampled, correct)


def _f1(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    said, true = predictions == 1, labels == 1
    rows = np.stack([said & true, said, true], axis=1)
    return sums(score, rows, lambda total: 100 * ratio(2 * total[:, 0], total[:, 1] + total[:, 2]))


def _matthews(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    """For any number of classes, as scikit-learn has it: from the counts of each class said, true, and both."""
    classes = np.unique([predictions, labels])
    said, true = (values[:, None] == classes for values in (predictions, labels))
    rows, k = np.concatenate([(predictions == labels)[:, None], said, true], axis=1), len(classes)

    def combine(total: Numbers) -> Numbers:
        n, said, true = float(len(rows)), total[:, 1 : 1 + k], total[:, 1 + k :]
        both = total[:, 0] * n - (said * true).sum(1)
        spread = (n**2 - (said**2).sum(1)) * (n**2 - (true**2).sum(1))
        return 100 * ratio(both, np.sqrt(spread))

    return sums(score, rows, combine)


def _correlation(covariance: Numbers, first: Numbers, second: Numbers) -> Numbers:
    """In points, from sums of products about the means."""
    return 100 * ratio(covariance, np.sqrt(first * second))


def _pearson(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    x, y = predictions - predictions.mean(), labels - labels.mean()
    rows = np.stack([x, y, x * x, y * y, x * y], axis=1)

    def combine(total: Numbers) -> Numbers:
        x, y, xx, yy, xy = total.T
        n = len(rows)
        return _correlation(xy - x * y / n, _spread(xx, x, n), _spread(yy, y, n))

    return sums(score, rows, combine)


def _spread(squares: Numbers, values: Numbers, n: int) -> Numbers:
    """The sum of squares about the mean; 0 where it is rounding, as in a resample of one value only."""
    spread: Numbers = squares - values**2 / n
    return np.where(spread > 1e-12 * squares, spread, 0.0)


def _spearman(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    """Ranks depend on the whole resample: from running totals of the counts in the order of the values."""
    ours, theirs = _Ranks(predictions), _ranks_of(labels.tobytes())

    def resampled(counts: Numbers) -> Numbers:
        (x, first), (y, second) = ours(counts), theirs(counts)
        x *= counts.T
        return _correlation(np.einsum("er,er->r", x, y), first, second)

    return Statistic(score, len(labels), resampled)


class _Ranks:
    """The ranks of values in a resample, about their mean; equal values share the mean of their ranks."""

    def __init__(self, values: Numbers) -> None:
        distinct, self.group = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.group, kind="stable")
        self.last = np.cumsum(np.bincount(self.group, minlength=len(distinct))) - 1

    def __call__(self, counts: Numbers) -> tuple[Numbers, Numbers]:
        """Ranks [E, R] for counts [R, E], and the sum of their squares [R]; the rank of what was not drawn is idle."""
        upto = np.cumsum(counts.T[self.order], axis=0)[self.last]
        often = np.diff(upto, axis=0, prepend=0)
        ranks = upto - (often + counts.shape[1]) / 2
        return ranks[self.group], np.einsum("er,er,er->r", often, ranks, ranks)


class _SharedRanks(_Ranks):
    """Ranks of labels, which all runs have in common: computed once for each chunk of counts."""

    def __init__(self, values: Numbers) -> None:
        super().__init__(values)
        self._of: Numbers | None = None

    def __call__(self, counts: Numbers) -> tuple[Numbers, Numbers]:
        """As `_Ranks`; what is returned is not to be changed."""
        if self._of is not counts:
            self._of, self._known = counts, super().__call__(counts)
        return self._known


@lru_cache(maxsize=8)
def _ranks_of(labels: bytes) -> _SharedRanks:
    return _SharedRanks(np.frombuffer(labels))


def _mse(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    return mean(score, ((predictions - labels) ** 2).reshape(len(labels), -1).mean(1))


def _r2(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    """The explained share of the variance, summed over outputs."""
    true = labels.reshape(len(labels), -1)
    missed, true = ((predictions.reshape(true.shape) - true) ** 2).sum(1), true - true.mean(0)
    rows = np.concatenate([missed[:, None], (true**2).sum(1)[:, None], true], axis=1)

    def combine(total: Numbers) -> Numbers:
        spread = total[:, 1] - (total[:, 2:] ** 2).sum(1) / len(rows)
        return 100 * (1 - ratio(total[:, 0], np.where(spread > 1e-12 * total[:, 1], spread, 0.0)))

    return sums(score, rows, combine)


LABELLED: Mapping[str, Callable[[float, Numbers, Numbers], Statistic]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
    "mse": _mse,
    "r2": _r2,
}


def labelled(metric: str, score: float | None, predictions: Any, labels: Any) -> Statistic:
    """A metric of predictions and labels, both [E] or [E, outputs], whose official score is known.

    Raises:
        NoStatisticError: if the metric is not one of `LABELLED`, or has no score.
    """
    if metric not in LABELLED:
        raise NoStatisticError(f"{metric} is not a function of predictions and labels that is known here")
    if score is None:
        raise NoStatisticError(f"{metric} is undefined for these predictions")
    return LABELLED[metric](score, np.asarray(predictions, np.float64), np.asarray(labels, np.float64))
