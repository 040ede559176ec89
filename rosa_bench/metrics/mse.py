"""Mean squared error over rows and outputs."""

from __future__ import annotations

from sklearn import metrics as sklearn_metrics

from rosa_bench.metrics.metric import Metric
from rosa_bench.stats.bootstrap import Statistic, mean
from rosa_bench.stats.summary import Numbers


def _compute(predictions: Numbers, labels: Numbers) -> float:
    return float(sklearn_metrics.mean_squared_error(labels, predictions))


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    return mean(score, ((predictions.reshape(labels.shape) - labels) ** 2).reshape(len(labels), -1).mean(1))


METRIC = Metric("mse", _compute, _resample, higher_is_better=False)
