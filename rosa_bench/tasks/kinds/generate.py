"""Generation: a text for each input, found by search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rosa_bench.core.kind import Kind
from rosa_bench.core.task import IGNORED, Example, Prediction, Task

if TYPE_CHECKING:
    import torch


class Generate(Kind):
    """Texts; trained and selected by the loss of the next token."""

    name = "generate"
    decodes = True
    merge_examples = 8
    start_examples = 16

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Cross entropy of the next token: logits [E, T, V] and token ids [E, T], of which IGNORED carry no loss."""
        from torch.nn import functional as F

        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing)

    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """Texts are not a function of one forward pass (`rosa_bench.evaluation.predict.decode`)."""
        raise TypeError("texts are found by search")


KIND = Generate()
