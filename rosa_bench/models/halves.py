"""A transformer layer in two halves, attention and feed-forward, and where adapters go into each."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from rosa_bench.errors import UsageError
from rosa_bench.models.adapter import Adapter, Parallel, ParallelResidual, Serial

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
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> None:
        """Put an adapter beside the two maps of the feed-forward half."""


class PostNorm(Halves):
    """BERT and RoBERTa."""

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
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> None:
        """On the half's input, before the LayerNorm."""
        layer.output = ParallelResidual(layer.output, adapter)


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
    def adapt_feed_forward(layer: Any, adapter: Adapter) -> None:
        """On the normed input, as the maps have it."""
        layer.mlp = Parallel(layer.mlp, adapter)


FAMILIES: dict[str, type[Halves]] = {"bert": PostNorm, "roberta": PostNorm, "gpt2": PreNorm}


def family_of(model: PreTrainedModel) -> type[Halves]:
    """The family of a backbone. Raises UsageError that names those that are known."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise UsageError(f"layers of {kind} are not known in halves; known are: {', '.join(FAMILIES)}")
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
            given |= {name: None for name in ("past_key_values",) if name in given}
            given |= {name: False for name in ("use_cache",) if name in given}
        return given

    return bind
