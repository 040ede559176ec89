"""The training loss as a mean over everything an optimiser step sees.

A model's own loss is the mean of one micro-batch; with several of them, or several processes, the mean of such means
weighs examples unequally, and `transformers` scales it wrongly for classifiers, which ignore `num_items_in_batch`.
"""

from __future__ import annotations

from typing import Any

import torch

from rosa_bench.core.kind import Kind


class StepLoss:
    """The sum of a micro-batch's losses over the number of items (examples, target tokens) of the whole step."""

    def __init__(self, kind: Kind, label_smoothing: float) -> None:
        self.kind, self.label_smoothing = kind, label_smoothing

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """logits [examples, outputs] or [examples, length, vocabulary] and their labels to a scalar, in nats.

        A regression's is the squared error; items are then the numbers in `labels`, [examples] or [examples, outputs].
        """
        return self.kind.loss(outputs.logits.float(), labels, self.label_smoothing) / num_items_in_batch
