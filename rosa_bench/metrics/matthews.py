"""Matthews correlation in points (-100 to 100), for any number of classes."""

from __future__ import annotations

import numpy as np
from sklearn import metrics as sklearn_metrics

from rosa_bench.metrics.metric import Metric, require_spread
from rosa_bench.stats.bootstrap import Statistic, ratio, sums
from rosa_bench.stats.summary import Numbers


def _compute(predictions: Numbers, labels: Numbers) -> float:
    require_spread(predictions, "prediction")
    require_spread(labels, "label")
    return 100 * float(sklearn_metrics.matthews_corrcoef(labels, predictions))


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    """As in scikit-learn, for any number of classes: from the counts of each class predicted, true, and both."""
    classes = np.unique([predictions, labels])
    predicted, true = (values[:, None] == classes for values in (predictions, labels))
    rows, k = np.concatenate([(predictions == labels)[:, None], predicted, true], axis=1), len(classes)

    def combine(total: Numbers) -> Numbers:
        n, predicted, true = float(len(rows)), total[:, 1 : 1 + k], total[:, 1 + k :]
        both = total[:, 0] * n - (predicted * true).sum(1)
        spread = (n**2 - (predicted**2).sum(1)) * (n**2 - (true**2).sum(1))
        return 100 * ratio(both, np.sqrt(spread))

    return sums(score, rows, combine)


METRIC = Metric("matthews", _compute, _resample)
