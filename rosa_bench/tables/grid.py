"""The tables as values: methods by metrics, each place with ours, the paper's, and what to make of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rosa_bench.records.record import Record

Epoch = Literal["last", "best"]
Mark = Literal["matched", "off", "not comparable"]
DASH = "–"  # a number that was not measured or not printed


@dataclass(frozen=True)
class Score:
    """What one group of runs that differ in their seeds alone reached at one epoch: in the metric's own scale."""

    by_seed: Mapping[int, float]
    mean: float
    median: float
    sd: float | None  # n - 1 in the divisor; None for one seed
    low: float | None  # 95 % interval of the aggregate; None for one seed
    high: float | None

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.by_seed)


@dataclass(frozen=True)
class Printed:
    """A number as a paper prints it."""

    value: float
    std: float | None
    decimals: int  # printed ones: the value is known to half a unit of the last
    note: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """What another paper reports for the same method, backbone, task and metric, under settings of its own."""

    value: float
    std: float | None
    source: str  # the paper, as results/papers calls it
    table: str  # paper and table


@dataclass(frozen=True)
class Verdict:
    """The measured value beside the printed one."""

    difference: float  # ours less the paper's
    mark: Mark
    reasons: tuple[str, ...] = ()  # why they are not comparable


@dataclass(frozen=True)
class Against:
    """The measured value against the baseline's of the same column, from stored predictions."""

    baseline: str
    difference: float
    p: float | None  # Holm-corrected over the rows of the column
    better: bool
    holds: bool  # for new examples and for new seeds
    test: str


@dataclass(frozen=True)
class Column:
    """A metric of a task on a split."""

    task: str
    metric: str
    split: str
    higher_is_better: bool = True

    @property
    def head(self) -> str:
        """Task and metric, which call it unless other columns of a table share both: `Grid.head`."""
        return f"{self.task} {self.metric}"


@dataclass(frozen=True)
class Place:
    """Where a row and a column meet."""

    scores: Mapping[Epoch, Score] = field(default_factory=dict)
    printed: Printed | None = None
    verdict: Verdict | None = None
    against: Against | None = None
    records: tuple[Record, ...] = ()  # the runs behind the scores, by seed
    ended: tuple[Record, ...] = ()  # those that failed or ran out of memory, by seed
    variant: str = ""  # of the trained model, as in the records' scores
    elsewhere: tuple[Elsewhere, ...] = ()
    other_settings: int = 0  # runs of this row and column under other settings, which are not averaged in

    @property
    def unfinished(self) -> Mapping[str, int]:
        """How many runs ended without a result, by status."""
        return Counter(sorted(record.status for record in self.ended))


@dataclass(frozen=True)
class Row:
    """A method, or one of its variants."""

    label: str
    trainable: tuple[int, ...] = ()  # parameters; several where tasks differ in their heads
    printed_trainable: str = ""
    places: Mapping[Column, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """One table."""

    name: str  # of its files
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    epoch: Epoch  # which scores are shown first
    aggregate: Literal["mean", "median"] = "mean"
    baseline: str | None = None
    notes: Sequence[str] = ()

    def head(self, column: Column) -> str:
        """As it stands above a column: with its split where the table has others of the same task and metric."""
        alike = [other for other in self.columns if other.head == column.head]
        return f"{column.head} ({column.split})" if len(alike) > 1 else column.head
