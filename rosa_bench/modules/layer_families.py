"""A transformer layer in two halves, attention and feed-forward, and where adapters go into each."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from rosa_bench.errors import UsageError
from rosa_bench.modules.bottleneck import Adapter, Parallel, ParallelResidual, Serial

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Halves(ABC):
    """What has to be known of a family of backbones."""

    is_decoder: ClassVar[bool]
    path: ClassVar[tuple[str, str]]  # from the base model to the list of its layers

    @staticmethod
    @abstractmethod
    def attention(layer: Any, h: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        """The attention half with its residual and LayerNorm, [batch, length, width]."""

    @staticmethod
    @abstractmethod
    def feed_forward(layer: Any, y: torch.Tensor) -> torch.Tensor:
        """The feed-forward half with its residual and LayerNorm."""

    @staticmethod
    @abstractmethod
    def adapt_attention(layer: Any, adapter: Adapter) -> None:
        """Put an adapter behind the attention's output map."""

    @staticmethod
    @abstractmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """Put an adapter beside the two maps of the feed-forward half; returns the layer to use from then on."""


class PostNorm(Halves):
    """BERT, RoBERTa and ELECTRA."""

    is_decoder = False
    path = ("encoder", "layer")

    @staticmethod
    def attention(layer: Any, h: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        """LayerNorm(attention(h) + h)."""
        out: torch.Tensor = layer.attention(h, **call)[0]
        return out

    @staticmethod
    def feed_forward(layer: Any, y: torch.Tensor) -> torch.Tensor:
        """LayerNorm(ffn(y) + y)."""
        out: torch.Tensor = layer.feed_forward_chunk(y)
        return out

    @staticmethod
    def adapt_attention(layer: Any, adapter: Adapter) -> None:
        """Before the residual is added."""
        layer.attention.output.dropout = Serial(layer.attention.output.dropout, adapter)

    @staticmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """On the half's input, before the LayerNorm."""
        layer.output = ParallelResidual(layer.output, adapter)
        adapted: nn.Module = layer
        return adapted


class PreNorm(Halves):
    """GPT-2."""

    is_decoder = True
    path = ("", "h")

    @staticmethod
    def attention(layer: Any, h: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        """attention(LayerNorm(h)) + h."""
        out: torch.Tensor = layer.attn(layer.ln_1(h), **call)[0]
        return out + h

    @staticmethod
    def feed_forward(layer: Any, y: torch.Tensor) -> torch.Tensor:
        """ffn(LayerNorm(y)) + y."""
        out: torch.Tensor = layer.mlp(layer.ln_2(y))
        return out + y

    @staticmethod
    def adapt_attention(layer: Any, adapter: Adapter) -> None:
        """Before the residual is added."""
        layer.attn.resid_dropout = Serial(layer.attn.resid_dropout, adapter)

    @staticmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """On the normed input, as the maps have it."""
        layer.mlp = Parallel(layer.mlp, adapter)
        adapted: nn.Module = layer
        return adapted


class Spelled(nn.Module):
    """A layer whose halves are spelled out in its `forward`, with no module for either: it is run half by half."""

    def __init__(self, layer: Any, adapter: Adapter) -> None:
        super().__init__()
        self.layer, self.adapter = layer, adapter

    def forward(self, h: torch.Tensor, **call: Any) -> torch.Tensor:
        """The whole layer with its adapter."""
        return Opt.feed_forward(self, Opt.attention(self, h, call))


class Opt(Halves):
    """OPT, whose sizes have their norms before the halves, but for one; layers are `Spelled` by then."""

    is_decoder = True
    path = ("decoder", "layers")

    @staticmethod
    def attention(layer: Any, h: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        """dropout(attention(LayerNorm(h))) + h, or the norm of dropout(attention(h)) + h."""
        layer, before = layer.layer, _norm_before(layer.layer)
        kept = {name: value for name, value in call.items() if name != "use_cache"}
        x = layer.self_attn(layer.self_attn_layer_norm(h) if before else h, **kept)[0]
        out: torch.Tensor = h + F.dropout(x, layer.dropout, layer.training)
        return out if before else layer.self_attn_layer_norm(out)

    @staticmethod
    def feed_forward(layer: Any, y: torch.Tensor) -> torch.Tensor:
        """dropout(ffn(x)) + adapter(x) + y with x = LayerNorm(y), or x = y and the norm of the sum."""
        adapter, layer, before = layer.adapter, layer.layer, _norm_before(layer.layer)
        x = layer.final_layer_norm(y) if before else y
        inner = layer.activation_fn(layer.fc1(x))
        inner = F.dropout(inner, getattr(layer, "activation_dropout", 0.0), layer.training)
        out: torch.Tensor = y + F.dropout(layer.fc2(inner), layer.dropout, layer.training) + adapter(x)
        return out if before else layer.final_layer_norm(out)

    @staticmethod
    def adapt_attention(layer: Any, adapter: Adapter) -> None:
        """Behind the output map, before dropout and residual."""
        layer.self_attn.out_proj = Serial(layer.self_attn.out_proj, adapter)

    @staticmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """On the maps' input."""
        return Spelled(layer, adapter)


class BartEncoder(Opt):
    """BART's encoder. Its decoder's layers read the encoder's output too, whose gradient a stack does not pass on."""

    is_decoder = False
    path = ("encoder", "layers")


def _norm_before(layer: Any) -> bool:
    return bool(getattr(layer, "do_layer_norm_before", False))


FAMILIES: dict[str, type[Halves]] = {"bert": PostNorm, "roberta": PostNorm, "electra": PostNorm, "gpt2": PreNorm}
FAMILIES |= {"opt": Opt, "bart": BartEncoder}


def family_of(model: PreTrainedModel) -> type[Halves]:
    """The family of a backbone. Raises UsageError that names those that are known."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise UsageError(
            f"this method needs the attention and feed-forward halves of a layer, which are known for "
            f"{', '.join(FAMILIES)}, not for {kind}; use method=lora, or method=adapter method.variant=lora_l"
        )
    return FAMILIES[kind]


def caller(layer: nn.Module) -> Callable[..., dict[str, Any]]:
    """A function from what a model hands to a layer beside its input to keyword arguments of the layer.

    Arguments of cross-attention, which these backbones do not have, are dropped. While gradients are wanted the
    key-value cache is left out too: a layer that is run again would fill it twice.
    """
    signature = inspect.signature(layer.forward)

    def bind(*args: Any, **kwargs: Any) -> dict[str, Any]:
        given = dict(signature.bind(None, *args, **kwargs).arguments)
        given |= given.pop("kwargs", {})
        given.pop(next(iter(signature.parameters)))
        given = {name: value for name, value in given.items() if not name.startswith("encoder_")}
        if torch.is_grad_enabled():
            given |= {name: None for name in ("cache", "past_key_values") if name in given}
            given |= {name: False for name in ("use_cache",) if name in given}
        return given

    return bind
