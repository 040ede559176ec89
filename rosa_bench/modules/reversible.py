"""Reversible layers that reconstruct their inputs from their outputs bit for bit, for any factors.

A layer maps two streams h1, h2 [batch, length, width] to

    y1 = lambda h1 + F(h2)        y2 = beta h2 + G(y1)

and back by h2 = (y2 - G(y1)) / beta, h1 = (y1 - F(h2)) / lambda. In floating point the division amplifies rounding
errors tenfold per layer at the published factors, which destroys the input after about ten layers. Here the streams
are integers (multiples of 2**-30 in 64 bits) and a factor is a fraction n/d: the integer division n h = d q + r keeps q
in the stream and stores r, at most four bits per value for 1/10, on a tape. Both directions are exact if F and G give
the same bits for the same input, which they do on one machine with a fixed number of threads. Each layer stores only r
and the state of the random generators; the backward pass recomputes all activations of F and G.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import nn

from rosa_bench.modules.bottleneck import Adapter
from rosa_bench.modules.layer_families import Halves
from rosa_bench.modules.streams import from_stream, halves, to_stream


class ReversibleLayer(nn.Module, ABC):
    """F and G of one layer. Subclasses hold their modules; `call` holds the layer's arguments other than its input."""

    @abstractmethod
    def F(self, h: torch.Tensor, call: Any) -> torch.Tensor:
        """The function added to the first stream."""

    @abstractmethod
    def G(self, y: torch.Tensor, call: Any) -> torch.Tensor:
        """The function added to the second stream."""


class AdapterLayer(ReversibleLayer):
    """The whole layer and a separate adapter: MEFT1 (the layer is F) and MEFT2 (the layer is G)."""

    def __init__(self, layer: nn.Module, adapter: Adapter, layer_first: bool) -> None:
        super().__init__()
        self.layer, self.adapter, self.layer_first = layer, adapter, layer_first

    def F(self, h: torch.Tensor, call: Any) -> torch.Tensor:
        """The layer in MEFT1, the adapter in MEFT2."""
        out: torch.Tensor = self.layer(h, **call) if self.layer_first else self.adapter(h)
        return out

    def G(self, y: torch.Tensor, call: Any) -> torch.Tensor:
        """The adapter in MEFT1, the layer in MEFT2."""
        out: torch.Tensor = self.adapter(y) if self.layer_first else self.layer(y, **call)
        return out


class HalvesLayer(ReversibleLayer):
    """The attention half and the feed-forward half of a layer (MEFT3)."""

    def __init__(self, layer: nn.Module, family: type[Halves]) -> None:
        super().__init__()
        self.layer, self.family = layer, family

    def F(self, h: torch.Tensor, call: Any) -> torch.Tensor:
        return self.family.attention(self.layer, h, call)

    def G(self, y: torch.Tensor, call: Any) -> torch.Tensor:
        return self.family.feed_forward(self.layer, y)


