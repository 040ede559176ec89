"""Corpus BLEU as the E2E challenge computes it, as an `evaluate` module: `evaluate.load(<this folder>)`. Offline."""

from __future__ import annotations

import datasets
import evaluate


class RosaBenchBleu(evaluate.Metric):
    """`compute(predictions=[text], references=[[text, ...]])`; lists of references may differ in length."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(__doc__),
            citation="Papineni et al., BLEU, ACL 2002",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        from rosa_bench.metrics.text import bleu

        return {"bleu": bleu(predictions, references)}
