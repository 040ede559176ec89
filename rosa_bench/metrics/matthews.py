"""Matthews correlation in points (-100 to 100), for any number of classes."""

from __future__ import annotations

import numpy as np
from sklearn import metrics as sklearn_metrics

from rosa_bench.metrics.metric import Metric, differ
from rosa_bench.stats.bootstrap import Statistic, ratio, sums
from rosa_bench.stats.summary import Numbers


def _compute(predictions: Numbers, labels: Numbers) -> float:
    differ(predictions, "prediction")
    differ(labels, "label")
    return 100 * float(sklearn_metrics.matthews_corrcoef(labels, predictions))


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
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


METRIC = Metric("matthews", _compute, _resample)
