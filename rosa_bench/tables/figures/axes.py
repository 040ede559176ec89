"""Draws a panel of a figure on matplotlib axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rosa_bench.tables.figures.series import Line, Panel, Point, front
from rosa_bench.tables.figures.styles import Look

Looks = Mapping[str, Look]
DENSE = 25  # points of a line beyond which markers are thinned out
FAINT = 0.18  # opacity of bands
CUT = (0, (1, 1.5))  # dashes of a model that was truncated to lower ranks


def ranks(axis: Any, panel: Panel, looks: Looks) -> None:
    """Draw score over rank on a base-2 log axis, with a band of the spread over seeds; levels are horizontal lines."""
    for line in panel.lines:
        look = looks[line.method]
        if line.level:
            axis.axhline(line.points[0].mean, color=look.color, linestyle=look.dash, linewidth=1.2)
            continue
        style = _style(look) | ({"linestyle": CUT, "markerfacecolor": "white"} if line.cut else {})
        axis.plot([p.x for p in line.points], [p.mean for p in line.points], **style)
        _band(axis, [(p.x, *p.spread) for p in line.points if p.spread is not None], look)
    values = sorted({point.x for line in panel.lines if not line.level for point in line.points})
    axis.set_xscale("log", base=2)
    axis.set_xlim(values[0] / 1.2, values[-1] * 1.2)
    axis.set_xticks(named(values), [f"{rank:g}" for rank in named(values)], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_xlabel("rank")
    _values(axis, panel)


def named(values: Sequence[float]) -> list[float]:
    """The ranks with a tick: powers of two and the last rank, or all ranks if these are fewer than three."""
    ticks = [rank for rank in values if rank == values[-1] or math.log2(rank).is_integer()]
    return ticks if len(ticks) > 2 else list(values)


def _values(axis: Any, panel: Panel) -> None:
    axis.locator_params(axis="y", nbins=6)
    axis.yaxis.set_label_coords(-0.2, 0.5)
    axis.set_ylabel(panel.axis if panel.higher_is_better or "loss" in panel.axis else f"{panel.axis} (lower is better)")


def _style(look: Look) -> dict[str, Any]:
    return {"color": look.color, "marker": look.marker, "linestyle": look.dash, "markersize": 4.5, "linewidth": 1.4}


def _band(axis: Any, ends: Sequence[tuple[float, float, float]], look: Look) -> None:
    if ends:
        axis.fill_between(*zip(*ends, strict=True), color=look.color, alpha=FAINT, linewidth=0)


def name_lines(axis: Any, panel: Panel, looks: Looks, direct: bool) -> None:
    """Label each line at its right end, with overlapping labels moved apart, unless a legend has the names."""
    if not direct:
        return
    low, high = axis.get_ylim()
    ends = sorted((((line.points[-1].mean - low) / (high - low)), line.label, line.method) for line in panel.lines)
    heights = apart([height for height, _, _ in ends])
    for height, (_, text, method) in zip(heights, ends, strict=True):
        options = {"transform": axis.transAxes, "va": "center", "fontsize": 7.5}
        axis.text(1.03, height, text, color=looks[method].color, **options)


def apart(heights: Sequence[float], gap: float = 0.085, top: float = 1.0) -> list[float]:
    """Ascending positions, moved at least `gap` apart, and below `top` if there is room."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], (moved[i + 1] - gap) if i + 1 < len(moved) else top)
    return moved


def name_points(axis: Any, panel: Panel, looks: Looks, direct: bool) -> None:
    """Label each point with its name; if a legend has the methods, only with the rank where a method has several."""
    methods = [line.method for line in panel.lines]
    order = sorted(panel.lines, key=lambda line: (line.points[0].x, line.points[0].mean))
    for i, line in enumerate(order):
        text = line.label if direct else line.label.removeprefix(line.method).removeprefix(" r=")
        if direct or methods.count(line.method) > 1:
            options = {"textcoords": "offset points", "fontsize": 7 if direct else 6.5}
            place, point = (4, 5 if i % 2 or not direct else -10), line.points[0]
            axis.annotate(text, (point.x / 1e6, point.mean), xytext=place, color=looks[line.method].color, **options)


