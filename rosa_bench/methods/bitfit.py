"""BitFit: only biases train (Ben Zaken, Goldberg and Ravfogel, arXiv 2106.10199, section 3).

Every bias of the backbone trains, those of LayerNorms included, and the task head with it; every matrix stays. With all
biases RoBERTa-base has 0.1 million trained parameters beside its head, as LoRA's table 2 prints.

Where the authors' code differs: it freezes by names in a list, which for BERT is the same set of biases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rosa_bench.core.method import Method
from rosa_bench.core.schema import configured
from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel


@configured
class BitFit(Method):
    """Trains the biases and the task head; the model's structure is untouched."""

    train_head: bool = True

    lr: ClassVar[Mapping[str, float]] = {"mini": 5e-3, "full_size": 1e-3}
    look: ClassVar[int | None] = 5

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Set `requires_grad` on biases and head. Raises UsageError for a backbone without biases."""
        from rosa_bench.models.sites import freeze_backbone

        if not any(name.endswith(".bias") for name, _ in model.base_model.named_parameters()):
            raise UsageError(f"method=bitfit trains biases, and {type(model).__name__} has none")
        freeze_backbone(model, self.train_head, bias="all")
