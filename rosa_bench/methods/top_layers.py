"""Train only the last layers of the backbone (Li and Liang, arXiv 2101.00190, section 6.1).

LoRA's table 3 reports it as FT-Top2, with 25.19 million parameters of GPT-2 medium: the last two layers without the
output embedding. The rounded count does not show whether the final norm (2,048 parameters) trained too; here it does
if `final_norm` is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rosa_bench.core.method import Group, Method
from rosa_bench.core.schema import Count, configured
from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel


@configured
class TopLayers(Method):
    """Trains the last `layers` layers and the task head without changing the model's structure."""

    layers: Count = 2  # number of layers to train, counted from the last
    final_norm: bool = False  # also train the norm after the last layer
    train_head: bool = True  # whether to train the task head

    lr: ClassVar[Mapping[str, float]] = {"mini": 3e-4, "full_size": 5e-5}
    look: ClassVar[int | None] = 8
    group: ClassVar[Group] = "baseline"

    @classmethod
    def size_label(cls, options: Mapping[str, Any]) -> str | None:
        return f"k={options['layers']}"

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Set `requires_grad` on the last layers and the head.

        Raises:
            UsageError: if the backbone has fewer layers, or `final_norm` is set and the backbone has no final norm.
        """
        from rosa_bench.models.roles import freeze_backbone
        from rosa_bench.modules.placement import final_norm, layers_of

        layers = layers_of(model)
        if self.layers > len(layers):
            raise UsageError(f"method.layers={self.layers} is more than the backbone's {len(layers)} layers")
        freeze_backbone(model, self.train_head)
        for layer in layers[-self.layers :]:
            layer.requires_grad_(True)
        if self.final_norm:
            final_norm(model).requires_grad_(True)
