"""oneDNN linear layers on the CPU: forward for decoding, forward and backward for training.

torch multiplies fp32 matrices with MKL, which uses only AVX2 on AMD processors. oneDNN uses AVX-512 there, with twice
the throughput on cores with 512-bit units (Zen 5) and no gain on those that work in two halves (Zen 4). It is called
through a private torch operator. Without the operator, and when training on other processors, torch's own products are
used. The sums differ only in their order and stay in fp32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, linear
from transformers.activations import NewGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from rosa_bench.models.roles import weight_IO

FEWEST = 8  # with fewer rows, torch's own path is faster
ZEN_5 = 26  # AMD's CPU family number


@cache
def available() -> bool:
    """Whether this torch build has the operator and it computes the expected result."""
    x, weight, bias = torch.ones(9, 2), torch.tensor([[1.0, 2.0], [3.0, -4.0]]), torch.tensor([0.5, -0.5])
    try:
        product = _product(x, weight, bias, False)
        return torch.allclose(product, linear(x, weight, bias)) and torch.allclose(
            _product(x, weight.T, bias, True), gelu(linear(x, weight.T, bias), approximate="tanh"), atol=1e-6
        )
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def _product(x: torch.Tensor, weight_OI: torch.Tensor, bias: torch.Tensor | None, gelu_after: bool) -> torch.Tensor:
    name, form = ("gelu", "tanh") if gelu_after else ("none", "")
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias, name, [], form)
    return out


def _usual(x: torch.Tensor) -> bool:
    """Whether to leave x [..., I] to torch because it has few rows or autocast is on."""
    return x.numel() < FEWEST * x.shape[-1] or torch.is_autocast_enabled("cpu")


def _linear_gelu(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer with GELU, without gradients."""
    if _usual(x):
        y: torch.Tensor = type(layer).forward(layer, x)
        return y
    return _product(x, weight_IO(layer).T, layer.bias, True)


def _activation(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The activation, unless the preceding linear layer has already applied it."""
    y: torch.Tensor = type(layer).forward(layer, x) if _usual(x) else x
    return y


class _Product(torch.autograd.Function):
    """y [N, O] = x [N, I] W' + b with W [O, I]; saves x only if the weight trains."""

    @staticmethod
    def forward(ctx: Any, x_NI: torch.Tensor, weight_OI: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x_NI if ctx.needs_input_grad[1] else None, weight_OI)
        return _product(x_NI, weight_OI, bias, False)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_NI, weight_OI = ctx.saved_tensors
        (dy_NO,) = gradients
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(dy_NO, weight_OI.T, None, False) if of_x else None,
            _product(dy_NO.T, x_NI.T, None, False) if of_weight else None,
            dy_NO.sum(0) if of_bias else None,
        )


def _linear(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer. Uses a view of the weight, so nothing is copied or goes stale."""
    if _usual(x):
        y: torch.Tensor = type(layer).forward(layer, x)
        return y
    weight_OI, bias = weight_IO(layer).T, layer.bias
    if not torch.is_grad_enabled():
        return _product(x, weight_OI, bias, False)
    out: torch.Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight_OI, bias)
    return out.view(*x.shape[:-1], -1)  # reshaped here, since a custom Function should not return a view


@cache
def profits() -> bool:
    """Whether oneDNN is available and MKL would use only half of this processor's vector width."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return wide_amd(cpuinfo) and torch.backends.cpu.get_cpu_capability() == "AVX512" and available()


def wide_amd(cpuinfo: str) -> bool:
    """Whether `/proc/cpuinfo` describes an AMD processor of Zen 5 or later, which has 512-bit units."""
    family = re.search(r"^cpu family\s*: (\d+)$", cpuinfo, re.MULTILINE)
    return "AuthenticAMD" in cpuinfo and family is not None and int(family[1]) >= ZEN_5


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Run fp32 linear layers on the CPU through oneDNN, forward and backward, where oneDNN is faster."""
    layers = [module for module in model.modules() if profits() and _plain(module)]
    with _replaced({layer: partial(_linear, layer) for layer in layers}):
        yield


@contextmanager
def forward_only(model: nn.Module) -> Iterator[None]:
    """Run fp32 linear layers on the CPU through oneDNN without gradients, with GPT-2's activation fused.

    The activation is the same function (`gelu_new` is the tanh approximation of GELU) in one pass instead of eight.
    """
    modules = list(model.modules()) if available() else []
    forwards: dict[nn.Module, Any] = {layer: partial(_linear, layer) for layer in modules if _plain(layer)}
    for block in modules:
        if type(block) is GPT2MLP and _plain(block.c_fc) and type(block.act) is NewGELUActivation:
            forwards[block.c_fc] = partial(_linear_gelu, block.c_fc)
            forwards[block.act] = partial(_activation, block.act)
    with _replaced(forwards):
        yield


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Temporarily replace the `forward` of modules. Leaving a nested context restores the outer one's replacements."""
    before = {module: module.__dict__.get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, outer in before.items():
            module.__dict__.pop("forward", None)
            if outer is not None:
                module.forward = outer


def _plain(module: Any) -> bool:
    """Whether a module is an unmodified fp32 linear layer on the CPU."""
    if type(module) not in (nn.Linear, Conv1D):
        return False
    weight: torch.Tensor = module.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32
