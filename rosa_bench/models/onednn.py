"""Linear maps through oneDNN while a model only computes forward, without a GPU.

torch multiplies fp32 matrices by MKL, which keeps to AVX2 on processors that are not Intel's: half of what one with
AVX-512 can do, and oneDNN does. The sums are the same in another order, still in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, linear
from transformers.activations import NewGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from rosa_bench.models.sites import weight_IO

FEWEST = 8  # rows below which the usual way is faster


@cache
def available() -> bool:
    """Whether this torch has the operator, and it does what is wanted."""
    x, weight, bias = torch.ones(9, 2), torch.tensor([[1.0, 2.0], [3.0, -4.0]]), torch.tensor([0.5, -0.5])
    try:
        found = _product(x, weight, bias, False)
        return torch.allclose(found, linear(x, weight, bias)) and torch.allclose(
            _product(x, weight.T, bias, True), gelu(linear(x, weight.T, bias), approximate="tanh"), atol=1e-6
        )
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def _product(x: torch.Tensor, weight_OI: torch.Tensor, bias: torch.Tensor | None, gelu_after: bool) -> torch.Tensor:
    name, form = ("gelu", "tanh") if gelu_after else ("none", "")
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias, name, [], form)
    return out


def _usual(x: torch.Tensor) -> bool:
    """Whether x [..., I] is better left to torch: few rows, or products that are not in fp32."""
    return x.numel() < FEWEST * x.shape[-1] or torch.is_autocast_enabled("cpu")


def _linear(layer: Any, gelu_after: bool, x: torch.Tensor) -> torch.Tensor:
    """A linear map, and the activation behind it if wanted, on a view of the weight: nothing is copied or stale."""
    if _usual(x):
        y: torch.Tensor = type(layer).forward(layer, x)
        return y
    return _product(x, weight_IO(layer).T, layer.bias, gelu_after)


def _activation(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What is left to do where the map before it has applied the activation."""
    y: torch.Tensor = type(layer).forward(layer, x) if _usual(x) else x
    return y


@contextmanager
def forward_only(model: nn.Module) -> Iterator[None]:
    """Without gradients: every fp32 linear map on the CPU by oneDNN, GPT-2's activation together with its map.

    The activation is the same function (`gelu_new` is the tanh form of GELU) in one pass instead of eight.
    """
    changed: list[nn.Module] = []

    def replace(module: nn.Module, forward: Any) -> None:
        module.forward = forward
        changed.append(module)

    try:
        if available():
            modules = list(model.modules())
            fused = [m for m in modules if type(m) is GPT2MLP and _plain(m.c_fc) and type(m.act) is NewGELUActivation]
            for block in fused:
                replace(block.c_fc, partial(_linear, block.c_fc, True))
                replace(block.act, partial(_activation, block.act))
            for module in modules:
                if _plain(module) and "forward" not in module.__dict__:
                    replace(module, partial(_linear, module, False))
        yield
    finally:
        for module in changed:
            del module.forward


def _plain(module: Any) -> bool:
    """A linear map of fp32 on the CPU that nobody has changed."""
    if type(module) not in (nn.Linear, Conv1D):
        return False
    weight: torch.Tensor = module.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32
