"""The attention and feed-forward halves of a transformer layer, and how adapters are inserted into each."""

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
    """Runs and adapts the two halves of a layer for one family of backbones."""

    is_decoder: ClassVar[bool]
    path: ClassVar[tuple[str, str]]  # from the base model to its list of layers

    @staticmethod
    @abstractmethod
    def attention(layer: Any, h: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        """The attention half including residual and LayerNorm, [batch, length, width]."""

    @staticmethod
    @abstractmethod
    def feed_forward(layer: Any, y: torch.Tensor) -> torch.Tensor:
        """The feed-forward half including residual and LayerNorm, [batch, length, width]."""

    @staticmethod
    @abstractmethod
    def adapt_attention(layer: Any, adapter: Adapter) -> None:
        """Insert an adapter after the attention's output projection."""

    @staticmethod
    @abstractmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """Insert an adapter parallel to the two maps of the feed-forward half. Returns the layer to use from now on."""


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
        """Insert the adapter before the residual is added."""
        layer.attention.output.dropout = Serial(layer.attention.output.dropout, adapter)

    @staticmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """Apply the adapter to the half's input, before the LayerNorm."""
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
        """Insert the adapter before the residual is added."""
        layer.attn.resid_dropout = Serial(layer.attn.resid_dropout, adapter)

    @staticmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """Apply the adapter to the normalized input, which the maps also read."""
        layer.mlp = Parallel(layer.mlp, adapter)
        adapted: nn.Module = layer
        return adapted


class Spelled(nn.Module):
    """A layer whose `forward` implements both halves inline, without a module for either; runs them one by one."""

    def __init__(self, layer: Any, adapter: Adapter) -> None:
        super().__init__()
        self.layer, self.adapter = layer, adapter

    def forward(self, h: torch.Tensor, **call: Any) -> torch.Tensor:
        return Opt.feed_forward(self, Opt.attention(self, h, call))


class Opt(Halves):
    """OPT. All sizes but one have pre-norm layers. Both halves expect layers wrapped in `Spelled`."""

    is_decoder = True
    path = ("decoder", "layers")

    @staticmethod
    def attention(layer: Any, h: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        """dropout(attention(LayerNorm(h))) + h if pre-norm, else LayerNorm(dropout(attention(h)) + h)."""
        layer, before = layer.layer, _norm_before(layer.layer)
        arguments = {name: value for name, value in call.items() if name != "use_cache"}
        x = layer.self_attn(layer.self_attn_layer_norm(h) if before else h, **arguments)[0]
        out: torch.Tensor = h + F.dropout(x, layer.dropout, layer.training)
        return out if before else layer.self_attn_layer_norm(out)

    @staticmethod
    def feed_forward(layer: Any, y: torch.Tensor) -> torch.Tensor:
        """dropout(ffn(x)) + adapter(x) + y with x = LayerNorm(y) if pre-norm, else LayerNorm of the sum with x = y."""
        adapter, layer, before = layer.adapter, layer.layer, _norm_before(layer.layer)
        x = layer.final_layer_norm(y) if before else y
        inner = layer.activation_fn(layer.fc1(x))
        inner = F.dropout(inner, getattr(layer, "activation_dropout", 0.0), layer.training)
        out: torch.Tensor = y + F.dropout(layer.fc2(inner), layer.dropout, layer.training) + adapter(x)
        return out if before else layer.final_layer_norm(out)

    @staticmethod
    def adapt_attention(layer: Any, adapter: Adapter) -> None:
        """Insert the adapter after the output projection, before dropout and residual."""
        layer.self_attn.out_proj = Serial(layer.self_attn.out_proj, adapter)

    @staticmethod
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> nn.Module:
        """Apply the adapter to the input of the maps."""
        return Spelled(layer, adapter)


class BartEncoder(Opt):
    """BART's encoder. The decoder is not supported: a stack passes no gradient to the encoder output that it reads."""

    is_decoder = False
    path = ("encoder", "layers")


def _norm_before(layer: Any) -> bool:
    return bool(getattr(layer, "do_layer_norm_before", False))


FAMILIES: dict[str, type[Halves]] = {"bert": PostNorm, "roberta": PostNorm, "electra": PostNorm, "gpt2": PreNorm}
FAMILIES |= {"opt": Opt, "bart": BartEncoder}


def family_of(model: PreTrainedModel) -> type[Halves]:
    """The family of a backbone. Raises UsageError, listing the supported families, if it is unknown."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise UsageError(
            f"this method supports layers of {', '.join(FAMILIES)}, not of {kind}; "
            "use method=lora, or method=adapter method.variant=lora_l"
        )
    return FAMILIES[kind]


def caller(layer: nn.Module) -> Callable[..., dict[str, Any]]:
    """Return a function that converts a model's extra layer arguments to keyword arguments of the layer.

    Drops the cross-attention arguments, which these backbones do not use. With gradients enabled it also drops the
    key-value cache, which a recomputed layer would fill twice.
    """
    signature = inspect.signature(layer.forward)

    def bind(*args: Any, **kwargs: Any) -> dict[str, Any]:
        arguments = dict(signature.bind(None, *args, **kwargs).arguments)
        arguments |= arguments.pop("kwargs", {})
        arguments.pop(next(iter(signature.parameters)))
        arguments = {name: value for name, value in arguments.items() if not name.startswith("encoder_")}
        if torch.is_grad_enabled():
            arguments |= {name: None for name in ("cache", "past_key_values") if name in arguments}
            if "use_cache" in arguments:
                arguments["use_cache"] = False
        return arguments

    return bind
