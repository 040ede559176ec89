"""Accuracy of choices by log-likelihood per character, in points: `acc_norm` of lm-evaluation-harness."""

from __future__ import annotations

from rosa_bench.metrics import accuracy
from rosa_bench.metrics.metric import Metric

METRIC = Metric("accuracy_norm", accuracy.METRIC.compute, accuracy.METRIC.resample, test="signs")
