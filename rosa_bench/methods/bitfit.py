"""BitFit: train only biases (Ben Zaken, Goldberg and Ravfogel, arXiv 2106.10199, section 3).

Trains every bias of the backbone, including those of LayerNorms, and the task head. All weight matrices are frozen. In
RoBERTa-base this trains 0.1 million parameters, excluding the head, as reported in LoRA's table 2.

Difference from the authors' code: it selects biases from a list of names, which for BERT gives the same set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rosa_bench.core.method import Group, Method
from rosa_bench.core.schema import configured
from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel


@configured
class BitFit(Method):
    """Trains the biases and the task head without changing the model's structure."""

    train_head: bool = True  # whether to train the task head

    lr: ClassVar[Mapping[str, float]] = {"mini": 5e-3, "full_size": 1e-3}
    look: ClassVar[int | None] = 5
    group: ClassVar[Group] = "baseline"

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Set `requires_grad` on biases and head. Raises UsageError if the backbone has no biases."""
        from rosa_bench.models.roles import freeze_backbone

        if not any(name.endswith(".bias") for name, _ in model.base_model.named_parameters()):
            raise UsageError(f"method=bitfit trains biases, and {type(model).__name__} has none")
        freeze_backbone(model, self.train_head, bias="all")
