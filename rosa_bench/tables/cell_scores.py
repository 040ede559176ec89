"""Contents of a table cell: scores over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rosa_bench.records.collect import Group
from rosa_bench.records.record import Record
from rosa_bench.stats.summary import summary
from rosa_bench.tables.grid import Column, Epoch, Place, Score


def score(values: Mapping[int, float], aggregate: str) -> Score:
    """Summarize scores by seed, with the interval of the aggregate."""
    stats = summary(list(values.values()))
    low, high = (stats.low, stats.high) if aggregate == "mean" else (stats.median_low, stats.median_high)
    return Score(dict(sorted(values.items())), stats.mean, stats.median, stats.sd, low, high)


def scores(records: Iterable[Record], column: Column, variant: str, aggregate: str) -> dict[Epoch, Score]:
    """Scores of a column at the last and the best epoch. For generated text, best has only the primary metric."""
    last: dict[int, float] = {}
    best: dict[int, float] = {}
    for record in records:
        value = record.scores.get(column.split, {}).get(variant, {}).get(column.metric)
        if value is not None:
            last[record.seed] = value
        if variant == main_variant(record) and (value := _at_best(record.primary, column)) is not None:
            best[record.seed] = value
    by_epoch: dict[Epoch, dict[int, float]] = {"last": last, "best": best}
    return {epoch: score(values, aggregate) for epoch, values in by_epoch.items() if values}


def main_variant(record: Record) -> str:
    """The variant whose score is the primary one; "" for a plain model."""
    return (record.variant_names or [""])[-1]


def _at_best(primary: Mapping[str, Any], column: Column) -> float | None:
    """A metric at the run's best epoch; None if it was not recorded."""
    value: float | None = primary.get("best_scores", {}).get(column.split, {}).get(column.metric)
    judged = (primary.get("metric"), primary.get("split")) == (column.metric, column.split)
    return primary.get("best") if judged else value


def place(group: Group, column: Column, variant: str, aggregate: str = "mean", others: int = 0) -> Place:
    """The cell where a group's row meets a column."""
    records = tuple(record for _, record in sorted(group.records.items()))
    return Place(
        scores=scores(records, column, variant, aggregate),
        records=records,
        ended=tuple(record for _, record in sorted(group.unfinished.items())),
        variant=variant,
        other_settings=others,
    )


def shown(place: Place) -> bool:
    """Whether the cell has anything to print; a finished run without a score is printed as a dash."""
    return bool(place.scores or place.printed or place.records or place.unfinished)


def decimals(value: float) -> int:
    """Number of digits after the decimal point of a number as written."""
    return len(str(value).partition(".")[2].rstrip("0"))
