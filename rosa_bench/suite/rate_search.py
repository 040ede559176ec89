"""Learning-rate search of a suite: each rate is scored on held-out training rows, and the final runs use the best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

from rosa_bench.core.task import TUNE
from rosa_bench.errors import UsageError
from rosa_bench.records.record import Record, seconds

if TYPE_CHECKING:
    from rosa_bench.suite.plan import Cell

SETTLED = ("done", "failed", "skipped")  # states of a cell that will not change
REFRESH_S = 1.0  # interval between readings of unfinished cells
REPEAT_S = 5.0  # time after a run's end by which its board has decided whether to repeat it
TAG = "search:"  # prefix of the tracker tag that the runs of a search and the runs that use its result share


@dataclass(frozen=True)
class Outcome:
    """The result of a search. `scores` maps each rate to its mean score over seeds; None if a run has no score."""

    scores: Mapping[float, float | None]
    rate: float | None  # the best rate, the lowest if several are equal; None if no rate has a score
    seconds: float  # duration of all its runs

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or the highest of several, so that a better one may lie beyond."""
        return len(self.scores) > 1 and self.rate in (min(self.scores), max(self.scores))


def outcome(runs: Mapping[float, Iterable[Record | None]], epoch: Literal["last", "best"] = "last") -> Outcome:
    """Compare rates by the primary score of their runs on the split `tune`.

    A rate with a failed run or an undefined score has no score, so a diverging rate cannot win.

    Args:
        runs: the records of each rate, one per seed; None for a run that failed.
        epoch: the epoch whose score counts, as in the suite's table.

    Raises:
        UsageError: if a run has read another split than `train` and `tune`.
    """
    scores: dict[float, float | None] = {}
    spent, higher = 0.0, True
    for rate, records in sorted(runs.items()):
        values: list[float | None] = []
        for record in records:
            if record is None:
                values.append(None)
                continue
            refuse_leak(record)
            values.append(record.primary.get(epoch) if record.status == "done" else None)
            spent += seconds(record)
            higher = record.primary.get("higher_is_better", higher)
        known = [value for value in values if value is not None]
        scores[rate] = statistics.fmean(known) if known and len(known) == len(values) else None
    ranked = [(value if higher else -value, -rate) for rate, value in scores.items() if value is not None]
    return Outcome(scores, -max(ranked)[1] if ranked else None, spent)


def refuse_leak(record: Record) -> None:
    """Raise UsageError if a search's run has read another split than the two parts of the training rows."""
    splits = {*record.data.get("rows", {}), *record.data.get("sha256", {}), *record.scores}
    if leaked := sorted(splits - {"train", TUNE}):
        raise UsageError(f"{record.run_id} chose a learning rate and has read the split {', '.join(leaked)}")


def beyond(rates: Sequence[float]) -> tuple[float, float] | None:
    """The rates below and above a grid, each by the ratio of the two rates at that end; None for a single rate."""
    grid = sorted(rates)
    if len(grid) < 2:
        return None
    return float(f"{grid[0] ** 2 / grid[1]:.3g}"), float(f"{grid[-1] ** 2 / grid[-2]:.3g}")


@dataclass(eq=False)
class Search:
    """The cells of a search. The grid grows once, by one rate, if its best rate lies at an edge."""

    grid: Mapping[float, Sequence[Cell]]
    epoch: Literal["last", "best"]
    further: dict[float, Sequence[Cell]] = field(default_factory=dict)  # the rates beyond both edges
    again: Mapping[str, str] = field(default_factory=dict)  # failed runs to repeat, as in `is_repeated`
    running: Collection[str] = ()  # ids of cells that a board runs and may repeat when they end
    _first: Outcome | None = None
    _last: Outcome | None = None
    _read: float = 0.0  # when unfinished cells were last read

    def reopen(self) -> None:
        """Forget the outcome, because failed runs will be repeated."""
        self._first = self._last = None
        self._read = 0.0

    def needed(self, rate: float) -> bool | None:
        """Whether a rate beyond the grid has to be tried; None while the grid is unfinished."""
        self._refresh()
        if self._first is None:
            return None
        return self._first.rate == (min if rate < min(self.grid) else max)(self.grid)

    def outcome(self) -> Outcome | None:
        """The outcome of all rates that have to be tried; None while a run is unfinished."""
        self._refresh()
        return self._last

    def unsettled(self) -> list[Cell]:
        """The unfinished cells that decide the search: in the grid, then at the rate beyond it if one is needed."""
        return self._unsettled(self._tried())

    def _refresh(self) -> None:
        if self._last is not None or time.monotonic() - self._read < REFRESH_S:
            return
        self._read = time.monotonic()
        if self._first is None:
            self._first = self._outcome_of(self.grid)
        if self._first is not None:
            self._last = self._outcome_of(self._tried())

    def _tried(self) -> dict[float, Sequence[Cell]]:
        """The rates of the grid, and the rate beyond it if one is needed."""
        return {**self.grid, **{rate: cells for rate, cells in self.further.items() if self.needed(rate)}}

    def _outcome_of(self, rates: Mapping[float, Sequence[Cell]]) -> Outcome | None:
        """The outcome of these rates; None while a run is unfinished."""
        if self._unsettled(rates):
            return None
        return outcome({rate: [cell.record for cell in cells] for rate, cells in rates.items()}, self.epoch)

    def _unsettled(self, rates: Mapping[float, Sequence[Cell]]) -> list[Cell]:
        return [cell for cells in rates.values() for cell in cells if not self._is_settled(cell)]

    def _is_settled(self, cell: Cell) -> bool:
        if cell.id in self.running or (state := cell.state) not in SETTLED:
            return False
        return state != "failed" or not (is_repeated(cell, self.again) or just_ran_out(cell.record))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "running": (), "_read": 0.0}


def is_repeated(cell: Cell, again: Mapping[str, str]) -> bool:
    """Whether a failed cell is to be repeated: `again` maps its id to the start time of its failed run.

    A new failure has another start time.
    """
    record = cell.record if cell.id in again else None
    return record is not None and record.started == again[cell.id]


def just_ran_out(record: Record | None) -> bool:
    """Whether memory ran out so recently that the board of the run may still be about to repeat it."""
    earliest = datetime.now(timezone.utc) - timedelta(seconds=REPEAT_S)
    finished = record.finished if record is not None and record.status == "oom" else None
    return finished is not None and finished > earliest.isoformat(timespec="seconds")
