"""LoRA: low-rank adaptation (Hu et al., arXiv 2106.09685, section 4.1).

A frozen weight W gets a trained term of rank r: y = x W + (alpha / r) (x A) B, with A [I, r] and B [r, O]. B starts at
zero, so training starts at the backbone. The paper draws A from a normal distribution; the authors' loralib draws it
uniformly as `nn.Linear` does. Both are here (`init`), loralib's is the default, as every published script used it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.methods.base import Method
from rosa_bench.schema import Count, Share, configured
from rosa_bench.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

Target = Literal["q", "k", "v", "o", "ffn_in", "ffn_out", "all"]


def targets_field(*default: Target) -> Any:
    """A field of target roles with these defaults."""
    return Field(default_factory=lambda: list(default), min_length=1)


@configured
class Lora(Method):
    """Trains a low-rank term beside each target weight, and the task head."""

    rank: Count = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0  # the term is scaled by alpha / rank
    dropout: Share = 0.0  # on the input of A, as in loralib
    targets: list[Target] = targets_field("q", "v")
    init: Literal["loralib", "paper"] = "loralib"
    train_head: bool = True

    lr: ClassVar[Mapping[str, float]] = {"mini": 2e-3, "full_size": 4e-4}

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone and wrap its target weights. Raises UsageError if a target's role is missing."""
        import torch

        from rosa_bench.models.lowrank import attach_lowrank, lowrank_sites
        from rosa_bench.models.sites import find_sites, freeze_backbone

        freeze_backbone(model, self.train_head)
        attach_lowrank(model, find_sites(model, self.targets), self.rank, self.alpha / self.rank, self.dropout)
        for module, site in lowrank_sites(model):
            A = module.A[site.role]
            bound = 1 / math.sqrt(A.shape[0])  # kaiming_uniform(a=sqrt(5)) over I inputs
            drawn = torch.empty(A.shape)
            draw = generator(seed, site.label)
            if self.init == "loralib":
                drawn.uniform_(-bound, bound, generator=draw)
            else:
                drawn.normal_(0.0, bound, generator=draw)
            with torch.no_grad():
                A.copy_(drawn)
