"""Integer streams that replace floats between reversible layers, and the tensor operations of half a layer.

A value is a multiple of 2**-30 in 64 bits. A factor n/d splits it without loss: n h = d q + r keeps q in the stream and
stores r, below d, on a tape. Conversions use fp32: scaling a float by a power of two is exact, and so is rounding the
result, so fp64 has no advantage for floats of 24 bits or fewer and streams up to 2**53.

`forward_half` and `backward_half` contain all operations on a stream between two functions of a layer. On CUDA they are
compiled to a few kernels each, if the compiled functions give the same bits. F and G are never compiled, since they
must round identically with and without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from types import FunctionType
from typing import Any

import torch

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


def shrink(stream: torch.Tensor, factor: Fraction) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Multiply a stream by n/d, rounding down. Returns it with the packed remainders (None if nothing is lost)."""
    if factor == 1:
        return stream, None
    scaled = stream if factor.numerator == 1 else stream * factor.numerator
    quotient = torch.div(scaled, factor.denominator, rounding_mode="floor")
    remainders = (scaled - quotient * factor.denominator).to(torch.uint8)
    return quotient, _pack(remainders) if factor.denominator <= NIBBLE else remainders.flatten()


def grow(stream: torch.Tensor, factor: Fraction, remainders: torch.Tensor | None) -> torch.Tensor:
    """Invert `shrink`."""
    if remainders is None:
        return stream
    if factor.denominator <= NIBBLE:
        remainders = _unpack(remainders, stream.numel())
    scaled = stream * factor.denominator + remainders.view(stream.shape)
    return scaled if factor.numerator == 1 else torch.div(scaled, factor.numerator, rounding_mode="floor")


def _pack(remainders: torch.Tensor) -> torch.Tensor:
    """Pack remainders below 16, two to a byte."""
    flat = remainders.flatten()
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    return flat[0::2] | (flat[1::2] << 4)


def _unpack(packed: torch.Tensor, count: int) -> torch.Tensor:
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten()[:count]


Forward = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]
Backward = tuple[torch.Tensor, torch.Tensor]


def forward_half(stream: torch.Tensor, added: torch.Tensor, factor: Fraction, dtype: torch.dtype) -> Forward:
    """Compute factor * stream + added. Returns the stream, the remainders, and the floats that the next function reads.

    Integers cannot represent NaN; the floats are NaN where `added` is not finite.
    """
    quotient, remainders = shrink(stream, factor)
    total = quotient + to_stream(added)
    return total, remainders, from_stream(total, dtype).add_(added, alpha=0)


def backward_half(
    stream: torch.Tensor, added: torch.Tensor, remainders: torch.Tensor | None, factor: Fraction, dtype: torch.dtype
) -> Backward:
    """Invert `forward_half`. Returns the stream and its floats."""
    before = grow(stream - to_stream(added), factor, remainders)
    return before, from_stream(before, dtype)


class Halves:
    """`forward_half` and `backward_half` for one factor and dtype. `mode` is `eager` or `compiled`."""

    def __init__(self, factor: Fraction, dtype: torch.dtype, compiled: bool = False) -> None:
        self.factor, self.dtype = factor, dtype
        self.mode = "compiled" if compiled else "eager"
        self._fused = _compiled(factor, dtype) if compiled else None

    def forward(self, stream: torch.Tensor, added: torch.Tensor) -> Forward:
        """The stream after adding `added`, the remainders, and the floats that the next function reads."""
        if self._fused is None or stream.numel() % 2:
            return forward_half(stream, added, self.factor, self.dtype)
        total, remainders, floats = self._fused[0](stream.reshape(-1), added.reshape(-1))
        return total.view(stream.shape), remainders, floats.view(stream.shape)

    def backward(self, stream: torch.Tensor, added: torch.Tensor, remainders: torch.Tensor | None) -> Backward:
        """The stream before adding `added`, and its floats."""
        if self._fused is None or stream.numel() % 2:
            return backward_half(stream, added, remainders, self.factor, self.dtype)
        before, floats = self._fused[1](stream.reshape(-1), added.reshape(-1), remainders)
        return before.view(stream.shape), floats.view(stream.shape)


def _compiled(factor: Fraction, dtype: torch.dtype) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compile both halves for flat tensors of any even number of values.

    n and d are constants in the compiled code, since 64-bit division by a variable is slow on a GPU. Each factor
    therefore has its own code objects, and sizes are marked as dynamic one by one; `dynamic=True` would make n and d
    variables.
    """
    n, d = factor.numerator, factor.denominator

    def forward(stream: torch.Tensor, added: torch.Tensor) -> Forward:
        remainders = None
        if n != d:
            scaled = stream * n
            quotient = torch.div(scaled, d, rounding_mode="floor")
            remainder = (scaled - quotient * d).to(torch.uint8)
            stream, remainders = quotient, remainder
            if d <= NIBBLE:
                pairs = remainder.view(-1, 2)
                remainders = pairs[:, 0] | (pairs[:, 1] << 4)
        total = stream + to_stream(added)
        # The compiler simplifies 0 * added to 0.
        return total, remainders, torch.where(torch.isfinite(added), from_stream(total, dtype), torch.nan)

    def backward(stream: torch.Tensor, added: torch.Tensor, remainders: torch.Tensor | None) -> Backward:
        before = stream - to_stream(added)
        if remainders is not None:
            if d <= NIBBLE:
                remainders = torch.stack([remainders & 15, remainders >> 4], dim=-1).view(-1)
            before = torch.div(before * d + remainders, n, rounding_mode="floor")
        return before, from_stream(before, dtype)

    return _alone(forward, f"_{n}_{d}"), _alone(backward, f"_{n}_{d}")


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
