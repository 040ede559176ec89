"""Bottleneck adapters (Houlsby et al., arXiv 1902.00751) and wrappers that combine them with a module."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN


class Adapter(nn.Module):
    """Maps x [..., width] to up(dropout(act(down(x)))). Weights are drawn from N(0, 0.02^2); biases are zero."""

    def __init__(self, width: int, bottleneck: int, activation: str, dropout: float, draw: torch.Generator) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.activation = ACT2FN[activation]
        self.dropout = nn.Dropout(dropout)
        for linear in (self.down, self.up):
            linear.weight.data.normal_(0.0, 0.02, generator=draw)
            linear.bias.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The adapter's output without the residual."""
        out: torch.Tensor = self.up(self.dropout(self.activation(self.down(x))))
        return out


class Adapted(nn.Module):
    """A module with an adapter; subclasses combine their outputs."""

    def __init__(self, base: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.base, self.adapter = base, adapter


class Serial(Adapted):
    """Applies the adapter after a module: y + adapter(y), where y is the module's output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base(x)
        out: torch.Tensor = y + self.adapter(y)
        return out


class Parallel(Adapted):
    """Applies the adapter in parallel to a module: base(x) + adapter(x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base(x) + self.adapter(x)
        return out


class ParallelResidual(Adapted):
    """Applies the adapter in parallel to the feed-forward block of a post-norm layer.

    `base` is the block's last module, which adds the block's input `residual`. Adapting the residual makes it compute
    LayerNorm(f(residual) + adapter(residual) + residual).
    """

    def forward(self, inner: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base(inner, residual + self.adapter(residual))
        return y
