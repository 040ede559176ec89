"""The seam every task implements: raw rows to examples, examples to tokens, predictions to scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rosa_bench.core.fields import class_field

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rosa_bench.core.kind import Kind
    from rosa_bench.stats.bootstrap import Statistic
    from rosa_bench.stats.summary import Numbers

Label = Any  # of its task: a class (int), a score (float), a list of outputs; None where there is none
IGNORED = -100  # label of a token that carries no loss, as torch's cross entropy has it


@dataclass(frozen=True, slots=True)
class Example:
    """One row as a model sees it: texts to read, and a label or reference texts to be compared with."""

    id: str
    texts: tuple[str, ...]  # one text or a pair; for generation the linearised input, for a choice prompt and choices
    label: Label = None
    references: tuple[str, ...] = ()
    subset: str = ""  # of its split, scored on its own beside the whole


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example. `labels` is its label, or one id per token (-100 where no loss is wanted)."""

    input_ids: list[int]
    labels: Label = None
    token_type_ids: list[int] | None = None
    cut: bool = False  # the text was longer than the maximum length
    cut_target: bool = False  # even what is to be generated was


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said of one example: a class or score with its logits, several outputs, or a text."""

    id: str
    value: Label
    label: Label = None
    references: tuple[str, ...] = ()
    logits: tuple[float, ...] = ()  # of a choice: the log-likelihood of each, in nats
    subset: str = ""
    lengths: tuple[int, ...] = ()  # of a choice: the characters of each


@dataclass(frozen=True)
class Upstream:
    """Files of a public git repository at a pinned commit; for each split the path and git's id of the file."""

    repository: str
    revision: str
    files: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Hub:
    """Parquet files of a public repository at a pinned revision; `files` is a pattern with a place for the split."""

    repository: str
    revision: str
    files: str
    upstream: Upstream | None = None  # used if the hub no longer has the revision


class Task(ABC):
    """What to learn and how it is scored. Subclasses are configuration nodes; fields below are common to all."""

    name: str
    folder: str  # where `data=local` looks, below data.dir
    primary: str  # the metric a run is judged by
    select_split: str  # the split on which the best epoch is chosen
    scored_splits: list[str]
    epochs: int  # used where train.epochs is null
    version: int  # raised when a change of parsing or scoring changes results
    higher_is_better: ClassVar[bool] = True
    lr: ClassVar[float | None] = None  # used in place of the method's where train.lr is null

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What a model does for it."""

    @property
    @abstractmethod
    def num_labels(self) -> int:
        """Outputs of the task head; 0 where the language model's own head speaks."""

    @property
    def label_names(self) -> list[str]:
        """What the outputs of the task head are called, in their order."""
        return ["score"] if self.num_labels == 1 else [f"output_{i}" for i in range(self.num_labels)]

    @property
    def classes(self) -> int | None:
        """How many classes or choices there are to choose from; None where it differs from row to row, or is none."""
        return None

    @property
    def backbone(self) -> str:
        """The embedded model that `model=auto` means."""
        return "roberta_mini" if self.num_labels else "gpt2_mini"

    @property
    def judged_split(self) -> str:
        """The split whose primary score stands for a run: the selection split where a task head is trained."""
        return self.select_split if self.num_labels else self.scored_splits[0]

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split a run reads, the training split first."""
        return tuple(dict.fromkeys(["train", self.select_split, *self.scored_splits]))

    def embedded(self, split: str) -> Iterable[Mapping[str, Any]]:
        """The rows of `data=embedded`."""
        from rosa_bench import embedded

        name = self.folder.rpartition("/")[2]
        return embedded.rows("e2e" if name == "e2e_nlg" else name, split)

    @property
    @abstractmethod
    def hub(self) -> Hub | Upstream:
        """Where `data=hub` finds the rows. Raises UsageError if they are nowhere without running a script."""

    def from_hub(self, rows: Iterable[Mapping[str, Any]], split: str) -> Iterator[Mapping[str, Any]]:
        """A hub's rows with the field names of `data=local`; the same unless the hub shapes them otherwise."""
        yield from rows

    def from_upstream(self, content: bytes, split: str) -> Iterator[Mapping[str, Any]]:
        """The rows in the file of a split of `Upstream`, as `data=local` has them."""
        raise NotImplementedError

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        """What of a row, as `data=local` has it, is compared with the public release."""
        return [value for name, value in sorted(row.items()) if name not in ("id", "idx")]

    @abstractmethod
    def parse(self, row: Mapping[str, Any], where: str) -> Example:
        """The example of one raw row.

        Raises:
            UsageError: naming `where` and the field, when the row is not as the format says.
        """

    def label(self, row: Mapping[str, Any], where: str) -> Label:
        """The label of a row of references, checked like that of a raw row. Raises UsageError as `parse` does."""
        return class_field(row, "label", self.classes, where)

    def targets(self, example: Example) -> list[Example]:
        """What a training row is trained on: itself, or one example for each of its references."""
        return [example]

    @abstractmethod
    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Token ids for training: at most `max_length` of them."""

    @abstractmethod
    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """The task's metrics in the scales the papers print; one that cannot be had is missing."""

    def score_parts(self, split: str, predictions: Sequence[Prediction]) -> dict[str, Mapping[str, float]]:
        """`score` of the whole split, and of each of its subsets as `<split>_<subset>`."""
        parts = {split: list(predictions)}
        for subset in sorted({p.subset for p in predictions if p.subset}):
            parts[f"{split}_{subset}"] = [p for p in predictions if p.subset == subset]
        return {name: self.score(name, part) for name, part in parts.items()}

    def primary_score(self, split: str, predictions: Sequence[Prediction]) -> float | None:
        """The metric a run is judged by, alone."""
        return self.score(split, predictions).get(self.primary)

    def statistic(self, metric: str, predictions: Sequence[Prediction]) -> Statistic:
        """A metric of predictions that can be scored on resampled examples, for tests.

        Raises:
            NoStatisticError: if the metric is unknown or undefined here; its text says why.
        """
        from rosa_bench import metrics
        from rosa_bench.stats.bootstrap import NoStatisticError

        try:
            found = metrics.find(metric)
        except KeyError:
            raise NoStatisticError(f"{metric} is not a metric of predictions and labels") from None
        values, labels = self.columns(predictions, metric)
        return found.statistic(values, labels)

    def columns(self, predictions: Sequence[Prediction], metric: str) -> tuple[Numbers, Numbers]:
        """Predictions and labels as a metric takes them, [E] or [E, outputs]."""
        import numpy as np

        values, labels = [p.value for p in predictions], [p.label for p in predictions]
        return np.asarray(values, np.float64), np.asarray(labels, np.float64)

    def missing_metrics(self) -> Mapping[str, str]:
        """Metrics that cannot be computed on this machine, each with what to do about it."""
        return {}

    def scoring_facts(self, examples: Sequence[Example]) -> Mapping[str, Any]:
        """What has to be known of how these examples are scored, for the record; nothing where there is one way."""
        return {}
