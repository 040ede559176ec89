"""LoRA: low-rank adaptation (Hu et al., arXiv 2106.09685, section 4.1).

Adds a trained update of rank r to a frozen weight W: y = x W + (alpha / r) (x A) B, with A [I, r] and B [r, O]. B
starts at zero, so training starts at the backbone. The paper draws A from a normal distribution; the authors' loralib
draws it uniformly, as `nn.Linear` does. `init` selects either; the default is loralib's, which every published script
used.

`score_ranks` also scores the trained update truncated to its first directions. These are the rows "LoRA@r1" of DyLoRA's
tables, which show how much LoRA loses when it is truncated without having been trained for that.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rosa_bench.core.method import Group, Method, PeftAdapter
from rosa_bench.core.schema import Added, Bias, Count, Share, configured
from rosa_bench.system.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task

Target = Literal["q", "k", "v", "o", "ffn_in", "ffn_out", "all"]
Init = Literal["loralib", "paper"]


def targets_field(*default: Target) -> Any:
    """A field of target roles with the given defaults."""
    return Field(default_factory=lambda: list(default), min_length=1)


class LowRankMethod(Method):
    """Base of the methods that train factors A and B for each target weight."""

    def output_factors(self, model: PreTrainedModel) -> list[torch.nn.Parameter]:
        """The B of every adapted weight."""
        from rosa_bench.modules.lowrank import lowrank_sites

        return [module.B[site.role] for module, site in lowrank_sites(model)]

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """Number of weights that `targets=[all]` skipped, if any, by name with `*` for numbers."""
        skipped = model.__dict__.get("skipped_weights")
        return {"skipped_weights": skipped} if skipped else {}


class RestartedMethod(LowRankMethod):
    """Base of the methods that change the frozen weights and restart at the beginning of every period."""

    every_epochs: float
    every_steps: int | None

    def moved(self, model: PreTrainedModel) -> set[str]:
        """Names of the frozen weights under the adapters."""
        from rosa_bench.modules.lowrank import LowRank

        return {f"{name}.base.weight" for name, module in model.named_modules() if isinstance(module, LowRank)}

    def period(self, per_epoch: int) -> int:
        """Optimizer steps per period."""
        return self.every_steps or max(1, round(self.every_epochs * per_epoch))


class PeftLora(LowRankMethod):
    """Base of the methods whose trained model is a `peft` LoRA. Their variants (`r1` ...) truncate it to a rank."""

    dropout: float

    @property
    @abstractmethod
    def highest_rank(self) -> int:
        """The rank of the plain variant."""

    @contextmanager
    def active(self, model: PreTrainedModel, variant: str) -> Iterator[None]:
        """Context manager that truncates the model to the rank of a variant."""
        from rosa_bench.modules.lowrank import activate

        activate(model, int(variant[1:]) if variant else self.highest_rank)
        try:
            yield
        finally:
            activate(model, self.highest_rank)

    def without_peft(self, task: Task) -> str | None:
        """None: every variant can be exported."""
        return None

    def to_peft(self, model: PreTrainedModel, backbone: PreTrainedModel, seed: int) -> PeftAdapter:
        """Export the active rank as a LoRA."""
        from rosa_bench.methods.peft import library
        from rosa_bench.modules.lowrank import to_peft

        library()
        return to_peft(model, backbone, self.dropout)


@configured
class Lora(PeftLora):
    """Trains a low-rank update of each target weight and the task head."""

    rank: Count = 8  # R, the rank of every update
    alpha: Annotated[float, Field(gt=0)] = 16.0  # the update is scaled by alpha / rank
    dropout: Share = 0.0  # dropout probability on the input of A, as in loralib
    # roles of the adapted weights; `all`: every linear map in the layers
    targets: list[Target] = targets_field("q", "v")
    fused: Annotated[bool, Added(False)] = False  # adapt a fused q, k, v projection (GPT-2's c_attn) as one weight
    init: Init = "loralib"  # `loralib`: A uniform in +-1 / sqrt(inputs); `paper`: A normal; B is always zero
    bias: Bias = "none"  # backbone biases to train: none, those of adapted modules, or all
    train_head: bool = True  # whether to train the task head
    score_ranks: Annotated[list[Count] | None, Added(None)] = None  # lower ranks to score too (variants r1 ...)
    score_scale: Annotated[Literal["trained", "rank"], Added("trained")] = (
        "trained"  # whether to divide alpha by the trained or by the scored rank
    )

    lr: ClassVar[Mapping[str, float]] = {"mini": 2e-3, "full_size": 4e-4}
    look: ClassVar[int | None] = 1
    group: ClassVar[Group] = "paper"

    @model_validator(mode="after")
    def _below_rank(self) -> Lora:
        if any(rank > self.rank for rank in self.score_ranks or ()):
            raise ValueError(f"score_ranks={self.score_ranks} must not exceed rank={self.rank}")
        return self

    @property
    def highest_rank(self) -> int:
        return self.rank

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone and wrap its target weights. Raises UsageError if the backbone lacks a target's role."""
        from rosa_bench.modules.lowrank import Nested, attach_lowrank

        scale = self.alpha / self.rank
        if self.score_ranks is None:
            attach_lowrank(model, self, self.rank, fused=self.fused, scale=scale, dropout=self.dropout)
        else:
            fixed_scale = scale if self.score_scale == "trained" else None
            options: dict[str, Any] = {"alpha": self.alpha, "fixed_scale": fixed_scale, "dropout": self.dropout}
            attach_lowrank(model, self, self.rank, Nested, self.fused, **options)
        draw_factors(model, self.init, seed)

    def variants(self) -> list[str]:
        """The plain variant, or one (`r1` ...) per rank in `score_ranks`, ending with the trained rank."""
        if self.score_ranks is None:
            return super().variants()
        return [f"r{rank}" for rank in sorted({*self.score_ranks, self.rank})]


def draw_factors(model: PreTrainedModel, init: Init, seed: int) -> None:
    """Draw every A from (seed, site); B stays zero.

    `loralib` uses kaiming_uniform(a=sqrt(5)), which is uniform in +-1/sqrt(I). `paper` uses a normal distribution with
    standard deviation 1/sqrt(I); the paper specifies none.
    """
    import torch

    from rosa_bench.modules.lowrank import lowrank_sites

    for module, site in lowrank_sites(model):
        A = module.A[site.role]
        bound = 1 / math.sqrt(A.shape[0])
        values = torch.empty(A.shape)
        stream = generator(seed, site.label)
        if init == "loralib":
            values.uniform_(-bound, bound, generator=stream)
        else:
            values.normal_(0.0, bound, generator=stream)
        with torch.no_grad():
            A.copy_(values)
