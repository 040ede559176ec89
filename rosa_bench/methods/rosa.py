"""ROSA: random subspace adaptation (Hameed et al., arXiv 2407.07802, and its 2023 workshop version).

Every K steps each adapted weight W is split as W = W_rest + A B, where A B holds R of the singular directions of W,
chosen at random, and W_rest all others. Only A and B train, until the next split takes in what they learned: the
product never changes at a split, and over time the update can reach any rank. Shapes: I inputs, O outputs, R rank.

Where the authors' code differs: its random subspace is a contiguous block of directions that never holds the last one
(`sample: window`), it leaves the task head frozen (`train_head: false`), and its data-to-text script restarts the
learning-rate schedule at every split. Here the subset is uniform, the head trains and the schedule runs through.
The other ways to split that the code offers are values of `variant`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.method import Method, Step, tally
from rosa_bench.core.schema import NEUTRAL, Added, Bias, Count, configured
from rosa_bench.methods.lora import Target, targets_field
from rosa_bench.system.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task
    from rosa_bench.models.sites import Site
    from rosa_bench.modules.lowrank import LowRank

Sample = Literal["random", "top", "bottom", "window"]
Values = Literal["a", "both"]
Solver = Literal["gram", "svd"]
Split = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


@configured
class Rosa(Method):
    """Trains R singular directions of each target weight, drawn anew every `every_epochs` (or `every_steps`)."""

    rank: Count | Annotated[float, Field(gt=0, lt=1)] = 8  # a float: a share of each full rank, rounded down
    targets: list[Target] = targets_field("q", "k", "v", "o")
    fused: Annotated[bool, Added(False)] = False  # a fused map of q, k and v (GPT-2's c_attn) as one matrix
    every_epochs: Annotated[float, Field(gt=0)] = 1.0
    every_steps: Count | None = None  # wins over every_epochs
    variant: Literal["equal", "add", "random_add", "projection"] = "equal"
    sample: Sample = "random"  # which singular directions, for `equal` and `add`
    singular_values: Values = "a"  # all in A, or their roots in both (the workshop version)
    solver: Annotated[Solver, NEUTRAL] = "gram"  # chosen directions alone, or a full SVD
    moments: Literal["reset", "keep"] = "reset"  # Adam's state of A and B at a new split
    bias: Bias = "none"  # which biases of the backbone train: none, those of adapted modules, all
    train_head: bool = True

    lr: ClassVar[Mapping[str, float]] = {"mini": 1e-3, "full_size": 4e-4}
    look: ClassVar[int | None] = 2

    @property
    def exact_at_start(self) -> bool:
        """The published `add` counts the chosen directions twice; every other variant splits."""
        return self.variant != "add"

    def without_peft(self, task: Task) -> str | None:
        """Its update is no product of the last factors."""
        return "changes the frozen weights at every split, so that its last factors alone are not the trained model"

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone, wrap its target weights and split them for the first time."""
        from rosa_bench.modules.lowrank import Resampled, attach_lowrank

        attach_lowrank(model, self, self.rank, Resampled, self.fused)
        self.split(model, seed, 0)

    def moved(self, model: PreTrainedModel) -> set[str]:
        """The frozen rest of every adapted weight changes at a split."""
        from rosa_bench.modules.lowrank import LowRank

        return {f"{name}.base.weight" for name, module in model.named_modules() if isinstance(module, LowRank)}

    def output_factors(self, model: PreTrainedModel) -> list[torch.nn.Parameter]:
        """Every B."""
        from rosa_bench.modules.lowrank import output_factors

        return output_factors(model)

    def period(self, steps_per_epoch: int) -> int:
        """Optimiser steps between two splits."""
        return self.every_steps or max(1, round(self.every_epochs * steps_per_epoch))

    def long_before(self, step: Step) -> bool:
        """Whether a period begins; `attach` has split the weights for step 0."""
        return step.index > 0 and step.index % self.period(step.per_epoch) == 0

    def before_step(self, step: Step) -> None:
        """Split every weight anew when a period begins."""
        if not self.long_before(step):
            return
        self.split(step.model, step.seed, step.index)
        if self.moments == "reset":
            from rosa_bench.modules.lowrank import lowrank_sites

            for module, site in lowrank_sites(step.model):
                step.optimizer.state.pop(module.A[site.role], None)
                step.optimizer.state.pop(module.B[site.role], None)

    def split(self, model: PreTrainedModel, seed: int, index: int) -> None:
        """Fold A B into every adapted weight and take out new directions, drawn from (seed, step index, site).

        Weights on a GPU are split there, those of one shape at once; without a GPU, each by one thread.
        """
        from rosa_bench.modules.lowrank import lowrank_sites
        from rosa_bench.modules.singular import add_product
        from rosa_bench.system.distributed import copy_from_first
        from rosa_bench.system.threads import in_parallel

        def anew(module: LowRank, site: Site) -> tuple[torch.Tensor, ...]:
            A, B, W = module.A[site.role].data, module.B[site.role].data, module.weight_of(site).data
            add_product(W, A, B)
            for old, new in zip((A, B), self.take(W, A.shape[1], generator(seed, index, site.label)), strict=True):
                old.copy_(new)
            return W, A, B

        began = time.perf_counter()
        sites = list(lowrank_sites(model))
        if model.device.type == "cuda" and self.variant in ("equal", "add") and self.solver == "gram":
            self.split_stacked(sites, seed, index)
        else:
            for (module, site), parts in zip(sites, in_parallel(anew, sites), strict=True):
                copy_from_first(parts)
                if site.groups > 1:  # else the parts are views of the weight
                    module.set_weight(site, parts[0])
        counts = tally(model)
        counts["refactorizations"] = counts.get("refactorizations", 0) + 1
        counts["refactorization_s"] = counts.get("refactorization_s", 0.0) + time.perf_counter() - began

    def split_stacked(self, sites: Sequence[tuple[LowRank, Site]], seed: int, index: int) -> None:
        """Split weights where they are, as many of one shape and rank at a time as fit into a gigabyte.

        Raises ValueError for a weight that is not finite.
        """
        import torch

        from rosa_bench.modules import singular
        from rosa_bench.system.distributed import copy_from_first

        alike: dict[tuple[int, ...], list[tuple[LowRank, Site]]] = {}
        for module, site in sites:
            A, B = module.A[site.role], module.B[site.role]
            alike.setdefault((*A.shape, B.shape[1]), []).append((module, site))
        for (inputs, rank, outputs), group in alike.items():
            size = singular.stack_size(inputs, outputs)
            for block in (group[i : i + size] for i in range(0, len(group), size)):
                held = [(m.weight_of(s).data, m.A[s.role].data, m.B[s.role].data) for m, s in block]
                draws = [generator(seed, index, site.label) for _, site in block]
                chosen = torch.stack([choose(min(inputs, outputs), rank, draw, self.sample) for draw in draws])
                W, A, B = (torch.stack(parts) for parts in zip(*held, strict=True))
                split = self._split_stack(W, A, B, chosen)
                for (module, site), (_, A, B), parts in zip(block, held, zip(*split, strict=True), strict=True):
                    copy_from_first(parts)
                    module.set_weight(site, parts[0])
                    A.copy_(parts[1])
                    B.copy_(parts[2])

    def _split_stack(
        self, W_SIO: torch.Tensor, A_SIR: torch.Tensor, B_SRO: torch.Tensor, chosen_SR: torch.Tensor
    ) -> Split:
        """The new rests, A and B of S weights of one shape, of which the chosen directions are taken out."""
        import torch

        from rosa_bench.modules import singular

        whole = torch.baddbmm(W_SIO.double(), A_SIR.double(), B_SRO.double()).to(W_SIO.dtype)
        if not torch.isfinite(whole).all():
            raise ValueError("a weight has values that are not finite")
        (U, values, Vh), right = singular.by_stack(whole, chosen_SR)
        for i in (~right).nonzero().flatten().tolist():
            U[i], values[i], Vh[i] = singular.by_svd(whole[i], chosen_SR[i])
        left, other = (values, None) if self.singular_values == "a" else (values.sqrt(), values.sqrt())
        A = (U * left[:, None]).to(W_SIO.dtype)
        B = (Vh if other is None else Vh * other[:, :, None]).to(W_SIO.dtype)
        if self.variant == "add":
            return whole, A, B
        return torch.baddbmm(whole.double(), A.double(), B.double(), alpha=-1).to(W_SIO.dtype), A, B

    def take(self, W_IO: torch.Tensor, rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A [I, R] and B [R, O], by the variant, taken out of a weight in place.

        `equal` is `factorize`. `add` leaves the weight whole beside A B, as the published code does, so that the chosen
        directions count twice. `random_add` starts A at zero and B at N(0, 1): LoRA, started again. `projection` takes
        Q Q' W out, with Q [I, R] orthonormal and random; the published code builds Q for the outputs and multiplies the
        inputs with it, which works for square weights only.
        """
        import torch

        from rosa_bench.modules.singular import add_product

        if self.variant in ("equal", "add"):
            how = self.sample, self.singular_values, self.solver
            return factorize(W_IO, rank, generator, *how, in_place=self.variant == "equal")[1:]
        inputs, outputs = W_IO.shape
        if self.variant == "random_add":
            return W_IO.new_zeros(inputs, rank), torch.randn(rank, outputs, generator=generator).to(W_IO)
        Q = torch.linalg.qr(torch.randn(inputs, rank, dtype=torch.float64, generator=generator).to(W_IO.device)).Q
        A, B = Q.to(W_IO.dtype), (Q.T @ W_IO.double()).to(W_IO.dtype)
        add_product(W_IO, A, B, -1.0)
        return A, B

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """How often the weights were split, the start included, the seconds that took, and weights `all` left out.

        `split_device` is where weights are split in training; `attach` splits them on the CPU.
        """
        from rosa_bench.modules.lowrank import skipped_facts

        return tally(model) | skipped_facts(model) | {"split_device": model.device.type}


def choose(full: int, rank: int, generator: torch.Generator, sample: Sample = "random") -> torch.Tensor:
    """Indices [R] of singular directions in descending order of singular value; 0 is the largest.

    `random` draws a uniform subset; `window` the published code's contiguous block, whose start is uniform over
    0..full-rank-1, so that the last direction is never in it unless rank equals full.
    """
    import torch

    if sample == "top":
        return torch.arange(rank)
    if sample == "bottom":
        return torch.arange(full - rank, full)
    if sample == "window":
        start = int(torch.randint(max(1, full - rank), (), generator=generator))
        return torch.arange(start, start + rank)
    return torch.randperm(full, generator=generator)[:rank].sort().values


def factorize(
    W_IO: torch.Tensor,
    rank: int,
    generator: torch.Generator,
    sample: Sample = "random",
    singular_values: Values = "a",
    solver: Solver = "gram",
    in_place: bool = False,
) -> Split:
    """Split a weight by singular directions: W_IO = W_rest_IO + A_IR @ B_RO to float precision (paper, algorithm 1).

    A holds the chosen left directions times their singular values, B the right ones; or both hold the roots of the
    singular values (`both`). Computed in fp64 and returned in the weight's dtype, with W_rest rounded so that the sum
    is exact to that dtype. `gram` finds the chosen directions alone, `svd` all of them first. If `in_place`, W_rest is
    the weight, written over.

    Raises:
        ValueError: if rank is not in 1..min(I, O), or the weight is not finite.
    """
    import torch

    from rosa_bench.modules import singular

    full = min(W_IO.shape)
    if not 1 <= rank <= full:
        raise ValueError(f"rank={rank} is not in 1..{full}, the full rank of a {tuple(W_IO.shape)} weight")
    W = W_IO.detach()
    if not all(torch.isfinite(part).all() for part in W.split(singular.BLOCK)):
        raise ValueError("the weight has values that are not finite")
    find = singular.by_gram if solver == "gram" else singular.by_svd
    U, values, Vh = find(W, choose(full, rank, generator, sample))
    left, right = (values, torch.ones_like(values)) if singular_values == "a" else (values.sqrt(), values.sqrt())
    A, B = (U * left).to(W.dtype), (Vh * right[:, None]).to(W.dtype)
    rest = W if in_place else W.clone()
    singular.add_product(rest, A, B, -1.0)
    return rest, A, B
