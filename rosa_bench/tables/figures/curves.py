"""Learning curves from the `events.jsonl` of runs: scores at epoch ends and training loss over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rosa_bench.records.collect import Group
from rosa_bench.records.record import Record
from rosa_bench.system.strict_json import is_number
from rosa_bench.tables.convergence import Event, Read, by_split, scores_by_step
from rosa_bench.tables.figures.series import Line, Panel, Point, alike, fullest, judged, label, panel

SEEDS = 10  # maximum number of runs to read per setting


def curve_panels(groups: Sequence[Group], read: Read) -> tuple[Panel | None, Panel | None]:
    """Panels of epoch-end scores and training loss: each method's setting with most seeds, at their shared steps."""
    groups = alike(groups)
    score_lines, loss_lines = [], []
    metric: tuple[str, str] | None = None
    for method, group in fullest(groups, lambda group: group.first.method).items():
        curves = [read(record) for _, record in sorted(group.records.items())[:SEEDS]]
        metric = metric or _scored(group.first, curves)
        if metric and (points := _mean_curve([scores_by_step(curve, *metric) for curve in curves])):
            score_lines.append(Line(method, label(group), points))
        if points := _mean_curve([_losses(curve) for curve in curves]):
            loss_lines.append(Line(method, label(group), points))
    shown = len({line.label for line in (*score_lines, *loss_lines)})
    score = panel(groups, score_lines, shown, ", ".join(metric)) if metric and score_lines else None
    return score, panel(groups, loss_lines, shown, "training loss") if loss_lines else None


def _scored(record: Record, curves: Sequence[Sequence[Event]]) -> tuple[str, str] | None:
    """Metric and split of the scores at epoch ends: the primary ones, or else a loss."""
    names = [(m, split) for curve in curves for e in curve for split, scores in by_split(e).items() for m in scores]
    losses = [name for name in names if name[0] == "loss"]
    return judged(record) if judged(record) in names else next(iter(losses), None)


def _losses(curve: Sequence[Event]) -> dict[float, float]:
    return {event["step"]: event["loss"] for event in curve if is_number(event.get("loss"))}


def _mean_curve(curves: Sequence[Mapping[float, float]]) -> tuple[Point, ...]:
    own = [curve for curve in curves if curve]
    steps = set(own[0]).intersection(*own) if own else set()
    return tuple(Point(step, tuple(curve[step] for curve in own)) for step in sorted(steps))
