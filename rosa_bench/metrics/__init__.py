"""Metrics in the scales the papers print. `rosa_bench/metrics/modules/` holds them as `evaluate.Metric` modules."""
