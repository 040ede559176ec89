"""Kinds of tasks: classify, regress, generate or choose. Does not import torch.

A kind is one object in one file: its loss, what a model computes for a row, and how that becomes a prediction. A task
names its kind (`Task.kind`); trainer and evaluation use the kind's object and mention no kind by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from rosa_bench.core.task import Encoded, Example, Prediction, Task


class Kind(ABC):
    """The loss and the predictions of a kind of task. E examples, O outputs, T tokens, V words of the vocabulary."""

    name: ClassVar[str]
    title: ClassVar[str] = "Other tasks"  # of tables; tasks whose kinds share it share a table
    decodes: ClassVar[bool] = False  # outputs are texts found by search; the best epoch has the lowest loss
    problem_type: ClassVar[str | None] = None  # of a classification head in `transformers`
    merge_examples: ClassVar[int] = 256  # compared before and after merging
    start_examples: ClassVar[int] = 64  # compared before and after a method is attached

    @abstractmethod
    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """The summed loss in nats, a scalar, from logits [E, O] or [E, T, V] and their labels."""

    def rows(
        self, task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, limit: int
    ) -> list[Encoded] | None:
        """The rows to evaluate, at most `limit` tokens each; None for the rows of training."""
        return None

    def outputs(self, predictor: Any, rows: Sequence[Encoded], variants: Sequence[Any]) -> list[torch.Tensor]:
        """A model's outputs for rows, by variant, in fp32 on the CPU; `predictor` is that of the evaluation."""
        values: list[torch.Tensor] = predictor.logits(rows, variants)
        return values

    @abstractmethod
    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """Predictions from outputs."""

    def read(self, text: str, where: str, task: Task, example: Example) -> Any:
        """Parse the prediction in a line of a file. Raises UsageError that names `where`."""
        return text
