"""Coefficient of determination (R²) in points: the explained share of the labels' variance, summed over outputs."""

from __future__ import annotations

import numpy as np
from sklearn import metrics as sklearn_metrics

from rosa_bench.metrics.metric import Metric
from rosa_bench.metrics.scores import AbsentError
from rosa_bench.stats.bootstrap import Statistic, ratio, sums
from rosa_bench.stats.summary import Numbers


def _compute(predictions: Numbers, labels: Numbers) -> float:
    if len(labels) < 2 or not np.ptp(labels, axis=0).any():
        raise AbsentError("undefined: every row has the same label")
    return 100 * float(sklearn_metrics.r2_score(labels, predictions, multioutput="variance_weighted"))


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    true = labels.reshape(len(labels), -1)
    residual, true = ((predictions.reshape(true.shape) - true) ** 2).sum(1), true - true.mean(0)
    rows = np.concatenate([residual[:, None], (true**2).sum(1)[:, None], true], axis=1)

    def combine(total: Numbers) -> Numbers:
        spread = total[:, 1] - (total[:, 2:] ** 2).sum(1) / len(rows)
        return 100 * (1 - ratio(total[:, 0], np.where(spread > 1e-12 * total[:, 1], spread, 0.0)))

    return sums(score, rows, combine)


METRIC = Metric("r2", _compute, _resample)
