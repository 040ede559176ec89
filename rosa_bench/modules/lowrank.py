"""A linear map with trained low-rank updates: y = x W + s (x A) B. Shapes: I inputs, O outputs, R rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rosa_bench.core.method import PeftAdapter
from rosa_bench.core.schema import Bias
from rosa_bench.errors import UsageError
from rosa_bench.models.evaluation_mode import evaluation_mode
from rosa_bench.models.roles import (
    Role,
    Site,
    features,
    find_sites,
    freeze_backbone,
    fuse,
    skipped_weights,
    weight_IO,
)
from rosa_bench.system.console import counted, warn_once

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LowRank(nn.Module):
    """Wraps a linear map `base` (nn.Linear or Conv1D) and adds `scale * (x A) B` to the outputs of each of its sites.

    `A` [I, R] and `B` [R, O of the site] are stored per role, so the query, key and value of a fused map are adapted
    separately. The base is frozen and keeps its dtype, device and bias.
    """

    product_tables: tuple[str, ...] = ("A", "B")  # parameters used only in matrix products

    def __init__(
        self, base: nn.Module, sites: Sequence[Site], rank: Mapping[Role, int], scale: float, dropout: float
    ) -> None:
        super().__init__()
        inputs, outputs = features(base)
        weight = weight_IO(base)
        self.base = base
        weight.requires_grad_(False)
        self.sites, self.scale, self.outputs = tuple(sites), scale, outputs
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.A = nn.ParameterDict({s.role: weight.new_zeros(inputs, rank[s.role], dtype=dtype) for s in sites})
        self.B = nn.ParameterDict({s.role: weight.new_zeros(rank[s.role], s.width, dtype=dtype) for s in sites})

    def factors(self, role: Role) -> tuple[torch.Tensor, torch.Tensor]:
        """The active `A` and `B` of a role."""
        return self.A[role], self.B[role]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [..., I] to y [..., O]."""
        y: torch.Tensor = self.base(x)
        dropped = self.dropout(x)
        for site in self.sites:
            A, B = self.factors(site.role)
            y = y + site.spread(self.scale * (dropped @ A) @ B, self.outputs)
        return y

    def weight_of(self, site: Site) -> torch.Tensor:
        """The base weight of a site as [I, O]; a view if its outputs are contiguous."""
        return site.take(weight_IO(self.base))

    @torch.no_grad()
    def set_weight(self, site: Site, weight: torch.Tensor) -> None:
        """Overwrite the base weight [I, O] of a site."""
        site.put(weight_IO(self.base).data, weight)

    def update_of(self, site: Site) -> torch.Tensor:
        """The update of a site's weight, [I, O] in fp64."""
        A, B = self.factors(site.role)
        return self.scale * (A.double() @ B.double())

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Merge every low-rank update into the base weight, summed in fp64, and return the base."""
        for site in self.sites:
            weight = self.weight_of(site)
            self.set_weight(site, (weight.double() + self.update_of(site)).to(weight.dtype))
        return self.base


class Nested(LowRank):
    """Uses only the first `active` columns of A and rows of B, scaled by alpha / active unless `fixed_scale` is set."""

    def __init__(
        self,
        base: nn.Module,
        sites: Sequence[Site],
        rank: Mapping[Role, int],
        alpha: float,
        dropout: float,
        frozen: bool = False,
        fixed_scale: float | None = None,
    ) -> None:
        super().__init__(base, sites, rank, scale=1.0, dropout=dropout)
        self.alpha, self.frozen, self.fixed_scale = alpha, frozen, fixed_scale
        self.active = 0
        self.activate(max(rank.values()))

    def activate(self, rank: int) -> None:
        """Use the first `rank` directions."""
        self.active = rank
        self.scale = self.alpha / rank if self.fixed_scale is None else self.fixed_scale

    def factors(self, role: Role) -> tuple[torch.Tensor, torch.Tensor]:
        """The truncated factors; if `frozen`, gradients reach only their last direction."""
        b, A, B = self.active, self.A[role], self.B[role]
        if self.frozen and b > 1 and torch.is_grad_enabled():
            return (
                torch.cat([A[:, : b - 1].detach(), A[:, b - 1 : b]], dim=1),
                torch.cat([B[: b - 1].detach(), B[b - 1 : b]]),
            )
        return A[:, :b], B[:b]


def activate(model: nn.Module, rank: int) -> None:
    """Use the first `rank` directions of every `Nested` module."""
    for module in model.modules():
        if isinstance(module, Nested):
            module.activate(rank)


class Directions:
    """Gives the optimizer one parameter per direction of all `Nested` modules, in place of the factors A and B.

    Optimizers skip parameters whose gradient is None. A step therefore leaves the directions that it does not train
    unchanged, whatever state the optimizer keeps (moments, step counts) and whatever it applies (weight decay).
    Direction i of all factors of one shape is a single parameter [sites * width], so that the optimizer handles fewer
    tensors and copying from and to the factors takes a few operations per shape. An update that is not elementwise
    (Adafactor clips by the root mean square of a tensor) thus treats a direction of all sites as one tensor.

    The factors remain parameters of the model and members of the optimizer's groups, where gradient scaling and
    `zero_grad` find them. They have no gradient during `optimizer.step`, so the optimizer keeps no state for them.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        nested = [module for module in model.modules() if isinstance(module, Nested)]
        columns = {id(A) for module in nested for A in module.A.values()}
        rows = {id(B) for module in nested for B in module.B.values()}
        self.stacks: list[_Stack] = []
        for group in optimizer.param_groups:
            alike: dict[Any, list[nn.Parameter]] = {}
            for p in group["params"]:
                if id(p) in columns or id(p) in rows:
                    alike.setdefault((id(p) in columns, p.shape, p.dtype, p.device), []).append(p)
            for (is_A, *_), factors in alike.items():
                self.stacks.append(_Stack(factors, is_A))
                group["params"] += self.stacks[-1].directions

    def belong_to(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the optimizer updates these directions."""
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return all(id(p) in own for stack in self.stacks for p in stack.directions)

    def gather(self, trained: Iterable[int]) -> None:
        """Copy values and gradients from the factors. Only the directions in `trained` (from 0) get a gradient."""
        for stack in self.stacks:
            stack.gather(trained)

    def scatter(self) -> None:
        """Copy the updated values back to the factors."""
        for stack in self.stacks:
            stack.scatter()


class _Stack:
    """Factors of one shape, all A [I, R] or all B [R, O], as R parameters [sites * I] or [sites * O]."""

    def __init__(self, factors: Sequence[nn.Parameter], is_A: bool) -> None:
        self.factors: list[torch.Tensor] = list(factors)
        self.is_A, self.sites = is_A, len(factors)
        rank, width = factors[0].T.shape if is_A else factors[0].shape
        self.held = factors[0].new_zeros(rank, 2 * self.sites, width)  # values, then gradients
        self.directions = [nn.Parameter(part[: self.sites].view(-1)) for part in self.held]

    @torch.no_grad()
    def gather(self, trained: Iterable[int]) -> None:
        tensors = [*self.factors, *(torch.zeros_like(p) if p.grad is None else p.grad for p in self.factors)]
        if self.is_A:
            self.held.copy_(torch.stack(tensors).permute(2, 0, 1))
        else:
            torch.stack(tensors, dim=1, out=self.held)
        for i in trained:
            self.directions[i].grad = self.held[i, self.sites :].view(-1)
        for p in self.factors:
            p.grad = None

    @torch.no_grad()
    def scatter(self) -> None:
        values = self.held[:, : self.sites]
        values = values.permute(1, 2, 0) if self.is_A else values.transpose(0, 1)
        torch._foreach_copy_(self.factors, list(values.contiguous().unbind()))
        for direction in self.directions:
            direction.grad = None


class Resampled(LowRank):
    """Low-rank factors split off the weight (ROSA). Full-rank roles train the weight directly, in `whole`."""

    product_tables = ("A", "B", "whole")

    def __init__(self, base: nn.Module, sites: Sequence[Site], rank: Mapping[Role, int]) -> None:
        inputs, _ = features(base)
        complete = [s for s in sites if rank[s.role] >= min(inputs, s.width)]
        super().__init__(base, [s for s in sites if s not in complete], rank, scale=1.0, dropout=0.0)
        self.complete = tuple(complete)
        self.whole = nn.ParameterDict({s.role: self.weight_of(s).detach().clone() for s in complete})
        for site in complete:
            self.set_weight(site, torch.zeros_like(self.whole[site.role]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x [..., I] to y [..., O]."""
        y = super().forward(x)
        for site in self.complete:
            y = y + site.spread(x @ self.whole[site.role], self.outputs)
        return y

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Merge everything that was split off into the base and return it."""
        for site in self.complete:
            self.set_weight(site, self.whole[site.role])
        return super().merged()


class LowRankMethod(Protocol):
    """Configuration fields shared by all methods with low-rank updates."""

    @property
    def targets(self) -> Sequence[str]:
        """Roles of the weights to adapt, or `all`."""

    @property
    def bias(self) -> Bias:
        """Which biases of the backbone train."""

    @property
    def train_head(self) -> bool:
        """Whether the task head trains."""


def attach_lowrank(
    model: PreTrainedModel,
    method: LowRankMethod,
    rank: int | float,
    wrap: Callable[..., LowRank] = LowRank,
    fused: bool = False,
    **options: Any,
) -> None:
    """Freeze the backbone and wrap the method's target weights in place with `wrap(module, sites, ranks, **options)`.

    A float `rank` is a share of a site's full rank, rounded down, but at least 1. With `fused`, a fused map of query,
    key and value is adapted as one weight. A module used in several places is wrapped once.

    Raises:
        UsageError: if the backbone lacks a target's role, two modules share a weight, the backbone reads the weight of
            a wrapped module instead of calling it, or `fused` does not fit the targets.
    """
    sites = find_sites(model, method.targets)
    if fused:
        sites = fuse(model, sites)
    freeze_backbone(model, method.train_head, method.bias, {site.name for site in sites})
    if "all" in method.targets and (skipped := skipped_weights(model, sites)):
        model.__dict__["skipped_weights"] = skipped
        warn_once(f"rosa_bench: targets=[all] skips {counted(sum(skipped.values()), 'weight')}: {', '.join(skipped)}")
    places: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        places.setdefault(id(module), []).append(name)
    by_module: dict[str, list[Site]] = {}
    for site in sites:
        by_module.setdefault(site.name, []).append(site)
    owners: dict[int, str] = {}
    for name, group in by_module.items():
        base = model.get_submodule(name)
        if (owner := owners.setdefault(id(base.weight), name)) != name:
            raise UsageError(f"{type(model).__name__}: {owner} and {name} share one weight; adapt one of them")
        ranks = {site.role: rank_of(rank, features(base)[0], site.width) for site in group}
        wrapped = wrap(base, group, ranks, **options)
        for place in places[id(base)]:
            model.set_submodule(place, wrapped)
    if any(site.role == "other" for site in sites):
        _try_out(model)


def _try_out(model: PreTrainedModel) -> None:
    """Run a short input. Raises UsageError if the backbone accesses attributes of an adapted module."""
    try:
        with evaluation_mode(model):
            model.base_model(input_ids=torch.full((1, 2), 5, device=model.device))
    except AttributeError as error:
        raise UsageError(
            f"{type(model).__name__} reads weights of adapted modules directly ({error}); name roles in targets, "
            "or use method=peft method.type=LORA method.config.target_modules=[MODULE]"
        ) from error


def rank_of(rank: int | float, inputs: int, outputs: int) -> int:
    """Convert a rank to an integer. A float is a share of an [inputs, outputs] weight's full rank, rounded down.

    ROSA's code truncates too (rosa-paper/rosa, `peftnet/peft_module/_peftlinear.py`, `_integer_rank`).
    """
    return rank if isinstance(rank, int) else max(1, int(rank * min(inputs, outputs)))


def lowrank_sites(model: nn.Module) -> Iterator[tuple[LowRank, Site]]:
    """Yield every adapted site with its wrapper, in module order."""
    for module in model.modules():
        if isinstance(module, LowRank):
            for site in module.sites:
                yield module, site


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Merge every low-rank adapter into the backbone's weights, in place; one used in several places is merged once."""
    wrapped = [(n, m) for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, LowRank)]
    bases = {module: module.merged() for module in dict.fromkeys(module for _, module in wrapped)}
    for name, module in wrapped:
        model.set_submodule(name, bases[module])
    return model


