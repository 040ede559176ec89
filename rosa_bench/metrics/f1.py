"""F1 of class 1, in points, as in GLUE's MRPC and QQP."""

from __future__ import annotations

import numpy as np
from sklearn import metrics as sklearn_metrics

from rosa_bench.metrics.metric import Metric
from rosa_bench.metrics.scores import AbsentError
from rosa_bench.stats.bootstrap import Statistic, ratio, sums
from rosa_bench.stats.summary import Numbers


def _compute(predictions: Numbers, labels: Numbers) -> float:
    if not ((predictions == 1).any() or (labels == 1).any()):
        raise AbsentError("undefined: no prediction and no label is positive")
    return 100 * float(sklearn_metrics.f1_score(labels, predictions, zero_division=0))


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    predicted, true = predictions == 1, labels == 1
    rows = np.stack([predicted & true, predicted, true], axis=1)
    return sums(score, rows, lambda total: 100 * ratio(2 * total[:, 0], total[:, 1] + total[:, 2]))


METRIC = Metric("f1", _compute, _resample)
