"""Regression towards a perturbed model, as in ROSA's `train_synthetic.py`, where the reachable error is known exactly.

A row is a vector x ~ N(0, I) and the true model's outputs for it. The true model is the start model with A B, all
entries N(0, 1), added to every weight, so fine-tuning has to find an update of rank `perturbation`. There is no
noise: full fine-tuning can reach an error of zero, but an update of lower rank cannot (`scripts/rosa_theory.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.fields import class_field, field
from rosa_bench.core.kind import Kind
from rosa_bench.core.schema import NEUTRAL, Count, FileName, Folder, configured
from rosa_bench.core.task import Encoded, Example, Hub, Prediction, Task
from rosa_bench.errors import UsageError
from rosa_bench.system.strict_json import is_number
from rosa_bench.tasks.kinds.regress import KIND

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rosa_bench.models.synthetic import World

Metric = Literal["mse", "r2"]


@configured
class Synthetic(Task):
    """One or two linear layers of the published sizes. Everything is drawn from `world_seed`."""

    name: FileName = "synthetic"
    folder: Annotated[Folder, NEUTRAL] = "synthetic"
    layers: Annotated[int, Field(ge=1, le=2)] = 1  # linear layers of the model
    inputs: Count = 512  # width of the input
    hidden: Count = 64  # width between two layers, followed by a ReLU
    outputs: Count = 32  # width of the output
    perturbation: Count = 24  # rank of the perturbation of every weight
    train_rows: Count = 5000  # rows of the training split
    validation_rows: Count = 1000  # rows of the validation split
    world_seed: int = 42  # seeds the rows, the start model and the true model; a run's `seed` only affects training
    primary: Metric = "mse"
    scored_splits: list[FileName] = Field(default_factory=lambda: ["train", "validation"], min_length=1)
    epochs: Count = 60

    lr: ClassVar[float | None] = 0.02
    builds_model: ClassVar[bool] = True
    backbone: ClassVar[str] = "synthetic"  # the task's own model
    kind: ClassVar[Kind] = KIND  # regression with several outputs

    def __post_init__(self) -> None:
        limit = min(self.inputs, self.outputs, *([self.hidden] if self.layers == 2 else []))
        if self.perturbation > limit:
            raise ValueError(f"perturbation={self.perturbation} is more than the full rank of a weight, {limit}")

    @property
    def num_labels(self) -> int:
        """The outputs of the last layer; there is no separate head."""
        return self.outputs

    def build_model(self, random_init: bool, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The start model, and a tokenizer whose words are row numbers."""
        from rosa_bench.models.synthetic import build

        return build(self.world(), random_init, seed)

    def world(self) -> World:
        """The vectors, labels, start model and true model."""
        from rosa_bench.models.synthetic import world

        widths = (self.inputs, *([self.hidden] if self.layers == 2 else []), self.outputs)
        return world(widths, self.perturbation, self.train_rows + self.validation_rows, self.world_seed)

    @property
    def hub(self) -> Hub:
        """Raises UsageError: rows are generated, not downloaded."""
        raise UsageError("task=synthetic has no hub repository, its rows are generated; use data=embedded")

    def embedded(self, split: str) -> Iterable[Mapping[str, Any]]:
        """The index of a vector, which the model looks up, and the true model's outputs for it."""
        if split not in ("train", "validation"):
            raise ValueError(f"task={self.name} has no split {split!r}; choose from train, validation")
        data = self.world()
        first, last = (0, self.train_rows) if split == "train" else (self.train_rows, len(data.vectors))
        return ({"id": index, "label": data.labels[index].tolist()} for index in range(first, last))

    def parse(self, row: Mapping[str, Any], where: str) -> Example:
        """The index as a text of one token."""
        index = class_field(row, "id", self.train_rows + self.validation_rows, where)
        return Example(str(index), (str(index),), self.label(row, where))

    def label(self, row: Mapping[str, Any], where: str) -> list[float]:
        """One number per output."""
        values = field(row, "label", list, where)
        if len(values) != self.outputs or not all(map(is_number, values)):
            raise UsageError(f"{where}: field 'label' is not a list of {self.outputs} finite numbers")
        return list(map(float, values))

    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """One token, the index of the vector."""
        return Encoded(tokenizer(example.texts[0], add_special_tokens=False)["input_ids"], example.label)

    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """`mse`: mean squared error over rows and outputs; `r2`: explained variance of the labels, in points."""
        from rosa_bench import metrics
        from rosa_bench.metrics.metric import score_all

        values, labels = [p.value for p in predictions], [p.label for p in predictions]
        return score_all([metrics.find(name) for name in ("mse", "r2")], values, labels)
