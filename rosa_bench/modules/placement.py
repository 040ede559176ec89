"""A backbone as a stack of layers, whatever its family, and bottleneck adapters put into them by published designs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rosa_bench.errors import UsageError
from rosa_bench.modules.bottleneck import Adapted, Adapter, Serial
from rosa_bench.modules.layer_families import Opt, PostNorm, family_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FINAL_NORMS = ("ln_f", "norm", "final_layer_norm")  # what families call the norm behind their last layer


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a backbone's layers. Raises UsageError if it has none, or one each in encoder and decoder."""
    if model.config.is_encoder_decoder:
        raise UsageError(f"{type(model).__name__} has layers in encoder and decoder, not one list of them")
    count = getattr(model.config, "num_hidden_layers", None)
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UsageError(f"{type(model).__name__} has no list of layers")


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm behind the last layer. Raises UsageError if there is none, as in BERT and RoBERTa."""
    layers = layers_of(model)
    for holder in model.base_model.modules():
        if any(child is layers for child in holder.children()):
            found = [getattr(holder, name) for name in FINAL_NORMS if hasattr(holder, name)]
            if found:
                norm: nn.Module = found[0]
                return norm
    raise UsageError(f"{type(model).__name__} has no norm behind its last layer")


def norms_of(model: PreTrainedModel) -> list[nn.Module]:
    """Every LayerNorm or RMSNorm of a backbone."""
    return [module for module in model.base_model.modules() if type(module).__name__.endswith(("LayerNorm", "RMSNorm"))]


class AfterLayer(Adapted):
    """After a whole layer, residual and norm included: y + adapter(y)."""

    def __getattr__(self, name: str) -> Any:
        """What a backbone asks of its layers, such as their kind of attention."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's output, adapted; of a tuple its first element, the hidden states."""
        out = self.base(*args, **kwargs)
        y = out[0] if isinstance(out, tuple) else out
        adapted: torch.Tensor = y + self.adapter(y)
        return (adapted, *out[1:]) if isinstance(out, tuple) else adapted


class AroundNorm(Adapted):
    """Inside a residual sum s that a norm follows: norm(s + adapter(norm(s)))."""

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        """The norm's output."""
        out: torch.Tensor = self.base(s + self.adapter(self.base(s)))
        return out


class Normed(nn.Module):
    """An adapter behind a LayerNorm of its own."""

    def __init__(self, width: int, adapter: Adapter) -> None:
        super().__init__()
        self.norm, self.adapter = nn.LayerNorm(width), adapter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is to be added."""
        out: torch.Tensor = self.adapter(self.norm(x))
        return out


def place_houlsby(model: PreTrainedModel, index: int, attention: Adapter, feed_forward: Adapter) -> None:
    """After the output maps of attention and feed-forward, before the residual is added (Houlsby et al., figure 2)."""
    layer: Any = layers_of(model)[index]
    family = family_of(model)
    family.adapt_attention(layer, attention)
    if family is PostNorm:
        layer.output.dropout = Serial(layer.output.dropout, feed_forward)
    elif family is Opt:
        layer.fc2 = Serial(layer.fc2, feed_forward)
    else:
        layer.mlp = Serial(layer.mlp, feed_forward)


def place_pfeiffer(model: PreTrainedModel, index: int, adapter: Adapter) -> None:
    """After the feed-forward half with its residual: it reads the normed sum and adds to the sum before that norm.

    Pre-norm layers have no norm there; the adapter then reads and adds to the sum itself.
    """
    layers = layers_of(model)
    layer: Any = layers[index]
    if family_of(model) is PostNorm:
        layer.output.LayerNorm = AroundNorm(layer.output.LayerNorm, adapter)
    else:
        layers[index] = AfterLayer(layer, adapter)


def place_normed(model: PreTrainedModel, index: int, width: int, adapter: Adapter) -> None:
    """After the whole layer and a LayerNorm of the adapter's own (Lin et al., section 3)."""
    layers = layers_of(model)
    layers[index] = AfterLayer(layers[index], Normed(width, adapter))
