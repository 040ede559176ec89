"""Kinds of tasks: classify, regress, generate or choose. Does not import torch.

A kind is one object in one file. It defines the loss, what a model computes for a row, and how to turn that into a
prediction. A task names its kind (`Task.kind`); the trainer and the evaluation know only that object.
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
    """The loss and the predictions of a kind of task. Shapes: E examples, O outputs, T tokens, V vocabulary entries."""

    name: ClassVar[str]
    title: ClassVar[str] = "Other tasks"  # heading of tables; kinds with the same title share a table
    decodes: ClassVar[bool] = False  # outputs are texts found by search; the best epoch has the lowest loss
    problem_type: ClassVar[str | None] = None  # `problem_type` of a classification head in `transformers`
    merge_examples: ClassVar[int] = 256  # number of examples to compare before and after merging
    start_examples: ClassVar[int] = 64  # number of examples to compare before and after attaching a method

    @abstractmethod
    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """The summed loss in nats, a scalar, from logits [E, O] or [E, T, V] and their labels."""

    def rows(
        self, task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, limit: int
    ) -> list[Encoded] | None:
        """The rows to evaluate, at most `limit` tokens each; None to encode them as for training."""
        return None

    def outputs(self, predictor: Any, rows: Sequence[Encoded], variants: Sequence[Any]) -> list[torch.Tensor]:
        """A model's outputs for rows, by variant, in fp32 on the CPU; `predictor` is a `predict.Predictor`."""
        values: list[torch.Tensor] = predictor.logits(rows, variants)
        return values

    @abstractmethod
    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """Predictions from outputs."""

    def read(self, text: str, where: str, task: Task, example: Example) -> Any:
        """Parse the prediction in a line of a file. Raises a UsageError that names `where`."""
        return text
