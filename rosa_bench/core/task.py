"""The base class of tasks: raw rows to examples, examples to tokens, predictions to scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import Self

from rosa_bench.core.fields import class_field
from rosa_bench.core.schema import NEUTRAL, Added, Count, FileName, Folder, configured

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rosa_bench.core.kind import Kind
    from rosa_bench.stats.bootstrap import Statistic
    from rosa_bench.stats.summary import Numbers

TUNE = "tune"  # name of the split that `tune_share` holds out from the training rows
Label = Any  # depends on the task: a class (int), a score (float), a list of outputs; None without a label
IGNORED = -100  # label of a token without a loss, the default ignore_index of torch's cross entropy


@dataclass(frozen=True, slots=True)
class Example:
    """One row as a model sees it: input texts, and a label or reference texts."""

    id: str
    texts: tuple[str, ...]  # a text or a pair; for generation the linearized input, for a choice prompt and choices
    label: Label = None
    references: tuple[str, ...] = ()
    subset: str = ""  # part of the split that is also scored separately


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example. `labels` is its label, or one id per token (-100 for tokens without a loss)."""

    input_ids: list[int]
    labels: Label = None
    token_type_ids: list[int] | None = None
    cut: bool = False  # the input was truncated to the maximum length
    cut_target: bool = False  # the text to generate was truncated too


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's output for one example: a class or score with its logits, several outputs, or a text."""

    id: str
    value: Label
    label: Label = None
    references: tuple[str, ...] = ()
    logits: tuple[float, ...] = ()  # for a choice: log-likelihood of each choice, in nats
    subset: str = ""
    lengths: tuple[int, ...] = ()  # for a choice: characters of each choice


@dataclass(frozen=True)
class Upstream:
    """Files of a public git repository at a pinned commit: path and git blob id by split."""

    repository: str
    revision: str
    files: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Hub:
    """Parquet files of a hub repository at a pinned revision; `files` is a pattern in which {split} is replaced."""

    repository: str
    revision: str
    files: str
    upstream: Upstream | None = None  # used if the hub no longer has the revision


