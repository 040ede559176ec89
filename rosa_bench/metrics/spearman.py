"""Spearman rank correlation in points (-100 to 100)."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
from scipy import stats

from rosa_bench.metrics.metric import Metric, differ
from rosa_bench.metrics.pearson import correlation
from rosa_bench.stats.bootstrap import Statistic
from rosa_bench.stats.summary import Numbers


def _compute(predictions: Numbers, labels: Numbers) -> float:
    differ(predictions, "prediction")
    differ(labels, "label")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are nearly constant
        value = float(stats.spearmanr(predictions, labels)[0])
    return 100 * value


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    """Ranks depend on the whole resample: from running totals of the counts in the order of the values."""
    ours, theirs = _Ranks(predictions), _ranks_of(labels.tobytes())

    def resampled(counts: Numbers) -> Numbers:
        (x, first), (y, second) = ours(counts), theirs(counts)
        x *= counts.T
        return correlation(np.einsum("er,er->r", x, y), first, second)

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


METRIC = Metric("spearman", _compute, _resample)
