"""Marks cells whose runs still improve: the last epoch gained more than the spread of seeds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rosa_bench.records.collect import Collection
from rosa_bench.records.record import Record
from rosa_bench.system.strict_json import is_number, loads
from rosa_bench.tables.cell_scores import main_variant
from rosa_bench.tables.grid import Column, Gain, Grid, Place

Event = Mapping[str, Any]
Read = Callable[[Record], list[Event]]


def reader(collection: Collection) -> Read:
    """A function that reads the events of a run. It skips damaged lines; a missing file has no events."""

    def read(record: Record) -> list[Event]:
        if id(record) in collection.events:
            return list(collection.events[id(record)])
        try:
            lines = (collection.folder(record) / "events.jsonl").read_bytes().splitlines()
        except OSError:
            return []
        return list(_valid(lines))

    return read


def _valid(lines: Sequence[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            event = loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and is_number(event.get("step")):
            yield event


def by_split(event: Event) -> dict[str, dict[str, Any]]:
    """The scores of an event, by split and metric; empty if it has none."""
    scores = event.get("scores")
    return {split: s for split, s in scores.items() if isinstance(s, dict)} if isinstance(scores, dict) else {}


def scores_by_step(events: Sequence[Event], metric: str, split: str) -> dict[float, float]:
    """A metric at epoch ends, by step."""
    return {step: value for step, value in _evaluations(events, metric, split).items() if value is not None}


def _evaluations(events: Sequence[Event], metric: str, split: str) -> dict[float, float | None]:
    """A metric at epoch ends, by step; None where it is undefined."""
    values = {event["step"]: by_split(event).get(split, {}).get(metric) for event in events if by_split(event)}
    return {step: values[step] if is_number(values[step]) else None for step in sorted(values)}


def with_gains(grid: Grid, read: Read) -> Grid:
    """Add to each cell the gain of its last epoch."""
    return grid.with_places(lambda _, column, place: dataclasses.replace(place, gain=gain(place, column, read)))


def gain(place: Place, column: Column, read: Read) -> Gain | None:
    """What the last evaluation at an epoch end gained over the one before; None unless two seeds have two of them.

    Evaluations of the column's metric and split are used. If epochs score something else (the loss of a task that
    decodes, a selection split), the evaluations that select the best epoch are used instead. A seed with an undefined
    score at either epoch is left out. Only the main variant is judged, because the others have no curve.
    """
    if place.records and place.variant != main_variant(place.records[0]):
        return None
    curves = [read(record) for record in place.records]
    for metric, split, better in _evaluated(place, column):
        pairs = [[*_evaluations(curve, metric, split).values()][-2:] for curve in curves]
        ends = [[value for value in pair if value is not None] for pair in pairs]
        ends = [pair for pair in ends if len(pair) == 2]
        if len(ends) > 1:
            sign = 1 if better else -1
            gained = statistics.fmean(sign * (last - previous) for previous, last in ends)
            return Gain(gained, statistics.stdev(last for _, last in ends), metric, split)
    return None


def _evaluated(place: Place, column: Column) -> Iterator[tuple[str, str, bool]]:
    """Yield metric, split and whether higher is better: for the column, then for the selection of the best epoch."""
    yield column.metric, column.split, column.higher_is_better
    if place.records:
        metric, _, split = str(place.records[0].primary.get("selected_by", "")).partition(" on ")
        better = metric != "loss" and bool(place.records[0].primary.get("higher_is_better", True))
        yield metric, split, better
