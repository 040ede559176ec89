"""ROSA: random subspace adaptation (Hameed et al., arXiv 2407.07802, and its 2023 workshop version).

Every K steps each adapted weight W is factorized as W = W_rest + A B, where A B holds R randomly chosen singular
directions of W and W_rest holds all others. Only A and B train until the next factorization, which incorporates what
they learned. A factorization never changes W_rest + A B, and over time the update can reach any rank. Shapes: I inputs,
O outputs, R rank.

Differences from the authors' code: its random subspace is a contiguous block of directions that never includes the last
one (`sample: window`), it freezes the task head (`train_head: false`), it makes a new optimizer for all parameters at
every factorization, and its data-to-text script also restarts the learning-rate schedule. Here the subset is uniform,
the head trains, only A and B lose their optimizer state, and the schedule is not restarted. `variant` selects the other
factorizations of the authors' code.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.method import Group, Step, tally
from rosa_bench.core.schema import NEUTRAL, Added, Bias, Count, configured
from rosa_bench.methods.lora import RestartedMethod, Target, targets_field
from rosa_bench.system import progress
from rosa_bench.system.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task
    from rosa_bench.models.roles import Site
    from rosa_bench.modules.lowrank import LowRank

Sample = Literal["random", "top", "bottom", "window"]
Values = Literal["a", "both"]
Solver = Literal["gram", "svd"]
Split = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


@configured
class Rosa(RestartedMethod):
    """Trains R singular directions of each target weight, resampled every `every_epochs` (or `every_steps`)."""

    # R, the rank; below 1: a fraction of each weight's full rank, rounded down
    rank: Count | Annotated[float, Field(gt=0, lt=1)] = 8
    # roles of the adapted weights; `all`: every linear map in the layers
    targets: list[Target] = targets_field("q", "k", "v", "o")
    fused: Annotated[bool, Added(False)] = False  # adapt a fused q, k, v projection (GPT-2's c_attn) as one weight
    every_epochs: Annotated[float, Field(gt=0)] = 1.0  # epochs between factorizations
    every_steps: Count | None = None  # optimizer steps between factorizations; overrides every_epochs
    # equal: split W into W_rest + A B; add, random_add: add A B to the whole W; projection: split off a random subspace
    variant: Literal["equal", "add", "random_add", "projection"] = "equal"
    # which singular directions `equal` and `add` train; `window`: a contiguous block, as published
    sample: Sample = "random"
    singular_values: Values = "a"  # a: all in A; both: their square roots in A and B (workshop version)
    solver: Annotated[Solver, NEUTRAL] = "gram"  # gram: compute only the drawn directions; svd: a full SVD
    moments: Literal["reset", "keep"] = "reset"  # what a factorization does to Adam's state of A and B
    bias: Bias = "none"  # backbone biases to train: none, those of adapted modules, or all
    train_head: bool = True  # whether to train the task head

    lr: ClassVar[Mapping[str, float]] = {"mini": 1e-3, "full_size": 4e-4}
    look: ClassVar[int | None] = 2
    group: ClassVar[Group] = "paper"

    @property
    def exact_at_start(self) -> bool:
        """Whether the logits after `attach` equal the backbone's; `add` counts the chosen directions twice."""
        return self.variant != "add"

    def without_peft(self, task: Task) -> str | None:
        """Why `peft` cannot load the trained model: its update is not the product of the last factors."""
        return "changes the frozen weights at every factorization, so the last factors alone are not the trained model"

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone, wrap its target weights and factorize them for the first time."""
        from rosa_bench.modules.lowrank import Resampled, attach_lowrank

        attach_lowrank(model, self, self.rank, Resampled, self.fused)
        self.split(model, seed, 0)

    def long_before(self, step: Step) -> bool:
        """Whether this step starts a new period; `attach` factorizes the weights for step 0."""
        return step.index > 0 and step.index % self.period(step.per_epoch) == 0

    def before_step(self, step: Step) -> None:
        """Factorize every weight again at the start of a period."""
        if not self.long_before(step):
            return
        self.split(step.model, step.seed, step.index)
        if self.moments == "reset":
            from rosa_bench.modules.lowrank import lowrank_sites

            for module, site in lowrank_sites(step.model):
                step.optimizer.state.pop(module.A[site.role], None)
                step.optimizer.state.pop(module.B[site.role], None)

    def split(self, model: PreTrainedModel, seed: int, index: int) -> None:
        """Merge A B into every adapted weight and factorize it again, drawing from (seed, step index, site).

        On a GPU, weights of the same shape are factorized in batches; on a CPU, each by one thread.
        """
        from rosa_bench.modules.lowrank import lowrank_sites
        from rosa_bench.modules.singular import add_product
        from rosa_bench.system.distributed import copy_from_first
        from rosa_bench.system.threads import in_parallel

        def refactorize(module: LowRank, site: Site) -> tuple[torch.Tensor, ...]:
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
            factors = progress.each(in_parallel(refactorize, sites), "factorizing weights", len(sites))
            for (module, site), parts in zip(sites, factors, strict=True):
                copy_from_first(parts)
                if site.groups > 1:  # otherwise the parts are views of the weight
                    module.set_weight(site, parts[0])
        counts = tally(model)
        counts["refactorizations"] = counts.get("refactorizations", 0) + 1
        counts["refactorization_s"] = counts.get("refactorization_s", 0.0) + time.perf_counter() - began

    def split_stacked(self, sites: Sequence[tuple[LowRank, Site]], seed: int, index: int) -> None:
        """Factorize weights on their device, in batches of the same shape and rank that fit into 1 GiB.

        Raises ValueError if a weight is not finite.
        """
        import torch

        from rosa_bench.modules import singular
        from rosa_bench.system.distributed import copy_from_first

        task = progress.Task("factorizing weights", len(sites))
        alike: dict[tuple[int, ...], list[tuple[LowRank, Site]]] = {}
        for module, site in sites:
            A, B = module.A[site.role], module.B[site.role]
            alike.setdefault((*A.shape, B.shape[1]), []).append((module, site))
        for (inputs, rank, outputs), group in alike.items():
            size = singular.stack_size(inputs, outputs)
            for block in (group[i : i + size] for i in range(0, len(group), size)):
                tensors = [(m.weight_of(s).data, m.A[s.role].data, m.B[s.role].data) for m, s in block]
                draws = [generator(seed, index, site.label) for _, site in block]
                chosen = torch.stack([choose(min(inputs, outputs), rank, draw, self.sample) for draw in draws])
                W, A, B = (torch.stack(parts) for parts in zip(*tensors, strict=True))
                split = self._split_stack(W, A, B, chosen)
                for (module, site), (_, A, B), parts in zip(block, tensors, zip(*split, strict=True), strict=True):
                    copy_from_first(parts)
                    module.set_weight(site, parts[0])
                    A.copy_(parts[1])
                    B.copy_(parts[2])
                task.advance(len(block))

    def _split_stack(
        self, W_SIO: torch.Tensor, A_SIR: torch.Tensor, B_SRO: torch.Tensor, chosen_SR: torch.Tensor
    ) -> Split:
        """Return the new W_rest, A and B of S weights of one shape, given the chosen directions."""
        import torch

        from rosa_bench.modules import singular

        merged = torch.baddbmm(W_SIO.double(), A_SIR.double(), B_SRO.double()).to(W_SIO.dtype)
        if not torch.isfinite(merged).all():
            raise ValueError("a weight has values that are not finite")
        (U, values, Vh), accurate = singular.by_stack(merged, chosen_SR)
        for i in (~accurate).nonzero().flatten().tolist():
            U[i], values[i], Vh[i] = singular.by_svd(merged[i], chosen_SR[i])
        scale_A, scale_B = (values, None) if self.singular_values == "a" else (values.sqrt(), values.sqrt())
        A = (U * scale_A[:, None]).to(W_SIO.dtype)
        B = (Vh if scale_B is None else Vh * scale_B[:, :, None]).to(W_SIO.dtype)
        if self.variant == "add":
            return merged, A, B
        return torch.baddbmm(merged.double(), A.double(), B.double(), alpha=-1).to(W_SIO.dtype), A, B

    def take(self, W_IO: torch.Tensor, rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the variant's A [I, R] and B [R, O], and subtract their product from the weight in place.

        `equal` is `factorize`. `add` does not subtract A B from the weight, as in the published code, so the chosen
        directions count twice. `random_add` sets A to zero and draws B from N(0, 1), like a restarted LoRA.
        `projection` subtracts Q Q' W, where Q [I, R] is random and orthonormal; the published code sizes Q for the
        outputs but multiplies it with the inputs, which works for square weights only.
        """
        import torch

        from rosa_bench.modules.singular import add_product

        if self.variant in ("equal", "add"):
            options = self.sample, self.singular_values, self.solver
            return factorize(W_IO, rank, generator, *options, in_place=self.variant == "equal")[1:]
        inputs, outputs = W_IO.shape
        if self.variant == "random_add":
            return W_IO.new_zeros(inputs, rank), torch.randn(rank, outputs, generator=generator).to(W_IO)
        Q = torch.linalg.qr(torch.randn(inputs, rank, dtype=torch.float64, generator=generator).to(W_IO.device)).Q
        A, B = Q.to(W_IO.dtype), (Q.T @ W_IO.double()).to(W_IO.dtype)
        add_product(W_IO, A, B, -1.0)
        return A, B

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """The number of factorizations (including the first), their seconds, and weights that `targets=[all]` skipped.

        `split_device` is the device that factorizes weights during training; `attach` uses the CPU.
        """
        return tally(model) | dict(super().facts(model, batch)) | {"split_device": model.device.type}


def choose(full: int, rank: int, generator: torch.Generator, sample: Sample = "random") -> torch.Tensor:
    """Indices [R] of singular directions in descending order of singular value; 0 is the largest.

    `random` draws a uniform subset. `window` draws the published code's contiguous block, whose start is uniform over
    0..full-rank-1, so it never includes the last direction unless rank equals full.
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
    """Factorize a weight: W_IO = W_rest_IO + A_IR @ B_RO to float precision (paper, algorithm 1).

    A holds the chosen left singular vectors times their singular values and B the right singular vectors; with `both`,
    each is scaled by the square roots of the singular values instead. Computed in fp64 and returned in the weight's
    dtype, with W_rest rounded so that the sum is exact to that dtype. `gram` computes only the chosen directions, `svd`
    all of them. If `in_place`, W_rest overwrites the weight.

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
    scale_A, scale_B = (values, torch.ones_like(values)) if singular_values == "a" else (values.sqrt(), values.sqrt())
    A, B = (U * scale_A).to(W.dtype), (Vh * scale_B[:, None]).to(W.dtype)
    rest = W if in_place else W.clone()
    singular.add_product(rest, A, B, -1.0)
    return rest, A, B
