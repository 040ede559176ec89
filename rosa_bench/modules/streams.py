"""Integer streams that replace floats between reversible layers, and the tensor operations of half a layer.

A value is a multiple of 2**-30 in 64 bits. A factor n/d splits it without loss: n h = d q + r keeps q in the stream and
stores r, below d, on a tape. Conversions use fp32: scaling a float by a power of two is exact, and so is rounding the
result, so fp64 has no advantage for mantissas of up to 24 bits and streams up to 2**53.

`Halves` holds all operations on a stream between two functions of a layer. On CUDA they are compiled to a few kernels
each, if the compiled functions give the same bits. F and G are never compiled, since they must round identically with
and without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import nn

SCALE = 2.0**30  # stream units per 1.0
STEP = 2.0**-30  # value of one stream unit
NIBBLE = 16  # smaller remainders are packed, two to a byte


def to_stream(values: torch.Tensor) -> torch.Tensor:
    """Convert floats to the nearest integers of a stream, ties to even."""
    wide = values if values.dtype == torch.float64 else values.float()
    return (wide * SCALE).round_().to(torch.int64)


def from_stream(stream: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Convert integers of a stream to floats."""
    wide = stream.to(torch.float64 if dtype == torch.float64 else torch.float32)
    return wide.mul_(STEP).to(dtype)


def _nan_where_not_finite(floats: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    if torch.compiler.is_compiling():  # the compiler would simplify 0 * added to 0
        return torch.where(torch.isfinite(added), floats, torch.nan)
    return floats.add_(added, alpha=0)  # takes a quarter of the time


Forward = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]
Backward = tuple[torch.Tensor, torch.Tensor]


class Halves:
    """The operations on a stream before and after a function, for one factor n/d and dtype of the floats.

    `mode` is `eager` or `compiled`.
    """

    def __init__(self, factor: Fraction, dtype: torch.dtype, compiled: bool = False) -> None:
        self.factor, self.dtype = factor, dtype
        self.mode = "compiled" if compiled else "eager"
        forward, backward = _flat_halves(factor.numerator, factor.denominator, dtype)
        suffix = f"_{factor.numerator}_{factor.denominator}"
        self._forward = _alone(forward, suffix) if compiled else forward
        self._backward = _alone(backward, suffix) if compiled else backward

    def forward(self, stream: torch.Tensor, added: torch.Tensor) -> Forward:
        """Compute factor * stream + added, rounding the product down.

        Returns the stream, the packed remainders of the product (None if nothing is lost), and the floats that the next
        function reads. Integers cannot represent NaN; the floats are NaN where `added` is not finite.
        """
        total, remainders, floats = self._forward(_even(stream), _even(added))
        return _like(stream, total), remainders, _like(stream, floats)

    def backward(self, stream: torch.Tensor, added: torch.Tensor, remainders: torch.Tensor | None) -> Backward:
        """Invert `forward`. Returns the stream before adding `added`, and its floats."""
        before, floats = self._backward(_even(stream), _even(added), remainders)
        return _like(stream, before), _like(stream, floats)


def _even(values: torch.Tensor) -> torch.Tensor:
    """The values [N], with a zero appended if their number is odd, since remainders are packed in pairs."""
    flat = values.reshape(-1)
    return nn.functional.pad(flat, (0, 1)) if len(flat) % 2 else flat


def _like(stream: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Invert `_even` for values of a stream."""
    return flat[: stream.numel()].view(stream.shape)


def _flat_halves(n: int, d: int, dtype: torch.dtype) -> tuple[Callable[..., Forward], Callable[..., Backward]]:
    """`Halves.forward` and `Halves.backward` for flat tensors of an even number of values.

    n and d are constants in the compiled code, since 64-bit division by a variable is slow on a GPU. Each factor
    therefore has its own code objects, and sizes are marked as dynamic one by one; `dynamic=True` would make n and d
    variables.
    """

    def forward(stream: torch.Tensor, added: torch.Tensor) -> Forward:
        remainders = None
        if n != d:
            scaled = stream * n if n != 1 else stream
            stream = torch.div(scaled, d, rounding_mode="floor")
            remainders = (scaled - stream * d).to(torch.uint8)
            if d <= NIBBLE:
                pairs = remainders.view(-1, 2)
                remainders = pairs[:, 0] | (pairs[:, 1] << 4)
        total = stream + to_stream(added)
        return total, remainders, _nan_where_not_finite(from_stream(total, dtype), added)

    def backward(stream: torch.Tensor, added: torch.Tensor, remainders: torch.Tensor | None) -> Backward:
        before = stream - to_stream(added)
        if remainders is not None:
            if d <= NIBBLE:
                remainders = torch.stack([remainders & 15, remainders >> 4], dim=-1).view(-1)
            before = before * d + remainders
            before = torch.div(before, n, rounding_mode="floor") if n != 1 else before
        return before, from_stream(before, dtype)

    return forward, backward


def _alone(function: Any, suffix: str) -> Callable[..., Any]:
    """Compile a function separately from others with the same code, for tensors of any size."""
    code = function.__code__.replace(co_name=function.__name__ + suffix)
    fused = torch.compile(FunctionType(code, globals(), closure=function.__closure__), fullgraph=True)

    def call(*tensors: torch.Tensor | None) -> Any:
        for tensor in tensors:
            if tensor is not None:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return fused(*tensors)

    return call


@cache
def halves(factor: Fraction, dtype: torch.dtype, device: torch.device) -> Halves:
    """The halves to use on a device: compiled on CUDA if they match the eager ones bit for bit, else eager."""
    eager = Halves(factor, dtype)
    if device.type != "cuda":
        return eager
    try:
        fused = Halves(factor, dtype, compiled=True)
        return fused if agree(fused, eager, device) else eager
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ImportError, OSError):  # no compiler, or it does not support this code
        return eager


def agree(first: Halves, second: Halves, device: torch.device) -> bool:
    """Whether two pairs of halves give the same bits for streams and floats of every size, and NaN for the same floats.

    Where a float is not finite, the stream's value is undefined and never read.
    """
    powers_of_two = [2**exponent + offset for exponent in (0, 3, 31, 44, 50) for offset in range(-3, 4)]
    multiples = [first.factor.denominator * k + offset for k in range(10) for offset in (-1, 0, 1)]
    values = torch.tensor([sign * value for value in powers_of_two + multiples for sign in (1, -1)], device=device)
    finite = torch.tensor([0.0, -0.0, 2.0**-31, 1.5 * 2.0**-30, 2.5 * 2.0**-30, 0.1, -3.7, 6e4], device=device)
    stream = values[:, None].expand(-1, len(finite)).contiguous()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        added = finite.to(dtype).expand(stream.shape).contiguous()
        outputs, reference = first.forward(stream, added), second.forward(stream, added)
        back, reference_back = (pair.backward(reference[0], added, reference[1]) for pair in (first, second))
        broken = added.clone()
        broken[::2, 1], broken[1::2, 3] = torch.nan, torch.inf
        nans = [pair.forward(stream, broken)[2].isnan() for pair in (first, second)]
        equal = all(map(_equal, (*outputs, *back), (*reference, *reference_back)))
        if not (equal and torch.equal(back[0], stream) and torch.equal(*nans) and bool(nans[0].any())):
            return False
    return True


def _equal(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    return first is second if first is None or second is None else torch.equal(first, second)
