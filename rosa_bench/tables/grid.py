"""Tables as values: methods by metrics; each cell holds our score, the paper's, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rosa_bench.core.method import Group
from rosa_bench.records.record import Record
from rosa_bench.suite.plan import Pscp

Epoch = Literal["last", "best"]
Mark = Literal["matched", "off", "not comparable"]
DASH = "–"  # a number that is not measured or not printed


@dataclass(frozen=True)
class Score:
    """Scores at one epoch of a group of runs that differ only in their seeds, on the metric's scale."""

    by_seed: Mapping[int, float]
    mean: float
    median: float
    sd: float | None  # divisor n - 1; None for one seed
    low: float | None  # 95 % interval of the aggregate; None for one seed
    high: float | None

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)


@dataclass(frozen=True)
class Printed:
    """A number as printed in a paper."""

    value: float
    std: float | None
    decimals: int  # as printed; the value is accurate to half a unit of the last one
    note: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """Another paper's result for the same method, backbone, task and metric under its own settings."""

    value: float
    std: float | None
    source: str  # the paper's name in results/papers
    table: str  # paper and table


@dataclass(frozen=True)
class Verdict:
    """The measured value compared with the printed one."""

    difference: float  # ours minus the paper's
    mark: Mark
    reasons: tuple[str, ...] = ()  # why the values are not comparable


@dataclass(frozen=True)
class Against:
    """The measured value compared with the baseline's in the same column, from stored predictions."""

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
    kind: str = field(default="", compare=False)  # title of the task's kind; columns of one kind share a table

    @property
    def head(self) -> str:
        """Task and metric. `Grid.head` adds the split if several columns share both."""
        return f"{self.task} {self.metric}"


@dataclass(frozen=True)
class Gain:
    """The gain of the last epoch over the one before, and the spread over seeds (`convergence`)."""

    gain: float  # mean over seeds, positive if better
    sd: float  # over seeds, of the score at the last epoch
    metric: str
    split: str

    @property
    def improving(self) -> bool:
        """Whether the last epoch gained more than the standard deviation over seeds."""
        return self.gain > self.sd


@dataclass(frozen=True)
class Place:
    """A cell of a table."""

    scores: Mapping[Epoch, Score] = field(default_factory=dict)
    printed: Printed | None = None
    verdict: Verdict | None = None
    against: Against | None = None
    records: tuple[Record, ...] = ()  # the runs behind the scores, by seed
    ended: tuple[Record, ...] = ()  # runs that failed or ran out of memory, by seed
    variant: str = ""  # of the trained model, as in the records' scores
    elsewhere: tuple[Elsewhere, ...] = ()
    gain: Gain | None = None  # None without two seeds that have a score at the last two epochs
    other_settings: int = 0  # runs of this row and column under other settings, excluded from the scores

    @property
    def unfinished(self) -> Mapping[str, int]:
        """Number of runs without a result, by status."""
        return Counter(sorted(record.status for record in self.ended))

    @property
    def improving(self) -> bool:
        """Whether the last epoch gained more than the spread of seeds; False if that is not known."""
        return self.gain is not None and self.gain.improving


@dataclass(frozen=True)
class Row:
    """A method or one of its variants."""

    label: str
    trainable: tuple[int, ...] = ()  # parameters; several if tasks have different heads
    printed_trainable: str = ""
    group: Group | None = None  # of its method; None in tables that keep the order of a paper
    places: Mapping[Column, Place] = field(default_factory=dict)

    def place(self, column: Column) -> Place:
        """The cell in a column; an empty one if the row has none."""
        return self.places.get(column, Place())


@dataclass(frozen=True)
class Grid:
    """A table."""

    name: str  # of its files
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    epoch: Epoch  # whose scores are shown first
    aggregate: Literal["mean", "median"] = "mean"
    baseline: str | None = None
    seeds: int | None = None  # number that the suite specifies
    notes: Sequence[str] = ()
    pscp: Pscp | None = None  # constants of the column PSCP; None: no such column

    @property
    def places(self) -> list[Place]:
        """All cells, row by row."""
        return [place for row in self.rows for place in row.places.values()]

    def with_places(self, changed: Callable[[Row, Column, Place], Place]) -> Grid:
        """The table with `changed(row, column, cell)` in place of each cell."""
        rows = [
            replace(row, places={c: changed(row, c, place) for c, place in row.places.items()}) for row in self.rows
        ]
        return replace(self, rows=rows)

    def center(self, score: Score) -> float:
        """The mean or the median, whichever the table reports."""
        return score.mean if self.aggregate == "mean" else score.median

    def head(self, column: Column) -> str:
        """The heading of a column, with its split if other columns have the same task and metric."""
        alike = [other for other in self.columns if other.head == column.head]
        return f"{column.head} ({column.split})" if len(alike) > 1 else column.head
