"""Learning curves from the `events.jsonl` of runs: scores at epoch ends and training loss over steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rosa_bench.records.collect import Collection, Group
from rosa_bench.records.record import Record
from rosa_bench.system.strict_json import is_number, loads
from rosa_bench.tables.figures.series import Line, Panel, Point, alike, fullest, judged, label, panel

SEEDS = 10  # most runs per setting whose files are read

Event = Mapping[str, Any]
Read = Callable[[Record], list[Event]]


def reader(collection: Collection) -> Read:
    """A function that reads the events of a run. It skips damaged lines and returns none for a missing file."""

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


def curve_panels(groups: Sequence[Group], read: Read) -> tuple[Panel | None, Panel | None]:
    """Panels of scores at epoch ends and of training loss: each method's largest setting, at steps of all its seeds."""
    groups = alike(groups)
    score_lines, loss_lines = [], []
    metric: tuple[str, str] | None = None
    for method, group in fullest(groups, lambda group: group.first.method).items():
        curves = [read(record) for _, record in sorted(group.records.items())[:SEEDS]]
        metric = metric or _scored(group.first, curves)
        if metric and (points := _mean_curve([_scores(curve, *metric) for curve in curves])):
            score_lines.append(Line(method, label(group), points))
        if points := _mean_curve([_losses(curve) for curve in curves]):
            loss_lines.append(Line(method, label(group), points))
    shown = len({line.label for line in (*score_lines, *loss_lines)})
    score = panel(groups, score_lines, shown, ", ".join(metric)) if metric and score_lines else None
    return score, panel(groups, loss_lines, shown, "training loss") if loss_lines else None


def _scored(record: Record, curves: Sequence[Sequence[Event]]) -> tuple[str, str] | None:
    """Metric and split of the scores at epoch ends: the primary ones, or else a loss."""
    names = [(m, split) for curve in curves for e in curve for split, scores in _by_split(e).items() for m in scores]
    losses = [name for name in names if name[0] == "loss"]
    return judged(record) if judged(record) in names else next(iter(losses), None)


def _by_split(event: Event) -> dict[str, dict[str, Any]]:
    scores = event.get("scores")
    return {split: s for split, s in scores.items() if isinstance(s, dict)} if isinstance(scores, dict) else {}


def _scores(curve: Sequence[Event], metric: str, split: str) -> dict[float, float]:
    values = {event["step"]: _by_split(event).get(split, {}).get(metric) for event in curve if _by_split(event)}
    return {step: value for step, value in values.items() if value is not None and is_number(value)}


def _losses(curve: Sequence[Event]) -> dict[float, float]:
    return {event["step"]: event["loss"] for event in curve if is_number(event.get("loss"))}


def _mean_curve(curves: Sequence[Mapping[float, float]]) -> tuple[Point, ...]:
    own = [curve for curve in curves if curve]
    steps = set(own[0]).intersection(*own) if own else set()
    return tuple(Point(step, tuple(curve[step] for curve in own)) for step in sorted(steps))
