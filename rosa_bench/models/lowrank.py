"""A linear map with trained low-rank terms on some of its outputs: y = x W + s (x A) B. Shapes: I in, O out, R rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from rosa_bench.models.sites import Role, Site, features, weight_IO

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LowRank(nn.Module):
    """Wraps a linear map `base` (nn.Linear or Conv1D) and adds `scale * (x A) B` to the outputs of each of its sites.

    `A` [I, R] and `B` [R, O of the site] are kept per role, so that query, key and value of a fused map are adapted
    separately. The base is frozen here and stays where it was otherwise: dtype, device and bias are its own.
    """

    def __init__(
        self, base: nn.Module, sites: Sequence[Site], rank: Mapping[Role, int], scale: float, dropout: float
    ) -> None:
        super().__init__()
        inputs, outputs = features(base)
        weight = weight_IO(base)
        self.base = base.requires_grad_(False)
        self.sites, self.scale, self.outputs = tuple(sites), scale, outputs
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.A = nn.ParameterDict({s.role: weight.new_zeros(inputs, rank[s.role]) for s in sites})
        self.B = nn.ParameterDict({s.role: weight.new_zeros(rank[s.role], s.stop - s.start) for s in sites})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., I] to y [..., O]."""
        y: torch.Tensor = self.base(x)
        dropped = self.dropout(x)
        for site in self.sites:
            delta = self.scale * (dropped @ self.A[site.role]) @ self.B[site.role]
            if site.stop - site.start == self.outputs:
                y = y + delta
            else:
                y = y + nn.functional.pad(delta, (site.start, self.outputs - site.stop))
        return y

    def weight_of(self, site: Site) -> torch.Tensor:
        """The base weight of a site as [I, O]: a view that can be written to."""
        return weight_IO(self.base)[:, site.start : site.stop]

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The base with every low-rank term folded into its weight, summed in fp64."""
        for site in self.sites:
            weight = self.weight_of(site)
            delta = self.scale * (self.A[site.role].double() @ self.B[site.role].double())
            weight.copy_((weight.double() + delta).to(weight.dtype))
        return self.base


def attach_lowrank(
    model: PreTrainedModel, sites: Sequence[Site], rank: int | float, scale: float = 1.0, dropout: float = 0.0
) -> None:
    """Wrap the module of every site in place. A float `rank` is a share of the site's full rank, at least 1."""
    by_module: dict[str, list[Site]] = {}
    for site in sites:
        by_module.setdefault(site.name, []).append(site)
    for name, group in by_module.items():
        base = model.get_submodule(name)
        ranks = {site.role: rank_of(rank, features(base)[0], site.stop - site.start) for site in group}
        model.set_submodule(name, LowRank(base, group, ranks, scale, dropout))


def rank_of(rank: int | float, inputs: int, outputs: int) -> int:
    """A rank as an integer: itself, or a share of the full rank of an [inputs, outputs] weight; never above full."""
    full = min(inputs, outputs)
    wanted = rank if isinstance(rank, int) else max(1, round(rank * full))
    return min(wanted, full)


def lowrank_sites(model: nn.Module) -> Iterator[tuple[LowRank, Site]]:
    """Every adapted site with its wrapper, in the model's own order."""
    for module in model.modules():
        if isinstance(module, LowRank):
            for site in module.sites:
                yield module, site


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Fold every low-rank adapter into plain weights, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LowRank):
            model.set_submodule(name, module.merged())
    return model