@dataclass
class Random:
    """States of the random generators that dropout uses."""

    cpu: torch.Tensor
    device: torch.Tensor | None

    @classmethod
    def now(cls, like: torch.Tensor) -> Random:
        """The current states."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(like.device) if like.is_cuda else None)

    @contextlib.contextmanager
    def replayed(self, like: torch.Tensor) -> Iterator[None]:
        """Restore these states within the context; afterwards the global states are unchanged."""
        with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
            torch.set_rng_state(self.cpu)
            if self.device is not None:
                torch.cuda.set_rng_state(self.device, like.device)
            yield


class ReversibleStack(nn.Module):
    """A sequence of layers. The first `reversible` layers store no activations; the others run with plain autograd.

    `switch` swaps the streams after each layer; `weights` combine them at the end.
    """

    def __init__(
        self,
        layers: Sequence[ReversibleLayer],
        factors: tuple[Fraction, Fraction],
        switch: bool,
        reversible: int,
        weights: tuple[float, float],
        bind: Callable[..., Any],
    ) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)  # of `ReversibleLayer`
        self.factors, self.switch, self.reversible, self.weights = factors, switch, reversible, weights
        self.bind = bind
        self.rebuilt: torch.Tensor | None = None  # set by the backward pass if `keep_rebuilt`
        self.keep_rebuilt = False

    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Map hidden [batch, length, width] to the combined streams, of the same shape."""
        count = self.reversible if torch.is_grad_enabled() else 0
        call = self.bind(*args, **kwargs)
        first = second = hidden
        if count:
            trained = [p for p in self.layers[:count].parameters() if p.requires_grad]
            first, second = _Reversible.apply(self, count, call, hidden, *trained)
        for layer in self.layers[count:]:
            first, second = self.step(layer, first, second, call)
        return self.weights[0] * first + self.weights[1] * second

    def step(
        self, layer: ReversibleLayer, first: torch.Tensor, second: torch.Tensor, call: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run one layer with plain autograd."""
        y1 = float(self.factors[0]) * first + layer.F(second, call)
        y2 = float(self.factors[1]) * second + layer.G(y1, call)
        return (y2, y1) if self.switch else (y1, y2)


class _Reversible(torch.autograd.Function):
    """The reversible layers of a stack as one autograd function of the hidden states and the trained parameters."""

    @staticmethod
    def forward(
        ctx: Any, stack: ReversibleStack, count: int, call: Any, hidden: torch.Tensor, *trained: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kind, dtype = hidden.device.type, hidden.dtype
        ctx.autocast = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
        first = second = to_stream(hidden)
        floats = from_stream(second, dtype)  # the second stream, which F reads
        shrink_first, shrink_second = (halves(factor, dtype, hidden.device) for factor in stack.factors)
        tape: list[tuple[Random, Random]] = []
        rests: list[torch.Tensor | None] = []
        with torch.autocast(kind, cache_enabled=False, **ctx.autocast):
            for layer in stack.layers[:count]:
                before_F = Random.now(hidden)
                y1, rest_1, floats_1 = shrink_first.forward(first, layer.F(floats, call))
                before_G = Random.now(hidden)
                y2, rest_2, floats_2 = shrink_second.forward(second, layer.G(floats_1, call))
                tape.append((before_F, before_G))
                rests += [rest_1, rest_2]
                first, second = (y2, y1) if stack.switch else (y1, y2)
                floats = floats_1 if stack.switch else floats_2
        ctx.stack, ctx.call, ctx.tape, ctx.dtype = stack, call, tape, dtype
        ctx.lost = [rest is not None for rest in rests]
        ctx.trained = trained
        ctx.save_for_backward(first, second, *(rest for rest in rests if rest is not None))
        return (floats_2, floats_1) if stack.switch else (floats_1, floats_2)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        stack: ReversibleStack = ctx.stack
        lambda_, beta = stack.factors
        first, second, *stored = ctx.saved_tensors
        rests = [stored.pop(0) if lost else None for lost in ctx.lost]
        d_first, d_second = cotangents
        gradients: dict[int, torch.Tensor] = {}
        recompute = partial(_recompute, ctx, gradients)
        undo_first, undo_second = (halves(factor, ctx.dtype, first.device) for factor in stack.factors)
        floats = from_stream(second if stack.switch else first, ctx.dtype)  # y1, which G read
        for i in reversed(range(len(ctx.tape))):
            layer = stack.layers[i]
            before_F, before_G = ctx.tape[i]
            y1, y2, d1, d2 = (second, first, d_second, d_first) if stack.switch else (first, second, d_first, d_second)
            g, more = recompute(layer, layer.G, floats, d2, before_G, True)
            d1 = d1 if more is None else d1 + more
            second, floats_second = undo_second.backward(y2, g, rests[2 * i + 1])
            f, more = recompute(layer, layer.F, floats_second, d1, before_F, i > 0 or ctx.needs_input_grad[3])
            d_second = float(beta) * d2 if more is None else float(beta) * d2 + more
            first, floats_first = undo_first.backward(y1, f, rests[2 * i])
            floats = floats_second if stack.switch else floats_first  # y1 of the previous layer
            d_first = float(lambda_) * d1
        if stack.keep_rebuilt:
            stack.rebuilt = floats_first
        d_hidden = d_first + d_second if ctx.needs_input_grad[3] else None
        return None, None, None, d_hidden, *(gradients.get(id(parameter)) for parameter in ctx.trained)


def _recompute(
    ctx: Any,
    gradients: dict[int, torch.Tensor],
    layer: ReversibleLayer,
    function: Callable[[torch.Tensor, Any], torch.Tensor],
    floats: torch.Tensor,
    d: torch.Tensor,
    before: Random,
    needs_input: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Recompute F or G with gradients. Returns its output and, if `needs_input`, the gradient of its input `floats`.

    Adds the gradients of parameters to `gradients`.
    """
    x = floats.detach().requires_grad_(needs_input)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    with before.replayed(x), torch.enable_grad(), torch.autocast(x.device.type, **ctx.autocast):
        value = function(x, ctx.call)
    if not value.requires_grad:
        return value, None
    sources = [*trained, *([x] if needs_input else [])]
    computed = torch.autograd.grad(value, sources, d.to(value.dtype), allow_unused=True)
    for parameter, gradient in zip(trained, computed, strict=False):
        if gradient is not None:
            previous = gradients.get(id(parameter))
            gradients[id(parameter)] = gradient if previous is None else previous + gradient
    return value.detach(), computed[-1] if needs_input else None
