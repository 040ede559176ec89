"""Accuracy: the share of correct predictions, in points."""

from __future__ import annotations

import numpy as np

from rosa_bench.metrics.metric import Metric
from rosa_bench.stats.bootstrap import Statistic, mean
from rosa_bench.stats.summary import Numbers


def _compute(predictions: Numbers, labels: Numbers) -> float:
    return 100 * float((predictions == labels).mean())


def _resample(score: float, predictions: Numbers, labels: Numbers) -> Statistic:
    correct = (predictions == labels).astype(np.int64)
    statistic = mean(score, correct, 100)
    return Statistic(score, statistic.examples, statistic.resampled, correct)


METRIC = Metric("accuracy", _compute, _resample, test="signs")
