"""What stands in a place of a table: scores over seeds, and what to make of them beside a printed number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rosa_bench.records.collect import Group
from rosa_bench.records.record import Record
from rosa_bench.stats.summary import student, summary
from rosa_bench.tables.grid import Column, Epoch, Grid, Place, Printed, Score, Verdict


def score(values: Mapping[int, float], aggregate: str) -> Score | None:
    """The summary of scores by seed; None of none. The interval is the aggregate's."""
    if not values:
        return None
    found = summary(list(values.values()))
    low, high = (found.low, found.high) if aggregate == "mean" else (found.median_low, found.median_high)
    return Score(dict(sorted(values.items())), found.mean, found.median, found.sd, low, high)


def scores(records: Iterable[Record], column: Column, variant: str, aggregate: str) -> dict[Epoch, Score]:
    """A column over runs, at the last and the best epoch; at the latter, generated texts have a primary score only."""
    last: dict[int, float] = {}
    best: dict[int, float] = {}
    for record in records:
        value = record.scores.get(column.split, {}).get(variant, {}).get(column.metric)
        if value is not None:
            last[record.seed] = value
        if variant == (record.variant_names or [""])[-1] and (value := _at_best(record.primary, column)) is not None:
            best[record.seed] = value
    found: dict[Epoch, Score | None] = {"last": score(last, aggregate), "best": score(best, aggregate)}
    return {epoch: value for epoch, value in found.items() if value is not None}


def _at_best(primary: Mapping[str, Any], column: Column) -> float | None:
    """A metric at the epoch that its run's primary one chose."""
    value: float | None = primary.get("best_scores", {}).get(column.split, {}).get(column.metric)
    judged = (primary.get("metric"), primary.get("split")) == (column.metric, column.split)
    return primary.get("best") if judged else value


def place(group: Group, column: Column, variant: str, aggregate: str = "mean", others: int = 0) -> Place:
    """What stands where a group's row meets a column."""
    records = tuple(record for _, record in sorted(group.records.items()))
    return Place(
        scores=scores(records, column, variant, aggregate),
        records=records,
        ended=tuple(record for _, record in sorted(group.unfinished.items())),
        variant=variant,
        other_settings=others,
    )


def verdict(own: Place, printed: Printed, grid: Grid, reasons: Sequence[str], seeds: int) -> Verdict | None:
    """Ours beside the paper's: matched if the intervals of both touch, the paper's being its spread or its rounding."""
    found = own.scores.get(grid.epoch)
    if found is None:
        return None
    centre = found.mean if grid.aggregate == "mean" else found.median
    difference = centre - printed.value
    if reasons:
        return Verdict(difference, "not comparable", tuple(reasons))
    if found.low is None or found.high is None:
        return Verdict(difference, "not comparable", ("one value, or equal ones, have no interval",))
    width = 0.5 * 10**-printed.decimals
    if printed.std is not None:
        width = max(width, student(max(1, seeds - 1)) * printed.std / seeds**0.5)
    inside = found.low - width <= printed.value <= found.high + width
    return Verdict(difference, "matched" if inside else "off")


def shown(place: Place) -> bool:
    """Whether there is anything to print."""
    return bool(place.scores or place.printed or place.unfinished)


def decimals(value: float | None) -> int:
    """Digits after the point of a number as it was written."""
    return len(str(value).partition(".")[2].rstrip("0")) if value is not None else 0
