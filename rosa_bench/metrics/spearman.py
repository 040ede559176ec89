"""Spearman rank correlation in points (-100 to 100)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import stats

from rosa_bench.metrics.metric import Metric
from rosa_bench.metrics.pearson import correlation, scored_by
from rosa_bench.stats.bootstrap import Statistic
from rosa_bench.stats.summary import Numbers


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    """Compute the ranks of each resample from cumulative counts in the order of the values."""
    prediction_ranks, label_ranks = _Ranks(predictions), _ranks_of(labels.tobytes())

    def resampled(counts: Numbers) -> Numbers:
        (x, first), (y, second) = prediction_ranks(counts), label_ranks(counts)
        x *= counts.T
        return correlation(np.einsum("er,er->r", x, y), first, second)

    return Statistic(score, len(labels), resampled)


class _Ranks:
    """Centered ranks of values in a resample; equal values share their mean rank."""

    def __init__(self, values: Numbers) -> None:
        distinct, self.group = np.unique(values, return_inverse=True)
        self.order = np.argsort(self.group, kind="stable")
        self.last = np.cumsum(np.bincount(self.group, minlength=len(distinct))) - 1

    def __call__(self, counts: Numbers) -> tuple[Numbers, Numbers]:
        """Ranks [E, R] for counts [R, E], and their sums of squares [R]. Ranks of examples not drawn mean nothing."""
        cumulative = np.cumsum(counts.T[self.order], axis=0)[self.last]
        multiplicity = np.diff(cumulative, axis=0, prepend=0)
        ranks = cumulative - (multiplicity + counts.shape[1]) / 2
        return ranks[self.group], np.einsum("er,er,er->r", multiplicity, ranks, ranks)


class _SharedRanks(_Ranks):
    """Ranks of the labels, which all runs share, computed once per chunk of counts."""

    def __init__(self, values: Numbers) -> None:
        super().__init__(values)
        self._counts: Numbers | None = None

    def __call__(self, counts: Numbers) -> tuple[Numbers, Numbers]:
        """Same as `_Ranks`, but callers must not modify the returned arrays."""
        if self._counts is not counts:
            self._counts, self._ranks = counts, super().__call__(counts)
        return self._ranks


@lru_cache(maxsize=8)
def _ranks_of(labels: bytes) -> _SharedRanks:
    return _SharedRanks(np.frombuffer(labels))


METRIC = Metric("spearman", scored_by(stats.spearmanr), _resample)
