"""Generation: a text per input, found by search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rosa_bench.core.kind import Kind
from rosa_bench.core.task import IGNORED, Example, Prediction, Task

if TYPE_CHECKING:
    import torch


class Generate(Kind):
    """Predicts texts. Trained and selected by the next-token loss."""

    name = "generate"
    title = "Generation"
    decodes = True
    merge_examples = 8
    start_examples = 16

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Next-token cross entropy of logits [E, T, V] and token ids [E, T]; IGNORED tokens have no loss."""
        from torch.nn import functional as F

        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing)

    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """Not supported: `rosa_bench.evaluation.predict.decode` finds texts by search."""
        raise TypeError("texts are found by search")


KIND = Generate()
