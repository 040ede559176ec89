"""Training loss averaged over all items of an optimiser step.

A model's own loss is the mean of one micro-batch. Averaging these means over micro-batches or processes weights
examples unequally, and `transformers` scales the result wrongly for classifiers, which ignore `num_items_in_batch`.
"""

from __future__ import annotations

from typing import Any

import torch

from rosa_bench.core.kind import Kind


class StepLoss:
    """Sum of a micro-batch's losses divided by the number of items (examples or target tokens) in the whole step."""

    def __init__(self, kind: Kind, label_smoothing: float) -> None:
        self.kind, self.label_smoothing = kind, label_smoothing

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """Map logits [examples, outputs] or [examples, length, vocabulary] and labels to a scalar in nats.

        Regression uses the squared error; its items are the numbers in `labels`, [examples] or [examples, outputs].
        """
        return self.kind.loss(outputs.logits.float(), labels, self.label_smoothing) / num_items_in_batch
