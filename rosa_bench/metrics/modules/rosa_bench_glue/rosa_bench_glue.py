"""GLUE's official metrics as an `evaluate` module: `evaluate.load(<this folder>, "cola")`. In points, offline."""

from __future__ import annotations

import datasets
import evaluate

METRICS = {"cola": ["matthews"], "stsb": ["pearson", "spearman"], "mrpc": ["accuracy", "f1"], "qqp": ["accuracy", "f1"]}
ACCURACY = ("sst2", "mnli", "qnli", "rte", "wnli")


class RosaBenchGlue(evaluate.Metric):
    """`compute(predictions=..., references=...)` for the GLUE task that the configuration name selects."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in (*METRICS, *ACCURACY):
            raise KeyError(f"no GLUE task {self.config_name!r}; choose from {', '.join(sorted((*METRICS, *ACCURACY)))}")
        kind = datasets.Value("float32" if self.config_name == "stsb" else "int64")
        return evaluate.MetricInfo(
            description=str(__doc__),
            citation="Wang et al., GLUE, arXiv 1804.07461",
            features=datasets.Features({"predictions": kind, "references": kind}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        from rosa_bench.metrics import find
        from rosa_bench.metrics.metric import score_all

        names = METRICS.get(self.config_name, ["accuracy"])
        return dict(score_all([find(name) for name in names], predictions, references))
