"""Regression: a score, or several outputs, per example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rosa_bench.core.kind import Kind
from rosa_bench.core.task import Example, Prediction, Task
from rosa_bench.errors import UsageError
from rosa_bench.system.strict_json import is_number, short

if TYPE_CHECKING:
    import torch

DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


class Regress(Kind):
    """Predicts the outputs themselves."""

    name = "regress"
    title = "Classification and regression"
    problem_type = "regression"

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Squared error of outputs and labels, [E] or [E, O]."""
        from torch.nn import functional as F

        return F.mse_loss(logits.view_as(labels), labels.float(), reduction="sum")

    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """Numbers from outputs [E, O], or lists if the task has several outputs."""
        rows = values.tolist()
        if task.num_labels > 1:
            return [Prediction(e.id, row, e.label) for e, row in zip(examples, rows, strict=True)]
        return [Prediction(e.id, row[0], e.label, logits=tuple(row)) for e, row in zip(examples, rows, strict=True)]

    def read(self, text: str, where: str, task: Task, example: Example) -> float:
        if task.num_labels > 1:
            raise UsageError(f"task={task.name} has {task.num_labels} outputs a row, but a line of a file has one")
        score = float(text) if DECIMAL.fullmatch(text.strip()) else None
        if not is_number(score):
            raise UsageError(f"{where}: {short(text)} is not a number")
        return score


KIND = Regress()
