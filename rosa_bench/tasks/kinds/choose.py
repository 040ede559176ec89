"""Multiple choice: the choice whose tokens are likeliest after the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rosa_bench.core.task import Encoded, Example, Prediction, Task
from rosa_bench.system import progress
from rosa_bench.tasks.kinds.classify import Classify
from rosa_bench.tasks.kinds.generate import Generate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class Choose(Generate):
    """Chooses by log-likelihood. Trained like generation, on the right answer."""

    name = "choice"
    title = "Multiple choice"
    decodes = False

    def rows(
        self, task: Any, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, limit: int
    ) -> list[Encoded]:
        """The choices of all examples, in order.

        Unlike training rows, they may be as long as the model allows, since truncation would make a choice likelier.
        """
        shown = progress.each(examples, f"tokenizing {task.name}", len(examples))
        return [row for example in shown for row in task.candidates(example, tokenizer, limit)]

    def outputs(self, predictor: Any, rows: Sequence[Encoded], variants: Sequence[Any]) -> list[torch.Tensor]:
        """The log-likelihood [rows] of each choice, in nats."""
        values: list[torch.Tensor] = predictor.likelihoods(rows, variants)
        return values

    def predictions(self, task: Task, examples: Sequence[Example], values: torch.Tensor) -> list[Prediction]:
        """The likeliest choice of each example, the first one on a tie, from the log-likelihoods of all choices."""
        predictions, remaining = [], values.tolist()
        for example in examples:
            choices = example.texts[1:]
            scores, remaining = tuple(remaining[: len(choices)]), remaining[len(choices) :]
            best = scores.index(max(scores))
            predictions.append(
                Prediction(example.id, best, example.label, logits=scores, lengths=tuple(map(len, choices)))
            )
        return predictions

    read = Classify.read


KIND = Choose()
