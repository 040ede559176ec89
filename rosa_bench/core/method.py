"""The seam every method implements. Light to import: torch and transformers only inside functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task


@dataclass(frozen=True)
class Step:
    """One optimiser step as a method sees it. `index` counts from 0 and continues over epochs and resumes."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    index: int
    per_epoch: int
    seed: int
    total: int | None = None  # optimiser steps of the whole run, where that is known


class PeftAdapter(NamedTuple):
    """What was trained inside a backbone, as `peft` represents it."""

    config: Any  # a `PeftConfig` whose `target_modules` are names of the whole model
    tensors: Mapping[str, torch.Tensor]  # by name, as `peft` saves them
    covered: set[str]  # names of the model's parameters that these tensors represent


class Method(ABC):
    """Turns a backbone into a trainable model. A frozen dataclass: fields are its yaml; state lives in the model.

    `look` is the number of its colour and marker in figures (`rosa_bench.tables.figures.styles`); None: a free one.

    The hooks are called by the one shared trainer at fixed points of an optimiser step. They must be functions of
    `(step.seed, step.index, step.total)` and of the model's tensors alone: that makes a resumed run, and every process
    of a distributed one, do the same. Parameters are never replaced after `attach`; copy into them.
    """

    look: ClassVar[int | None] = None

    @property
    @abstractmethod
    def lr(self) -> Mapping[str, float]:
        """Peak learning rates used where `train.lr` is null, for "mini" and "full_size" backbones."""

    @property
    def mergeable(self) -> bool:
        """Whether `merge` gives a plain `transformers` model."""
        return True

    def without_peft(self, task: Task) -> str | None:
        """Why the trained model cannot become an adapter of `peft`, as the end of "method=NAME ..."; None if it can."""
        return "trains no adapter that peft has"

    @property
    def checkpointable(self) -> bool:
        """Whether gradient checkpointing makes sense."""
        return True

    @property
    def plain_linears(self) -> bool:
        """Whether weights of linear maps are read by matrix products alone, so that they may be cast beforehand."""
        return True

    @property
    def name(self) -> str:
        """What records call it: its module's name."""
        return type(self).__module__.rpartition(".")[2]

    @classmethod
    def size_label(cls, options: Mapping[str, Any]) -> str | None:
        """What sets the method's size, as tables name it ("r=8"), from its options in a record; None if nothing does.

        Raises KeyError if an option is missing.
        """
        return None if options.get("rank") is None else f"r={options['rank']}"

    @property
    def extra_tokens(self) -> int:
        """Positions that the method takes up in front of every sequence."""
        return 0

    @property
    def exact_at_start(self) -> bool:
        """Whether the logits are the backbone's after `attach`."""
        return True

    def check(self, task: Task) -> None:
        """Called before anything is loaded. Raises UsageError for what can be known to be impossible by then."""

    @abstractmethod
    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Change `model` in place and set `requires_grad`; new tensors are drawn from `seed`, not the global stream."""

    def output_factors(self, model: PreTrainedModel) -> Sequence[torch.nn.Parameter]:
        """The B [R, O] of every trained low-rank pair A B, to which `train.lora_plus` gives its rate; else nothing."""
        return []

    def optimizer_made(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
        """Called once when the optimizer exists and has no state yet. May add parameters to its groups."""

    def lr_factor(self, index: int, schedule: Callable[[int], float], per_epoch: int) -> float:
        """The factor on every peak learning rate at a step after the first; `schedule` is the run's own, by step."""
        return schedule(index)

    @property
    def phases(self) -> int:
        """How many different values `phase` has in a run."""
        return 1

    def phase(self, step: Step) -> Hashable:
        """What of a forward pass a step decides by other means than tensors' values, such as a rank or a branch.

        Steps that are alike in it launch the same operations on the same tensors.
        """
        return ()

    def long_before(self, step: Step) -> bool:
        """Whether `before_step` computes for long, so that its time on a device is worth waiting for to measure it."""
        return False

    def before_step(self, step: Step) -> None:
        """Called once before the forward pass of an optimiser step, before its first micro-batch."""

    def before_update(self, step: Step) -> None:
        """Called between the clipping of gradients and the optimiser's update."""

    def after_update(self, step: Step) -> None:
        """Called after the optimiser's update, before anything is evaluated or saved."""

    def moved(self, model: PreTrainedModel) -> set[str]:
        """Names of parameters that change in training although they require no gradient; checkpoints hold them."""
        return set()

    def variants(self) -> list[str]:
        """Names of the ways in which the trained model is scored, the main one last. The plain one is ''."""
        return [""]

    def summed_variants(self) -> list[str]:
        """Variants whose losses a step sums, each in a pass of its own; none: one pass of the model as it is."""
        return []

    def every_variant(self) -> list[str]:
        """Names of all ways in which the trained model can act, whether a run scores them or not."""
        return self.variants()

    def active(self, model: PreTrainedModel, variant: str) -> AbstractContextManager[None]:
        """A context in which the model is the variant of this name; it can be entered again and again."""
        return nullcontext()

    def exports(self, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Method, Mapping[str, torch.Tensor]]]:
        """What `save=adapter` writes of the trained tensors: folder names, the method that loads each, its tensors."""
        yield "adapter", self, state

    def to_peft(self, model: PreTrainedModel, backbone: PreTrainedModel, seed: int) -> PeftAdapter:
        """The variant that is active, as an adapter of `peft`; `backbone` is the model before `attach(..., seed)`.

        Called where `without_peft` is None. Raises UsageError if `peft` is not installed.
        """
        raise NotImplementedError(f"method={self.name} has no adapter of peft")

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """Numbers only the method knows, for the record; `batch` is one of training. What is not measured is absent."""
        return {}


def tally(model: PreTrainedModel) -> dict[str, float]:
    """Counts that a method keeps over a run, such as its re-factorisations; checkpoints hold them."""
    counts: dict[str, float] = model.__dict__.setdefault("_tally", {})
    return counts
