"""Full fine-tuning: trains every parameter of the backbone and the task head. The papers' upper baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rosa_bench.core.method import Group, Method
from rosa_bench.core.schema import configured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel


@configured
class Full(Method):
    """Trains every parameter without changing the model's structure."""

    lr: ClassVar[Mapping[str, float]] = {"mini": 3e-4, "full_size": 2e-5}
    look: ClassVar[int | None] = 0
    group: ClassVar[Group] = "baseline"
    reference: ClassVar[bool] = True

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Set `requires_grad` on every parameter."""
        model.requires_grad_(True)
