"""Access to a backbone's layers and norms in any family, and insertion of adapters by published designs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rosa_bench.errors import UsageError
from rosa_bench.modules.bottleneck import Adapted, Adapter, Serial
from rosa_bench.modules.layer_families import Opt, PostNorm, family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NewAdapter = Callable[[], Adapter]
FINAL_NORMS = ("ln_f", "norm", "final_layer_norm")  # names of the norm after the last layer


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a backbone's layers.

    Raises UsageError if there is none, if there are several of the same length (XLM's attentions and norms), or if
    encoder and decoder have one each.
    """
    if model.config.is_encoder_decoder:
        raise UsageError(f"{type(model).__name__} has separate encoder and decoder layers, which is not supported")
    count = getattr(model.config, "num_hidden_layers", None)
    for holder in model.base_model.modules():
        lists = [child for child in holder.children() if isinstance(child, nn.ModuleList) and len(child) == count]
        if len(lists) == 1:
            return lists[0]
        if lists:
            break
    raise UsageError(f"{type(model).__name__} has no list of layers")


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm after the last layer. Raises UsageError if the backbone has none, as in BERT and RoBERTa."""
    layers = layers_of(model)
    for holder in model.base_model.modules():
        if any(child is layers for child in holder.children()):
            for name in FINAL_NORMS:
                norm: nn.Module | None = getattr(holder, name, None)
                if norm is not None:
                    return norm
    raise UsageError(f"{type(model).__name__} has no norm after its last layer")


def norms_of(model: PreTrainedModel) -> list[nn.Module]:
    """Every LayerNorm or RMSNorm of a backbone."""
    return [module for module in model.base_model.modules() if type(module).__name__.endswith(("LayerNorm", "RMSNorm"))]


class AfterLayer(Adapted):
    """Applies the adapter after a whole layer, including residual and norm: y + adapter(y)."""

    def __getattr__(self, name: str) -> Any:
        """Forward attributes that the backbone reads from its layers, such as their attention type."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The adapted output; in a tuple or list, only the first element (the hidden states) is adapted."""
        out = self.base(*args, **kwargs)
        several = isinstance(out, (tuple, list))
        y = out[0] if several else out
        adapted: torch.Tensor = y + self.adapter(y)
        return (adapted, *out[1:]) if several else adapted


class AroundNorm(Adapted):
    """Applies the adapter to a residual sum s before its norm: norm(s + adapter(norm(s)))."""

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base(s + self.adapter(self.base(s)))
        return out


class Normed(nn.Module):
    """An adapter preceded by its own LayerNorm."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.norm, self.adapter = nn.LayerNorm(adapter.down.in_features), adapter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The adapter's output without the residual."""
        out: torch.Tensor = self.adapter(self.norm(x))
        return out


def place_houlsby(model: PreTrainedModel, index: int, new_adapter: NewAdapter) -> None:
    """Insert adapters after attention and feed-forward, before the residual is added (Houlsby et al., figure 2)."""
    layer: Any = layers_of(model)[index]
    family = family_of(model)
    attention, feed_forward = new_adapter(), new_adapter()
    family.adapt_attention(layer, attention)
    if family is PostNorm:
        layer.output.dropout = Serial(layer.output.dropout, feed_forward)
    elif family is Opt:
        layer.fc2 = Serial(layer.fc2, feed_forward)
    else:
        layer.mlp = Serial(layer.mlp, feed_forward)


def place_pfeiffer(model: PreTrainedModel, index: int, new_adapter: NewAdapter) -> None:
    """Insert an adapter after the feed-forward half and its residual.

    It reads the normalized sum and adds to the sum before that norm. Pre-norm layers have no norm there; the adapter
    then reads and adds to the sum itself.
    """
    layers = layers_of(model)
    layer: Any = layers[index]
    if family_of(model) is PostNorm:
        layer.output.LayerNorm = AroundNorm(layer.output.LayerNorm, new_adapter())
    else:
        layers[index] = AfterLayer(layer, new_adapter())


def place_normed(model: PreTrainedModel, index: int, new_adapter: NewAdapter) -> None:
    """Insert an adapter with its own LayerNorm after the whole layer (Lin et al., section 3)."""
    layers = layers_of(model)
    layers[index] = AfterLayer(layers[index], Normed(new_adapter()))


PLACES = {"houlsby": place_houlsby, "pfeiffer": place_pfeiffer, "lora_l": place_normed}
