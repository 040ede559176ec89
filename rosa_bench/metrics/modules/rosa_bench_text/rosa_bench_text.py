"""Metrics of generated text as an `evaluate` module: `evaluate.load(<this folder>, NAME)`. Offline.

NAME is family-convention: e2e-official (the default), e2e-lora, triples-lora, triples-webnlg2017, triples-dart.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate


class RosaBenchText(evaluate.Metric):
    """`compute(predictions=[text], references=[[text, ...]])`; lists of references may differ in length.

    A metric that is not available (METEOR without Java) is missing from the result; `absent` says why.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(__doc__),
            citation="See rosa_bench/metrics/conventions.py for the reproduced programs.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        from rosa_bench.metrics.conventions import score

        name = "e2e-official" if self.config_name in (None, "default") else str(self.config_name)
        family, _, convention = name.partition("-")
        scores = score(family, convention, predictions, references)  # type: ignore[arg-type]
        return {**scores, **({"absent": scores.absent} if scores.absent else {})}
