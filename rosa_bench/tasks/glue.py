"""GLUE's nine tasks (Wang et al., arXiv 1804.07461): one text or a pair, with a class or a similarity score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rosa_bench import metrics
from rosa_bench.core.fields import class_field, field, identity_field, number_field
from rosa_bench.core.kind import Kind
from rosa_bench.core.schema import Count, FileName, Name, configured
from rosa_bench.core.task import IGNORED, Encoded, Example, Hub, Prediction, Task
from rosa_bench.errors import UsageError, nearest
from rosa_bench.models.tokens import text_inputs
from rosa_bench.tasks.kinds.classify import KIND as CLASSIFY
from rosa_bench.tasks.kinds.regress import KIND as REGRESS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OF_CLASSES = {"accuracy", "f1", "matthews"}  # metrics that a regression does not have


@configured
class Glue(Task):
    """A GLUE task. Without `labels`, it is a regression over `score_range`."""

    texts: list[str] = Field(min_length=1, max_length=2)  # fields with the text or the pair of texts
    labels: list[str] = Field(default_factory=list)  # class names, in the order of their integer labels
    # lowest and highest label of a regression
    score_range: list[float] = Field(default_factory=lambda: [0.0, 5.0], min_length=2, max_length=2)
    metrics: list[Name] = Field(min_length=1)  # names of metrics in rosa_bench/metrics
    primary: Name
    scored_splits: list[FileName] = Field(default_factory=lambda: ["validation"], min_length=1)
    epochs: Count = 10

    def __post_init__(self) -> None:
        if self.primary not in self.metrics:
            raise ValueError(f"primary={self.primary} is not among metrics={self.metrics}")
        for name in self.metrics:
            if not metrics.exists(name):
                raise ValueError(f"metrics={name[:80]} is not a metric: {nearest(name, metrics.names())}")
            if name in OF_CLASSES and not self.labels:
                raise ValueError(f"metrics={name} needs classes, but a task without labels is a regression")
            if name == "f1" and len(self.labels) != 2:
                raise ValueError(f"metrics=f1 needs two labels, but there are {len(self.labels)}; use accuracy")
        if len(self.labels) == 1:
            raise ValueError("labels must have at least two names, or none for a regression")
        if len(set(self.labels)) < len(self.labels) or len(set(self.texts)) < len(self.texts):
            raise ValueError(f"labels={self.labels} and texts={self.texts} must not repeat a name")
        if not self.score_range[0] < self.score_range[1]:
            raise ValueError(f"score_range={self.score_range} must be [lower, upper]")
        if not self.labels and self.score_range[0] <= IGNORED <= self.score_range[1]:
            marker = f"{IGNORED}, which marks missing labels in training"
            raise ValueError(f"score_range={self.score_range} includes {marker}; rescale the labels")

    @property
    def kind(self) -> Kind:
        return CLASSIFY if self.labels else REGRESS

    @property
    def num_labels(self) -> int:
        return len(self.labels) or 1

    @property
    def label_names(self) -> list[str]:
        return list(self.labels) or super().label_names

    @property
    def classes(self) -> int | None:
        return len(self.labels) or None

    @property
    def hub(self) -> Hub:
        """The GLUE repository, one folder per task."""
        return Hub("nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c", f"{self.name}/{{split}}-*.parquet")

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        label = row.get("label")
        number = float(label) if isinstance(label, int) and not self.labels else label
        return [*(row.get(name) for name in self.texts), number]

    def parse(self, row: Mapping[str, Any], where: str) -> Example:
        """One example. Hidden labels (-1 in the hub's test sets) are rejected like any invalid label.

        One text of a pair may be empty: QQP's training split has two such rows.
        """
        texts = tuple(field(row, name, str, where) for name in self.texts)
        if not any(text.strip() for text in texts):
            raise UsageError(f"{where}: field {self.texts[-1]!r} is empty")
        return Example(identity_field(row, ("id", "idx"), where), texts, self.label(row, where))

    def label(self, row: Mapping[str, Any], where: str) -> int | float:
        """A class, or a score within `score_range`."""
        if self.labels:
            return class_field(row, "label", len(self.labels), where)
        value, (low, high) = number_field(row, "label", where), self.score_range
        if not low <= value <= high:
            raise UsageError(f"{where}: field 'label' is {value:g}, not between {low:g} and {high:g}")
        return value

    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Token ids of the text or pair with the model's special tokens; the longer text of a pair is cut first."""
        tokens = text_inputs(tokenizer, example.texts, max_length, self.row_name(example))
        cut = len(tokens["input_ids"]) == max_length and max_length < len(
            text_inputs(tokenizer, example.texts, max_length + 1, self.row_name(example))["input_ids"]
        )
        return Encoded(tokens["input_ids"], example.label, tokens.get("token_type_ids"), cut=cut)

    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """The official metrics, in points."""
        from rosa_bench.metrics.metric import score_all

        values, labels = [p.value for p in predictions], [p.label for p in predictions if p.label is not None]
        return score_all([metrics.find(name) for name in self.metrics], values, labels)
