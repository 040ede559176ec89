"""The base class of methods. Imports torch and transformers only inside functions, to import quickly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task

Group = Literal["paper", "baseline", "other"]  # in tables: a reproduced paper's method, a baseline, or another


@dataclass(frozen=True)
class Step:
    """One optimizer step as a method sees it. `index` counts from 0 and continues across epochs and resumes."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    index: int
    per_epoch: int
    seed: int
    total: int | None = None  # optimizer steps of the whole run, if known
    skipped: bool = False  # in `after_update`: whether fp16 gradients overflowed, so that nothing was updated


class PeftAdapter(NamedTuple):
    """What was trained inside a backbone, as `peft` represents it."""

    config: Any  # a `PeftConfig` whose `target_modules` are names of the whole model
    tensors: Mapping[str, torch.Tensor]  # by name, as `peft` saves them
    covered: set[str]  # names of the model's parameters that these tensors represent


class Method(ABC):
    """Turns a backbone into a trainable model. A frozen dataclass whose fields are yaml keys; state lives in the model.

    `look` is the index of its color and marker in figures (`rosa_bench.tables.figures.styles`); None picks a free one.
    `group` is the part of a table that lists it. Figures over rank show a `reference` as a horizontal line.

    The trainer calls the hooks at fixed points of an optimizer step. A hook may depend only on
    `(step.seed, step.index, step.total)` and the model's tensors, so that resumed runs and all processes of
    a distributed run compute the same result. After `attach`, parameters are never replaced; copy into them.
    """

    look: ClassVar[int | None] = None
    group: ClassVar[Group] = "other"
    reference: ClassVar[bool] = False
    plain_linears: ClassVar[bool] = True  # only matrix products read linear weights, so they may be cast in advance

    @property
    @abstractmethod
    def lr(self) -> Mapping[str, float]:
        """Peak learning rates for "mini" and "full_size" backbones, used if `train.lr` is null."""

    @property
    def mergeable(self) -> bool:
        """Whether `merge` gives a plain `transformers` model."""
        return True

    def without_peft(self, task: Task) -> str | None:
        """Why the trained model cannot become a `peft` adapter, as a phrase after "method=NAME"; None if it can."""
        return "trains no adapter that peft supports"

    @property
    def checkpointable(self) -> bool:
        """Whether gradient checkpointing is supported and useful."""
        return True

    @property
    def name(self) -> str:
        """The name in records, taken from the module."""
        return type(self).__module__.rpartition(".")[2]

    @classmethod
    def size_label(cls, options: Mapping[str, Any]) -> str | None:
        """The setting that determines the method's size, as tables print it ("r=8"); None if there is no such setting.

        Args:
            options: the method's options in a record.

        Raises:
            KeyError: if an option is missing.
        """
        return None if options.get("rank") is None else f"r={options['rank']}"

    @property
    def extra_tokens(self) -> int:
        """Number of positions that the method adds in front of every sequence."""
        return 0

    @property
    def exact_at_start(self) -> bool:
        """Whether the logits after `attach` equal the backbone's."""
        return True

    def check(self, task: Task) -> None:
        """Called before anything is loaded. Raises UsageError if the method cannot work with the task."""

    @abstractmethod
    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Change `model` in place and set `requires_grad`. New tensors are drawn from `seed`, not the global stream."""

    def output_factors(self, model: PreTrainedModel) -> Sequence[torch.nn.Parameter]:
        """B [R, O] of every trained low-rank pair A B; `train.lora_plus` multiplies its learning rate."""
        return []

    def optimizer_made(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
        """Called once after the optimizer is created, before it has state. May add parameters to its groups."""

    def lr_factor(self, index: int, schedule: Callable[[int], float], per_epoch: int) -> float:
        """The factor on every peak learning rate at step `index` >= 1; `schedule` gives the run's own factor."""
        return schedule(index)

    @property
    def phases(self) -> int:
        """Number of distinct values of `phase` in a run."""
        return 1

    def phase(self, step: Step) -> Hashable:
        """What determines the forward pass of a step besides tensor values, such as a rank or a branch.

        Steps of equal phase launch the same operations on the same tensors.
        """
        return ()

    def long_before(self, step: Step) -> bool:
        """Whether `before_step` takes long enough that timing it is worth a device synchronization."""
        return False

    def before_step(self, step: Step) -> None:
        """Called once per optimizer step, before the forward pass of its first micro-batch."""

    def before_update(self, step: Step) -> None:
        """Called after gradient clipping, before the optimizer's update."""

    def after_update(self, step: Step) -> None:
        """Called after the optimizer's update, before anything is evaluated or saved."""

    def moved(self, model: PreTrainedModel) -> set[str]:
        """Names of parameters that training changes although they require no gradient; checkpoints hold them."""
        return set()

    def variants(self) -> list[str]:
        """Names of the variants in which the trained model is scored, the main one last. The plain model is ''."""
        return [""]

    def summed_variants(self) -> list[str]:
        """Variants whose losses a step sums, one forward pass each; empty for one pass of the plain model."""
        return []

    def every_variant(self) -> list[str]:
        """Names of all variants of the trained model, including those that a run does not score."""
        return self.variants()

    def active(self, model: PreTrainedModel, variant: str) -> AbstractContextManager[None]:
        """A reusable context in which the model acts as `variant`."""
        return nullcontext()

    def exports(self, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Method, Mapping[str, torch.Tensor]]]:
        """What `save=adapter` writes: for each folder its name, the method that loads it, and its trained tensors."""
        yield "adapter", self, state

    def to_peft(self, model: PreTrainedModel, backbone: PreTrainedModel, seed: int) -> PeftAdapter:
        """The active variant as a `peft` adapter; `backbone` is the model before `attach(..., seed)`.

        Called only if `without_peft` returns None. Raises UsageError if `peft` is not installed.
        """
        raise NotImplementedError(f"method={self.name} does not export to peft")

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """Measurements of the method for the record; `batch` is a training batch. Omit what was not measured."""
        return {}


def tally(model: PreTrainedModel) -> dict[str, float]:
    """Counts that a method accumulates over a run, such as re-factorizations; checkpoints hold them."""
    counts: dict[str, float] = model.__dict__.setdefault("_tally", {})
    return counts