def to_peft(model: PreTrainedModel, backbone: PreTrainedModel, dropout: float) -> PeftAdapter:
    """Export the active low-rank updates as a `peft` LoRA.

    `peft` has one pair of factors per module. For a fused map, the pairs of all roles are combined into one whose rank
    is the sum of their ranks, with zeros in B for outputs that a role does not change. Trained biases of adapted
    modules are exported as biases of B.
    """
    from peft import LoraConfig

    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    biases: dict[str, torch.Tensor] = {}
    covered: set[str] = set()
    wrapped = {name: module for name, module in model.named_modules() if isinstance(module, LowRank)}
    for name, module in wrapped.items():
        pairs = [(site, *module.factors(site.role)) for site in module.sites]
        A = torch.cat([A for _, A, _ in pairs], dim=1)
        B = A.new_zeros(A.shape[1], module.outputs)
        start = 0
        for site, _, part in pairs:
            site.put(B[start : start + len(part)], part)
            start += len(part)
        ranks[name], alphas[name] = A.shape[1], module.scale * A.shape[1]
        tensors |= {f"{name}.lora_A.weight": A.T, f"{name}.lora_B.weight": B.T}
        covered |= {f"{name}.{parameter}" for parameter, _ in module.named_parameters()}
        if (bias := getattr(module.base, "bias", None)) is not None:
            before = backbone.get_submodule(name).bias
            biases[f"{name}.lora_B.bias"] = ((bias.double() - before.to(bias.device).double()) / module.scale).float()
    if any(bias.any() for bias in biases.values()):
        tensors |= {f"{name}.lora_B.bias": torch.zeros(module.outputs) for name, module in wrapped.items()} | biases
    rank, alpha = max(ranks.values()), max(alphas.values())
    config = LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # type: ignore[arg-type]
        target_modules=_shortest(model, set(wrapped)),
        rank_pattern={name: r for name, r in ranks.items() if r != rank},
        alpha_pattern={name: a for name, a in alphas.items() if a != alpha},
        lora_dropout=dropout,
        fan_in_fan_out=any(isinstance(module.base, Conv1D) for module in wrapped.values()),
        lora_bias=any(name.endswith(".lora_B.bias") for name in tensors),
    )
    return PeftAdapter(config, {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}, covered)


def _shortest(model: nn.Module, names: set[str]) -> list[str]:
    """The last components of the module names if they match no other modules, else the full names."""
    leaves = {name.rpartition(".")[2] for name in names}
    others = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in leaves} - names
    return sorted(names if others else leaves)