@configured
class Task(ABC):
    """Defines what to learn and how to score it. Subclasses are configuration nodes that extend the common fields."""

    name: FileName  # name in records
    folder: Annotated[Folder, NEUTRAL]  # folder below data.dir that `data=local` reads
    primary: str  # main metric, used to compare runs
    select_split: FileName = "validation"  # split that selects the best epoch: by `primary`, or by loss for generation
    # splits to score at the end of the run
    scored_splits: list[FileName] = Field(default_factory=lambda: ["test"], min_length=1)
    epochs: Count = 3  # number of epochs if train.epochs is null
    version: Count = 1  # incremented when a change to parsing or scoring changes results
    # fraction of the training rows to hold out and score on instead of the evaluation splits; null: none
    tune_share: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Added(None)] = None
    lr: ClassVar[float | None] = None  # replaces the method's learning rate if train.lr is null
    builds_model: ClassVar[bool] = False  # whether `build_model` makes the model, so that none is loaded

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """The kind of prediction: a class, a score, a text or a choice."""

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """Outputs of the task head; 0 if the task uses the language model's own head."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value of `primary` is better."""
        from rosa_bench import metrics

        return metrics.traits(self.primary)[1]

    @property
    def label_names(self) -> list[str]:
        """Names of the task head's outputs, in order."""
        return ["score"] if self.num_labels == 1 else [f"output_{i}" for i in range(self.num_labels)]

    @property
    def classes(self) -> int | None:
        """Number of classes or choices; None if it differs between rows or the task has no classes."""
        return None

    @property
    def backbone(self) -> str:
        """The embedded model that `model=auto` selects."""
        return "roberta_mini" if self.num_labels else "gpt2_mini"

    def build_model(self, random_init: bool, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The task's own model and its tokenizer, if `builds_model`; with `random_init`, weights drawn from `seed`."""
        raise NotImplementedError(f"task={self.name} has no model of its own")

    @property
    def judged_split(self) -> str:
        """The split of the primary score: `select_split` if the task trains a head, else the first scored split."""
        return self.select_split if self.num_labels else self.scored_splits[0]

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that a run reads, the training split first."""
        return tuple(dict.fromkeys(["train", self.select_split, *self.scored_splits]))

    def in_tuning(self) -> Self:
        """The task as it runs with `tune_share`: its only evaluation split is `tune`."""
        if self.tune_share is None:
            return self
        changes: dict[str, Any] = {"select_split": TUNE, "scored_splits": [TUNE]}
        return dataclasses.replace(self, **changes)

    def is_tuning_row(self, example: Example) -> bool:
        """Whether a training row belongs to the split `tune`, by a hash of its texts: repeated inputs stay together."""
        assert self.tune_share is not None
        text = json.dumps(example.texts, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") < self.tune_share * 2**64

    def embedded(self, split: str) -> Iterable[Mapping[str, Any]]:
        """The rows of `data=embedded`."""
        from rosa_bench import embedded

        name = self.folder.rpartition("/")[2]
        return embedded.rows("e2e" if name == "e2e_nlg" else name, split)

    @property
    @abstractmethod
    def hub(self) -> Hub | Upstream:
        """Where `data=hub` finds the rows. Raises UsageError if the data set exists only as a loading script."""

    def from_hub(self, rows: Iterable[Mapping[str, Any]], split: str) -> Iterator[Mapping[str, Any]]:
        """Rows of the hub with the field names of `data=local`; unchanged by default."""
        yield from rows

    def from_upstream(self, content: bytes, split: str) -> Iterator[Mapping[str, Any]]:
        """The rows in an `Upstream` file, with the field names of `data=local`."""
        raise NotImplementedError

    def row_name(self, example: Example) -> str:
        """The name of an example's row in messages."""
        return f"{self.name}: row {example.id}"

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        """The values of a `data=local` row that are compared with the public release."""
        return [value for name, value in sorted(row.items()) if name not in ("id", "idx")]

    @abstractmethod
    def parse(self, row: Mapping[str, Any], where: str) -> Example:
        """The example of one raw row.

        Raises:
            UsageError: if the row is malformed; names `where` and the field.
        """

    def label(self, row: Mapping[str, Any], where: str) -> Label:
        """The label of a row in a file of references, checked as in `parse`. Raises UsageError as `parse` does."""
        return class_field(row, "label", self.classes, where)

    def targets(self, example: Example) -> list[Example]:
        """The training examples of a row: itself, or one example per reference."""
        return [example]

    def pooled(self, examples: Sequence[Example]) -> Sequence[Example]:
        """The examples of an evaluation split, from those of its rows; unchanged by default."""
        return examples

    def loss_targets(self, example: Example) -> list[Example]:
        """The examples whose loss counts for a row of the selection split: itself by default."""
        return [example]

    @abstractmethod
    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Token ids for training, at most `max_length`."""

    @abstractmethod
    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """The task's metrics in the units of the papers. Undefined or unavailable metrics are absent."""

    def score_parts(self, split: str, predictions: Sequence[Prediction]) -> dict[str, Mapping[str, float]]:
        """`score` of the whole split, and of each subset as `<split>_<subset>`."""
        parts = {split: list(predictions)}
        for subset in sorted({p.subset for p in predictions if p.subset}):
            parts[f"{split}_{subset}"] = [p for p in predictions if p.subset == subset]
        return {name: self.score(name, part) for name, part in parts.items()}

    def primary_score(self, split: str, predictions: Sequence[Prediction]) -> float | None:
        """The primary metric only; None if it is undefined."""
        return self.score(split, predictions).get(self.primary)

    def statistic(self, metric: str, predictions: Sequence[Prediction]) -> Statistic:
        """A metric that can be computed on resampled examples, for significance tests.

        Raises:
            NoStatisticError: if the metric is unknown or undefined for these predictions; the message gives the reason.
        """
        from rosa_bench import metrics
        from rosa_bench.stats.bootstrap import NoStatisticError

        try:
            definition = metrics.find(metric)
        except KeyError:
            raise NoStatisticError(f"{metric} is not a metric of predictions and labels") from None
        values, labels = self.columns(predictions, metric)
        return definition.statistic(values, labels)

    def columns(self, predictions: Sequence[Prediction], metric: str) -> tuple[Numbers, Numbers]:
        """Predictions and labels as the metric's input, each [E] or [E, outputs]."""
        import numpy as np

        values, labels = [p.value for p in predictions], [p.label for p in predictions]
        return np.asarray(values, np.float64), np.asarray(labels, np.float64)

    def missing_metrics(self) -> Mapping[str, str]:
        """Metrics that cannot be computed on this machine, each with what to do about it."""
        return {}

    def scoring_facts(self, examples: Sequence[Example]) -> Mapping[str, Any]:
        """Facts for the record about how these examples are scored; empty if the task has only one way."""
        return {}
