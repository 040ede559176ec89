"""ReLoRA: LoRA that is merged and restarted (Lialin et al., arXiv 2307.05695, section 3).

Every N steps the low-rank term is folded into the weight and a new one begins: A is drawn again, B is zero, so that the
model's function does not change. Adam's moments of A and B are mostly zeroed, as they belong to the old term, and the
learning rate drops to zero and warms up to the run's schedule again. The sum of the terms can reach any rank. Shapes: I
inputs, O outputs, R rank.

Where the authors' code (github.com/Guitaricet/relora) differs: it restarts one step later, after the step whose rate is
zero; A is zero until the first restart, where B is zero too, so that no factor trains in the first period; its cosine
ends at a tenth of the peak; and it prunes the two moments each by itself, which leaves first moments without a second
one. The paper's warm start is a run of full fine-tuning: `start=RUN`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.method import Method, Step, tally
from rosa_bench.core.schema import Added, Bias, Count, Share, configured
from rosa_bench.methods.lora import Init, Target, draw_factors, targets_field
from rosa_bench.system.seeds import derive, generator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from transformers import PreTrainedModel


@configured
class ReLora(Method):
    """Trains a low-rank term beside each target weight and folds it in every `every_epochs` (or `every_steps`)."""

    rank: Count = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0  # the term is scaled by alpha / rank
    dropout: Share = 0.0  # on the input of A
    targets: list[Target] = targets_field("q", "k", "v", "o")
    fused: Annotated[bool, Added(False)] = False  # a fused map of q, k and v (GPT-2's c_attn) as one matrix
    every_epochs: Annotated[float, Field(gt=0)] = 1.0
    every_steps: Count | None = None  # wins over every_epochs
    restart_warmup: Annotated[float, Field(ge=0, le=2**53)] = 0.1  # below 1 a share of a period, else steps
    moments: Literal["magnitude", "random", "reset", "keep"] = "magnitude"  # which of A's and B's a restart zeroes
    pruned: Annotated[float, Field(gt=0, lt=1)] = 0.9  # share zeroed under `magnitude` and `random`
    init: Init = "loralib"
    bias: Bias = "none"  # which biases of the backbone train: none, those of adapted modules, all
    train_head: bool = True

    lr: ClassVar[Mapping[str, float]] = {"mini": 2e-3, "full_size": 4e-4}

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone and wrap its target weights. Raises UsageError if a target's role is missing."""
        from rosa_bench.modules.lowrank import attach_lowrank

        attach_lowrank(model, self, self.rank, fused=self.fused, scale=self.alpha / self.rank, dropout=self.dropout)
        draw_factors(model, self.init, seed)

    def moved(self, model: PreTrainedModel) -> set[str]:
        """Restarts change the frozen weights of adapted modules."""
        from rosa_bench.modules.lowrank import LowRank

        return {f"{name}.base.weight" for name, module in model.named_modules() if isinstance(module, LowRank)}

    def output_factors(self, model: PreTrainedModel) -> list[torch.nn.Parameter]:
        """Every B."""
        from rosa_bench.modules.lowrank import output_factors

        return output_factors(model)

    def period(self, per_epoch: int) -> int:
        """Optimiser steps between two restarts."""
        return self.every_steps or max(1, round(self.every_epochs * per_epoch))

    def lr_factor(self, index: int, schedule: Callable[[int], float], per_epoch: int) -> float:
        """Zero at a restart, then a straight line to where the schedule is when the warm-up ends."""
        period = self.period(per_epoch)
        warmup = round(self.restart_warmup * period) if self.restart_warmup < 1 else int(self.restart_warmup)
        done = index % period
        if index < period or done >= warmup:
            return schedule(index)
        return done / warmup * schedule(index - done + warmup)

    def before_step(self, step: Step) -> None:
        """Restart when a period begins; the first one begins with `attach`."""
        if step.index == 0 or step.index % self.period(step.per_epoch):
            return
        self.merge(step.model, step.seed, step.index)
        self.reset_moments(step)

    def merge(self, model: PreTrainedModel, seed: int, index: int) -> None:
        """Fold every term into its weight, draw A from (seed, step index, site) and zero B."""
        from rosa_bench.modules.lowrank import lowrank_sites
        from rosa_bench.modules.singular import add_product
        from rosa_bench.system.distributed import copy_from_first

        for module, site in lowrank_sites(model):
            W, A, B = module.weight_of(site).data, module.A[site.role].data, module.B[site.role].data
            add_product(W, A, B, module.scale)
            B.zero_()
            copy_from_first([W])
        draw_factors(model, self.init, derive(seed, "restart", index))
        counts = tally(model)
        counts["restarts"] = counts.get("restarts", 0) + 1

    def reset_moments(self, step: Step) -> None:
        """Zero part of what the optimiser holds of A and B, or drop it, tensor by tensor.

        A first moment without its second one is zeroed too: while B is zero A has no gradient, so that an update would
        divide by Adam's epsilon alone.
        """
        from rosa_bench.modules.lowrank import lowrank_sites

        if self.moments == "keep":
            return
        for module, site in lowrank_sites(step.model):
            for name, factors in (("A", module.A), ("B", module.B)):
                factor = factors[site.role]
                if self.moments == "reset":
                    step.optimizer.state.pop(factor, None)
                    continue
                state = step.optimizer.state.get(factor, {})
                for value in state.values():
                    if getattr(value, "shape", None) == factor.shape:
                        draw = generator(step.seed, step.index, site.label, name)  # the same elements of both moments
                        prune(value, self.pruned, draw if self.moments == "random" else None)
                if "exp_avg_sq" in state:
                    state["exp_avg"].mul_(state["exp_avg_sq"] != 0)

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, float]:
        """How often the term was merged and started again."""
        return dict(tally(model))


def prune(tensor: torch.Tensor, share: float, draw: torch.Generator | None = None) -> None:
    """Zero a share of a tensor's elements in place: the smallest in magnitude, or with `draw` random ones."""
    import torch

    if draw is not None:
        tensor.mul_((torch.rand(tensor.shape, generator=draw) > share).to(tensor.device))
        return
    magnitude = tensor.abs()
    tensor.mul_(magnitude > torch.quantile(magnitude.flatten().float(), share))
