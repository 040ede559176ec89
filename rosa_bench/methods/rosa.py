"""ROSA: random subspace adaptation (Hameed et al., arXiv 2407.07802, and its 2023 workshop version).

Every K steps each adapted weight W is split as W = W_rest + A B, where A B holds R of the singular directions of W,
chosen at random, and W_rest all others. Only A and B train, until the next split takes in what they learned: the
product never changes at a split, and over time the update can reach any rank. Shapes: I inputs, O outputs, R rank.

Where the authors' code differs: its random subspace is a contiguous block of directions that never holds the last one
(`sample: window`), it leaves the task head frozen (`train_head: false`), and its data-to-text script restarts the
learning-rate schedule at every split. Here the subset is uniform, the head trains and the schedule runs through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from rosa_bench.methods.base import Method, Step
from rosa_bench.methods.lora import Target, targets_field
from rosa_bench.schema import Count, configured
from rosa_bench.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel

Sample = Literal["random", "top", "bottom", "window"]


@configured
class Rosa(Method):
    """Trains R singular directions of each target weight, drawn anew every `every_epochs` (or `every_steps`)."""

    rank: Count | Annotated[float, Field(gt=0, lt=1)] = 8  # a float is a share of each weight's full rank
    targets: list[Target] = targets_field("q", "k", "v", "o")
    every_epochs: Annotated[float, Field(gt=0)] = 1.0
    every_steps: Count | None = None  # wins over every_epochs
    sample: Sample = "random"
    moments: Literal["reset", "keep"] = "reset"  # Adam's state of A and B at a new split
    train_head: bool = True

    lr: ClassVar[Mapping[str, float]] = {"mini": 1e-3, "full_size": 4e-4}

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone, wrap its target weights and split them for the first time."""
        from rosa_bench.models.lowrank import attach_lowrank
        from rosa_bench.models.sites import find_sites, freeze_backbone

        freeze_backbone(model, self.train_head)
        attach_lowrank(model, find_sites(model, self.targets), self.rank)
        self.split(model, seed, 0)

    def moved(self, model: PreTrainedModel) -> set[str]:
        """The frozen rest of every adapted weight changes at a split."""
        from rosa_bench.models.lowrank import LowRank

        return {f"{name}.base.weight" for name, module in model.named_modules() if isinstance(module, LowRank)}

    def period(self, steps_per_epoch: int) -> int:
        """Optimiser steps between two splits."""
        return self.every_steps or max(1, round(self.every_epochs * steps_per_epoch))

    def before_step(self, step: Step) -> None:
        """Split every weight anew when a period begins; `attach` has done it for step 0."""
        if step.index == 0 or step.index % self.period(step.per_epoch):
            return
        self.split(step.model, step.seed, step.index)
        if self.moments == "reset":
            from rosa_bench.models.lowrank import lowrank_sites

            for module, site in lowrank_sites(step.model):
                step.optimizer.state.pop(module.A[site.role], None)
                step.optimizer.state.pop(module.B[site.role], None)

    def split(self, model: PreTrainedModel, seed: int, index: int) -> None:
        """Fold A B into every adapted weight and take out new directions, drawn from (seed, step index, site)."""
        from rosa_bench.models.lowrank import lowrank_sites

        for module, site in lowrank_sites(model):
            A, B, W = module.A[site.role].data, module.B[site.role].data, module.weight_of(site).data
            parts = factorize(W + A @ B, A.shape[1], generator(seed, index, site.label), self.sample)
            for old, new in zip((W, A, B), parts, strict=True):
                old.copy_(new)


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
    W_IO: torch.Tensor, rank: int, generator: torch.Generator, sample: Sample = "random"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split a weight by singular directions: W_IO = W_rest_IO + A_IR @ B_RO to float precision (paper, algorithm 1).

    A holds the chosen left directions times their singular values, B the right ones. Computed in fp64 and returned in
    the weight's dtype, with W_rest rounded so that the sum is exact to that dtype.

    Raises:
        ValueError: if rank is not in 1..min(I, O), or the weight is not finite.
    """
    import torch

    full = min(W_IO.shape)
    if not 1 <= rank <= full:
        raise ValueError(f"rank={rank} is not in 1..{full}, the full rank of a {tuple(W_IO.shape)} weight")
    W = W_IO.detach().double()
    if not torch.isfinite(W).all():
        raise ValueError("the weight has values that are not finite")
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    index = choose(full, rank, generator, sample).to(W.device)
    A = (U[:, index] * S[index]).to(W_IO.dtype)
    B = Vh[index].to(W_IO.dtype)
    rest = (W - A.double() @ B.double()).to(W_IO.dtype)
    return rest, A, B
