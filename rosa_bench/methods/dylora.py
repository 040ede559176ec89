"""DyLoRA: dynamic search-free low-rank adaptation (Valipour et al., arXiv 2210.07558, section 4, algorithm 1).

Trains one LoRA of rank `rank_max` that can be truncated to any lower rank afterwards. Every optimizer step draws one
rank b, shared by all layers, micro-batches and processes. The forward pass uses the first b directions, scaled by
alpha / b. The step updates all b of them, or only direction b with `frozen` (the paper's faster variant, equation 10).
With `loss: sum` a step sums the losses of all ranks instead (table 7).

Differences from the authors' code (huawei-noah/Efficient-NLP, `DyLoRA/loralib`): its AdamW also updates directions
without a gradient, through momentum and weight decay, and decays their moments (`exact_update: false` does the same).
Here a direction's moments and step count advance only in the steps that train it. There, each process draws its own
rank, and evaluation during training uses the last drawn rank; here all processes share a rank and evaluation during
training uses `rank_max`. The authors' GLUE script hard-codes `frozen`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rosa_bench.core.method import Group, Method, Step
from rosa_bench.core.schema import Added, Bias, Count, Share, configured
from rosa_bench.methods.lora import Init, Lora, PeftLora, Target, draw_factors, targets_field
from rosa_bench.system.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from transformers import PreTrainedModel


@configured
class DyLora(PeftLora):
    """Trains one low-rank update per target weight for all ranks from `rank_min` to `rank_max`."""

    rank_min: Count = 1  # lowest rank that a step trains
    rank_max: Count = 8  # R, the highest rank
    distribution: Literal["uniform", "geometric"] = "uniform"  # distribution of the rank drawn in each step
    geometric_p: Annotated[float, Field(gt=0, lt=1)] = 0.15  # success probability of `geometric`, truncated at rank_max
    frozen: bool = False  # a step of rank b updates only direction b, not all up to b; needs rank_min=1
    exact_update: bool = True  # a step changes neither the directions that it does not train nor their optimizer state
    # loss of a step: at the drawn rank, or summed over all ranks
    loss: Annotated[Literal["individual", "sum"], Added("individual")] = "individual"
    alpha: Annotated[float, Field(gt=0)] = 16.0  # the update of rank b is scaled by alpha / b
    dropout: Share = 0.0  # dropout probability on the input of A
    # roles of the adapted weights; `all`: every linear map in the layers
    targets: list[Target] = targets_field("q", "v")
    init: Init = "loralib"  # `loralib`: A uniform in +-1 / sqrt(inputs); `paper`: A normal; B is always zero
    bias: Bias = "none"  # backbone biases to train: none, those of adapted modules, or all
    train_head: bool = True  # whether to train the task head
    # ranks to score (variants r1 ...); the highest is the main one; null: all
    score_ranks: Annotated[Annotated[list[Count], Field(min_length=1)] | None, Added(None)] = None

    lr: ClassVar[Mapping[str, float]] = {"mini": 1e-3, "full_size": 4e-4}
    look: ClassVar[int | None] = 3
    group: ClassVar[Group] = "paper"

    @classmethod
    def size_label(cls, options: Mapping[str, Any]) -> str | None:
        return f"r={options['rank_min']}-{options['rank_max']}"

    @model_validator(mode="after")
    def _ordered(self) -> DyLora:
        if self.rank_min > self.rank_max:
            raise ValueError(f"rank_min={self.rank_min} must not exceed rank_max={self.rank_max}")
        if self.frozen and self.rank_min > 1:
            below = f"rank_min={self.rank_min}"
            raise ValueError(f"frozen=true never trains the directions below {below}; set rank_min=1 or frozen=false")
        if self.loss == "sum" and self.distribution != "uniform":
            reason = "has no effect with loss=sum, which trains all ranks in every step"
            raise ValueError(f"distribution={self.distribution} {reason}; use loss=individual or distribution=uniform")
        for rank in self.score_ranks or []:
            if not self.rank_min <= rank <= self.rank_max or (self.score_ranks or []).count(rank) > 1:
                raise ValueError(f"score_ranks={self.score_ranks} must be distinct ranks from rank_min to rank_max")
        return self

    @property
    def highest_rank(self) -> int:
        return self.rank_max

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone and wrap its target weights. Raises UsageError if the backbone lacks a target's role."""
        from rosa_bench.modules.lowrank import Nested, attach_lowrank

        options: dict[str, Any] = {"alpha": self.alpha, "frozen": self.frozen, "dropout": self.dropout}
        attach_lowrank(model, self, self.rank_max, Nested, **options)
        draw_factors(model, self.init, seed)

    def probabilities(self) -> list[float]:
        """Probabilities with which a step draws each rank from `rank_min` to `rank_max`."""
        count = self.rank_max - self.rank_min + 1
        weights = [1.0 if self.distribution == "uniform" else (1 - self.geometric_p) ** i for i in range(count)]
        return [weight / sum(weights) for weight in weights]

    def rank_at(self, seed: int, index: int) -> int:
        """The rank of an optimizer step, drawn from (seed, step index)."""
        import torch

        offset = torch.multinomial(torch.tensor(self.probabilities()), 1, generator=generator(seed, index))
        return self.rank_min + int(offset)

    def before_step(self, step: Step) -> None:
        from rosa_bench.modules.lowrank import activate

        activate(step.model, self.rank_at(step.seed, step.index))

    @property
    def phases(self) -> int:
        return self.rank_max - self.rank_min + 1

    def phase(self, step: Step) -> int:
        """The step's rank, which sets the shape of the truncated factors."""
        return self.rank_at(step.seed, step.index)

    def optimizer_made(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer one parameter per direction, so that it skips directions that a step does not train."""
        from rosa_bench.modules.lowrank import Directions

        if self.exact_update:
            model.__dict__["_directions"] = Directions(model, optimizer)

    def trained(self, rank: int) -> range:
        """Directions (from 0) that a step of this rank trains; with `loss: sum` every step trains all of them."""
        if self.loss == "sum":
            return range(self.rank_max)
        return range(rank - 1 if self.frozen else 0, rank)

    def before_update(self, step: Step) -> None:
        """Pass the optimizer the gradients of the directions that this step trains."""
        if self.exact_update:
            directions = step.model.__dict__.get("_directions")
            if directions is None or not directions.belong_to(step.optimizer):
                self.optimizer_made(step.model, step.optimizer)
            step.model.__dict__["_directions"].gather(self.trained(self.rank_at(step.seed, step.index)))

    def after_update(self, step: Step) -> None:
        """Copy the updated directions back to the factors and activate `rank_max` for evaluation and saving."""
        from rosa_bench.modules.lowrank import activate

        if self.exact_update:
            step.model.__dict__["_directions"].scatter()
        activate(step.model, self.rank_max)

    def variants(self) -> list[str]:
        """`r1` to `rR`: every trained rank, or those in `score_ranks`."""
        return self.every_variant() if self.score_ranks is None else [f"r{rank}" for rank in sorted(self.score_ranks)]

    def summed_variants(self) -> list[str]:
        """Every trained rank with `loss: sum` (the paper's table 7), else none, since a step draws one rank."""
        return self.every_variant() if self.loss == "sum" else []

    def every_variant(self) -> list[str]:
        return [f"r{rank}" for rank in range(self.rank_min, self.rank_max + 1)]

    def exports(self, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Method, Mapping[str, torch.Tensor]]]:
        """Yield the full adapter, then every rank as a plain LoRA adapter."""
        yield from super().exports(state)
        own = {"rank", "score_ranks"}  # `rank` is set below; a plain LoRA scores no lower ranks
        common = {f.name for f in dataclasses.fields(Lora) if f.name not in own and hasattr(self, f.name)}
        for rank in range(self.rank_min, self.rank_max + 1):
            lora = Lora(rank=rank, **{name: getattr(self, name) for name in common})
            yield f"adapter-r{rank}", lora, {name: _cut(name, tensor, rank) for name, tensor in state.items()}


def _cut(name: str, tensor: torch.Tensor, rank: int) -> torch.Tensor:
    """The first `rank` directions of a factor; other tensors are unchanged."""
    kind = name.split(".")[-2] if "." in name else ""
    return tensor[:, :rank] if kind == "A" else tensor[:rank] if kind == "B" else tensor
