"""What a model does for a task: classify, regress, generate or choose. Light to import.

A kind is one object in one file: its loss, what is computed of a row, and how that becomes a prediction. A task names
its kind (`Task.kind`); the shared loop and the evaluation ask the kind and know no names.
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
    decodes: ClassVar[bool] = False  # outputs are texts, found by search; the best epoch is the one of least loss
    problem_type: ClassVar[str | None] = None  # of a classification head in `transformers`
    merge_examples: ClassVar[int] = 256  # compared before and after merging
    start_examples: ClassVar[int] = 64  # compared before and after a method is attached

    @abstractmethod
    def loss(self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """The sum of losses in nats: logits [E, O] or [E, T, V] and their labels to a scalar."""

    def rows(
        self, task: Task, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, limit: int
    ) -> list[Encoded] | None:
        """The rows that are evaluated, at most `limit` tokens each; None: those of training."""
        return None

    def outputs(self, predictor: Any, rows: Sequence[Encoded], variants: Sequence[Any]) -> list[torch.Tensor]:
        """What a model gives for rows, by each variant, in fp32 on the CPU; `predictor` is the evaluation's."""
        values: list[torch.Tensor] = predictor.logits(rows, variants)
        return values

    @abstractmethod
    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """Outputs to predictions."""

    def read(self, text: str, where: str, task: Task, example: Example) -> Any:
        """The prediction that a line of a file holds. Raises UsageError naming `where`."""
        return text
