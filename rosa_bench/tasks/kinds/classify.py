"""Classification: the class of the largest logit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rosa_bench.core.fields import MOST
from rosa_bench.core.kind import Kind
from rosa_bench.core.task import Example, Prediction, Task
from rosa_bench.errors import UsageError
from rosa_bench.system.strict_json import short

if TYPE_CHECKING:
    import torch

WHOLE = re.compile(r"[+-]?[0-9]{1,9}")  # Python would also accept 1_0 and digits of other scripts


class Classify(Kind):
    """Predicts the class with the largest logit, the first one on a tie."""

    name = "classify"
    title = "Classification and regression"
    problem_type = "single_label_classification"

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Cross entropy of logits [E, O] and classes [E]."""
        from torch.nn import functional as F

        return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)

    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """Classes from logits [E, O]; predictions include the logits."""
        return [
            Prediction(example.id, best, example.label, logits=tuple(row))
            for example, best, row in zip(examples, values.argmax(-1).tolist(), values.tolist(), strict=True)
        ]

    def read(self, text: str, where: str, task: Task, example: Example) -> int:
        """A class or choice, counted from 0."""
        if not WHOLE.fullmatch(text.strip()):
            raise UsageError(f"{where}: {short(text)} is not a number; write the class as an integer, counted from 0")
        value, count = int(text), task.classes or len(example.texts) - 1 or MOST
        if not 0 <= value < count:
            raise UsageError(f"{where}: {value} is not one of 0..{count - 1}")
        return value


KIND = Classify()
