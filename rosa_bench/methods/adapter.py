"""Bottleneck adapters: small trained networks inside the layers of a frozen backbone, x + up(act(down(x))).

    variant   position in each layer                                                activation  parameters per layer
    houlsby   after attention and after feed-forward, before their residuals        gelu        2 (2 d b + b + d)
    pfeiffer  after feed-forward only, between its residual and its norm            relu        2 d b + b + d
    lora_l    after the layer, following its own LayerNorm                          relu        2 d b + b + 3 d

Houlsby et al. (arXiv 1902.00751), Pfeiffer et al. (2005.00247), Lin et al. (2004.03829). LoRA's tables call them
Adapter-H, -P and -L. `skip_layers` omits adapters from the lowest layers, which gives Adapter-D (Rücklé et al.,
2010.11918, with a fixed number of layers).

Differences from the authors' code: Houlsby draws both maps from a normal distribution with standard deviation 0.01,
truncated at two standard deviations, so training starts near the backbone. Here `up` starts at zero by default, so
training starts at the backbone. Houlsby also trains every LayerNorm (`norms: true`); LoRA's parameter counts for
Adapter-H exclude them. LoRA's Adapter-H uses `activation: silu`, and its Adapter-H and -P draw both maps from
N(0, 0.02^2), which is `init: normal` (microsoft/LoRA,
`examples/NLU/src/transformers/models/roberta/modeling_roberta.py`, `_init_weights`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.method import Group, Method
from rosa_bench.core.schema import Added, Count, Share, configured
from rosa_bench.errors import UsageError
from rosa_bench.system.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel

    from rosa_bench.modules.bottleneck import Adapter as Bottleneck

ACTIVATIONS = {"houlsby": "gelu", "pfeiffer": "relu", "lora_l": "relu"}


@configured
class Adapter(Method):
    """Trains one or two adapters per layer and the task head."""

    variant: Literal["houlsby", "pfeiffer", "lora_l"] = "houlsby"  # where adapters go: LoRA's Adapter-H, -P or -L
    bottleneck: Count = 16  # width of the adapters
    activation: Literal["relu", "gelu", "gelu_new", "silu", "tanh"] | None = None  # null: the variant's published one
    # initialization of `up`; `down` is always N(0, 0.02^2)
    init: Annotated[Literal["zero", "normal"], Added("zero")] = "zero"
    dropout: Share = 0.0  # dropout probability after the activation
    skip_layers: Annotated[int, Field(ge=0)] = 0  # number of lowest layers without an adapter
    norms: bool = False  # also train the backbone's LayerNorms
    train_head: bool = True  # whether to train the task head

    lr: ClassVar[Mapping[str, float]] = {"mini": 1e-3, "full_size": 3e-4}
    look: ClassVar[int | None] = 6
    group: ClassVar[Group] = "baseline"
    mergeable: ClassVar[bool] = False

    @classmethod
    def size_label(cls, options: Mapping[str, Any]) -> str | None:
        return f"b={options['bottleneck']}"

    @property
    def name(self) -> str:
        """The method's name with its variant; the papers report each variant in its own row."""
        return f"adapter_{self.variant}"

    @property
    def exact_at_start(self) -> bool:
        """Whether the logits after `attach` equal the backbone's, as they do unless `init: normal`."""
        return self.init == "zero"

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone and insert adapters into its layers.

        Raises:
            UsageError: if `skip_layers` leaves no layer, or the variant does not support the backbone's family.
        """
        from rosa_bench.models.roles import freeze_backbone
        from rosa_bench.modules.placement import PLACES, layers_of, norms_of

        count = len(layers_of(model))
        if self.skip_layers >= count:
            raise UsageError(f"method.skip_layers={self.skip_layers} leaves none of the backbone's {count} layers")
        freeze_backbone(model, self.train_head)
        if self.norms:
            for norm in norms_of(model):
                norm.requires_grad_(True)
        place = PLACES[self.variant]
        width = int(model.config.hidden_size)
        for index in range(self.skip_layers, count):
            place(model, index, partial(self._new_adapter, width, generator(seed, index)))

    def _new_adapter(self, width: int, draw: torch.Generator) -> Bottleneck:
        """Create an adapter initialized by `init`."""
        from rosa_bench.modules.bottleneck import Adapter as Bottleneck

        adapter = Bottleneck(width, self.bottleneck, self.activation or ACTIVATIONS[self.variant], self.dropout, draw)
        if self.init == "zero":
            adapter.up.weight.data.zero_()
        return adapter