def _bars(axis: Any, points: Sequence[Point], look: Look) -> None:
    """Draw the interval of each point, or its values if it has two seeds and thus no useful interval."""
    for point in points:
        if point.bounds is not None:
            axis.vlines(point.x, *point.bounds, color=look.color, linewidth=1, alpha=0.7)
        elif len(point.values) > 1:
            axis.plot([point.x] * len(point.values), point.values, color=look.color, marker="_", linestyle="none")


def curves(axis: Any, panel: Panel, looks: Looks) -> None:
    """Draw values over steps, with a band for three or more seeds."""
    for line in panel.lines:
        look, steps = looks[line.method], [point.x for point in line.points]
        every = max(1, -(-len(steps) // (DENSE // 2))) if len(steps) > DENSE else 1
        axis.plot(steps, [p.mean for p in line.points], **_style(look), markevery=every)
        _band(axis, [(p.x, *p.bounds) for p in line.points if p.bounds is not None], look)
    axis.locator_params(axis="x", nbins=6, integer=True)
    axis.set_xlabel("optimizer step")
    _values(axis, panel)


def memory(axis: Any, panel: Panel, looks: Looks) -> None:
    """Draw score over memory; points on the Pareto front are filled and joined by steps."""
    points = [(line.points[0].x / 1e6, line.points[0].mean) for line in panel.lines]
    best = front(points, panel.higher_is_better)
    edge = [points[i] for i in best]
    axis.step(*zip(*edge, strict=True), where="post", color="#777777", linestyle=(0, (2, 1.5)), linewidth=1, zorder=1)
    for i, line in enumerate(panel.lines):
        look = looks[line.method]
        face = look.color if i in best else "white"
        x, y = points[i]
        _bars(axis, [Point(x, line.points[0].values)], look)
        axis.plot(x, y, marker=look.marker, markersize=6, color=look.color, markerfacecolor=face, linestyle="none")
    sizes = [x for x, _ in points]
    if max(sizes) > 8 * min(sizes) > 0:
        _logarithmic(axis)
    else:
        axis.locator_params(axis="x", nbins=6)
    axis.margins(x=0.12, y=0.12)
    axis.set_xlabel("measured memory in MB" + (", log scale" if axis.get_xscale() == "log" else ""))
    _values(axis, panel)


def _logarithmic(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def times(baseline: str | None) -> Callable[[Any, Panel, Looks], None]:
    """A function that draws seconds of each method and rank: seeds as ticks, the mean, the ratio to the baseline."""

    def draw(axis: Any, panel: Panel, looks: Looks) -> None:
        base = reference(panel, baseline)
        for row, line in enumerate(panel.lines):
            look, point = looks[line.method], line.points[0]
            axis.plot([0, point.mean], [row, row], color=look.color, linestyle=look.dash, linewidth=1.2, alpha=0.7)
            axis.plot(point.values, [row] * len(point.values), marker="|", color="#555555", linestyle="none", zorder=3)
            axis.plot(point.mean, row, marker=look.marker, markersize=6, color=look.color, linestyle="none")
            if base is not None:
                ratio = "×1" if line is base else f"×{point.mean / base.points[0].mean:.2f}"
                axis.text(1.01, row, ratio, transform=axis.get_yaxis_transform(), va="center", fontsize=7)
        if base is not None:
            axis.axvline(base.points[0].mean, color="#777777", linewidth=0.8, linestyle=(0, (2, 1.5)), zorder=0)
        axis.set_yticks(range(len(panel.lines)), [line.label for line in panel.lines])
        axis.set_ylim(len(panel.lines) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=6)
        axis.set_xlabel("seconds")

    return draw


def reference(panel: Panel, baseline: str | None) -> Line | None:
    """The baseline's line: the line with its label, else the first by label of its method, else None."""
    lines = [line for line in panel.lines if line.label == baseline]
    lines += sorted((line for line in panel.lines if line.method == baseline), key=lambda line: line.label)
    return lines[0] if lines and lines[0].points[0].mean > 0 else None
