"""Collects losses on the device and checks several at once, because reading a loss makes the host wait."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rosa_bench.system import distributed


class NotFiniteError(Exception):
    """The first NaN or infinite loss of a window: its value, optimizer step, and row indices in all processes."""

    def __init__(self, loss: float, step: int, rows: Sequence[int]) -> None:
        super().__init__(f"the loss is {loss} at step {step}")
        self.loss, self.step, self.rows = loss, step, list(rows)


class LossWindow:
    """Up to `size` losses of micro-batches in order, each with its optimizer step and row indices.

    With several processes, all must call `add` and `check` equally often.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: torch.Tensor | None = None  # [size]
        self._batches: list[tuple[int, Sequence[int]]] = []

    def add(self, loss: torch.Tensor, step: int, rows: Sequence[int]) -> None:
        """Add a loss, a scalar on any device. Checks the window when it is full."""
        if self._values is None:
            self._values = torch.zeros(self.size, dtype=loss.dtype, device=loss.device)
        self._values[len(self._batches)].copy_(loss.detach())
        self._batches.append((step, rows))
        if len(self._batches) == self.size:
            self.check()

    def check(self) -> None:
        """Read all losses at once and clear the window. Raises NotFiniteError for the first that is not finite."""
        if self._values is None or not self._batches:
            return
        values, batches = self._values[: len(self._batches)].tolist(), self._batches
        self._batches = []
        broken = next((i for i, value in enumerate(values) if not math.isfinite(value)), len(values))
        if not distributed.any_of(broken < len(values)):
            return
        first = min(distributed.joined([broken]))
        step, rows = batches[first]
        raise NotFiniteError(values[first], step, distributed.joined(list(rows) if broken == first else []))
