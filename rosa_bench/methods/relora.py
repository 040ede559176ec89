"""ReLoRA: LoRA with merges and restarts (Lialin et al., arXiv 2307.05695, section 3).

Every N steps the low-rank update is merged into the weight and restarted: A is drawn again and B is set to zero, so the
model's function does not change. Most of Adam's moments of A and B are zeroed, since they belong to the merged update,
and the learning rate drops to zero and warms up to the run's schedule again. The sum of the updates can reach any rank.
Shapes: I inputs, O outputs, R rank.

Differences from the authors' code (github.com/Guitaricet/relora): it restarts one step later, after the step whose
learning rate is zero; until the first restart both A and B are zero, so neither factor trains in the first period; its
cosine schedule ends at a tenth of the peak; and it prunes the two moments independently, which leaves first moments
without a second moment. The paper's warm start is a full fine-tuning run: `start=RUN`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.method import Step, tally
from rosa_bench.core.schema import Added, Bias, Count, Share, configured
from rosa_bench.errors import UsageError
from rosa_bench.methods.lora import Init, RestartedMethod, Target, draw_factors, targets_field
from rosa_bench.system.seeds import derive, generator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from transformers import PreTrainedModel


@configured
class ReLora(RestartedMethod):
    """Trains a low-rank update of each target weight and merges it every `every_epochs` (or `every_steps`)."""

    rank: Count = 8  # R, the rank of the update between two restarts
    alpha: Annotated[float, Field(gt=0)] = 16.0  # the update is scaled by alpha / rank
    dropout: Share = 0.0  # dropout probability on the input of A
    # roles of the adapted weights; `all`: every linear map in the layers
    targets: list[Target] = targets_field("q", "k", "v", "o")
    fused: Annotated[bool, Added(False)] = False  # adapt a fused q, k, v projection (GPT-2's c_attn) as one weight
    every_epochs: Annotated[float, Field(gt=0)] = 1.0  # epochs between restarts
    every_steps: Count | None = None  # optimizer steps between restarts; overrides every_epochs
    # warm-up after a restart; below 1: fraction of a period; else number of steps
    restart_warmup: Annotated[float, Field(ge=0, le=2**53)] = 0.1
    moments: Literal["magnitude", "random", "reset", "keep"] = "magnitude"  # which moments of A and B a restart zeroes
    pruned: Annotated[float, Field(gt=0, lt=1)] = 0.9  # fraction zeroed by `magnitude` and `random`
    init: Init = "loralib"  # `loralib`: A uniform in +-1 / sqrt(inputs); `paper`: A normal; B is always zero
    bias: Bias = "none"  # backbone biases to train: none, those of adapted modules, or all
    train_head: bool = True  # whether to train the task head

    lr: ClassVar[Mapping[str, float]] = {"mini": 2e-3, "full_size": 4e-4}

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone and wrap its target weights. Raises UsageError if the backbone lacks a target's role."""
        from rosa_bench.modules.lowrank import attach_lowrank

        attach_lowrank(model, self, self.rank, fused=self.fused, scale=self.alpha / self.rank, dropout=self.dropout)
        draw_factors(model, self.init, seed)

    def lr_factor(self, index: int, schedule: Callable[[int], float], per_epoch: int) -> float:
        """Zero at a restart, then a linear warm-up to the schedule's value at the end of the warm-up."""
        period = self.period(per_epoch)
        warmup = round(self.restart_warmup * period) if self.restart_warmup < 1 else int(self.restart_warmup)
        position = index % period
        if index < period or position >= warmup:
            return schedule(index)
        return position / warmup * schedule(index - position + warmup)

    def before_step(self, step: Step) -> None:
        """Restart at the start of every period except the first."""
        if step.index == 0 or step.index % self.period(step.per_epoch):
            return
        self.merge(step.model, step.seed, step.index)
        self.reset_moments(step)

    def merge(self, model: PreTrainedModel, seed: int, index: int) -> None:
        """Merge every update into its weight, draw A from (seed, step index, site) and set B to zero."""
        from rosa_bench.modules.lowrank import lowrank_sites
        from rosa_bench.modules.singular import add_product
        from rosa_bench.system.distributed import copy_from_first

        for module, site in lowrank_sites(model):
            W, A, B = module.weight_of(site).data, module.A[site.role].data, module.B[site.role].data
            add_product(W, A, B, module.scale)
            B.zero_()
            copy_from_first([W])
            if site.groups > 1:  # otherwise W is a view of the weight
                module.set_weight(site, W)
        draw_factors(model, self.init, derive(seed, "restart", index))
        counts = tally(model)
        counts["restarts"] = counts.get("restarts", 0) + 1

    def reset_moments(self, step: Step) -> None:
        """Prune or drop the optimizer state of every A and B, as `moments` selects.

        First moments without a second moment are zeroed too: A has no gradient while B is zero, so the next update
        would divide them by Adam's epsilon alone. Raises UsageError for quantized moments, in which zero is arbitrary.
        """
        import torch

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
                        if type(value) is not torch.Tensor or not value.is_floating_point():
                            raise UsageError(
                                f"method.moments={self.moments} cannot prune the quantized state of this "
                                "train.optimizer; use method.moments=reset or another optimizer"
                            )
                        draw = generator(step.seed, step.index, site.label, name)  # same elements in both moments
                        prune(value, self.pruned, draw if self.moments == "random" else None)
                if "exp_avg_sq" in state:
                    state["exp_avg"].mul_(state["exp_avg_sq"] != 0)

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """The number of restarts, and the weights that `targets=[all]` skipped."""
        return tally(model) | dict(super().facts(model, batch))


def prune(tensor: torch.Tensor, share: float, draw: torch.Generator | None = None) -> None:
    """Zero a share of a tensor's elements in place: those of smallest magnitude, or random ones if `draw` is given."""
    import torch

    if draw is not None:
        tensor.mul_((torch.rand(tensor.shape, generator=draw) > share).to(tensor.device))
        return
    magnitude = tensor.abs()
    ranked = magnitude.flatten().sort().values  # torch.quantile refuses more than 2^24 elements
    tensor.mul_(magnitude > ranked[int(share * (len(ranked) - 1))])
