"""Draws figures of a collection of records as PNG and PDF; equal records give equal bytes.

The figures show score over rank, learning curves, memory and score, and time, for the backbones and data sources with
the most runs, with a panel per task. They need matplotlib (the extra `plot`).
"""

from __future__ import annotations

import gc
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rosa_bench.core.method import Group
from rosa_bench.records.collect import Collection
from rosa_bench.records.collect import Group as Runs
from rosa_bench.records.run_key import method_class
from rosa_bench.system.files import file_name, write_bytes
from rosa_bench.tables.convergence import Read, reader
from rosa_bench.tables.figures import axes
from rosa_bench.tables.figures.curves import curve_panels
from rosa_bench.tables.figures.series import Panel, Sheet, memory_panel, rank_panel, sheets, time_panel
from rosa_bench.tables.figures.styles import Look, looks
from rosa_bench.tables.layout import HEADINGS

COLUMNS, LEGEND = 3, 6  # panels per row, entries per column of a legend
DIRECT = 8  # most lines or points per panel that are labeled directly instead of in a legend
PANELS, LINES = 12, 24  # most panels per figure, most lines or points per panel; the rest is counted
ALL = 60  # panels after which no further backbone or data source is drawn
NAMED = 5  # most omissions listed by name
WITHOUT = "no plots: matplotlib is not installed (pip install 'rosa_bench[plot]', or make setup)"
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "grid.alpha": 0.25,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # a dollar sign in a name is literal
}
INTERVALS = "95 % interval of the mean over three or more seeds"


@dataclass(frozen=True)
class Plot:
    """A figure: its PNG file (with a PDF of the same name next to it), caption and alternative text."""

    png: Path
    caption: str  # including what was omitted
    alt: str  # the content in words


@dataclass(frozen=True)
class Kind:
    name: str  # of its files
    title: str
    caption: str
    draw: Callable[[Any, Panel, dict[str, Look]], None]
    names: Callable[[Any, Panel, dict[str, Look], bool], None] | None = None  # None if the axis has the names


def kinds(baseline: str | None) -> dict[str, Kind]:
    ratio = f"; the factor on the right is the ratio to {baseline} (×1)" if baseline else ""
    dots = f"Markers are means, ticks are seeds{ratio}."
    all_kinds = [
        Kind(
            "rank",
            "Score over rank",
            "Mean at the last epoch; bands: one standard deviation over seeds on both sides; dotted: one trained "
            "model, truncated to lower ranks; horizontal: methods without a rank, for reference.",
            axes.ranks,
            axes.name_lines,
        ),
        Kind("learning", "Scores at epoch ends", f"Mean; bands: {INTERVALS}.", axes.curves, axes.name_lines),
        Kind("loss", "Training loss", f"Mean; bands: {INTERVALS}.", axes.curves, axes.name_lines),
        Kind(
            "memory",
            "Memory and score",
            "Measured weights, gradients, optimizer state and activations (mean over seeds) and the mean score at the "
            f"last epoch; bars: {INTERVALS}. Filled markers and dashed line: Pareto front.",
            axes.memory,
            axes.name_points,
        ),
        Kind("time_cpu", "CPU time", f"Seconds over all threads of a run. {dots}", axes.times(baseline)),
        Kind(
            "time_gpu",
            "GPU run time",
            f"Wall-clock seconds of training, method and evaluation. {dots}",
            axes.times(baseline),
        ),
    ]
    return {kind.name: kind for kind in all_kinds}


def draw(collection: Collection, folder: Path, baseline: str | None = None) -> tuple[list[Plot], list[str]]:
    """Draw all figures of the records into a folder.

    `baseline` is the method, or method and rank, that times are compared with.

    Returns:
        The figures, and a message about omitted ones.

    Raises:
        OSError: if the folder cannot be written.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return [], [WITHOUT]
    all_sheets = sheets(collection)
    firsts = [group.first for sheet in all_sheets for groups in sheet.tasks.values() for group in groups]
    classes = {record.method: method_class(record.config["method"]) for record in firsts}
    groups = {method: cls.group for method, cls in classes.items()}
    plots, styles, omitted = [], looks({method: cls.look for method, cls in classes.items()}), []
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    gc.freeze()  # keeps the garbage collector from scanning all records for every figure
    try:
        for sheet in all_sheets:
            if count >= ALL:
                omitted.append(f"{sheet.model} on {sheet.source}")
                continue
            for kind, panels in figures(sheet, reader(collection), baseline):
                plots.append(_figure(kind, sheet, panels, styles, groups, folder))
                count += len(panels)
    finally:
        gc.unfreeze()
    if omitted:
        more = f" and {len(omitted) - NAMED} more" if len(omitted) > NAMED else ""
        omitted = [f"not drawn, since others have more runs: {', '.join(omitted[:NAMED])}{more}"]
    return plots, omitted


def figures(sheet: Sheet, read: Read, baseline: str | None) -> Iterator[tuple[Kind, list[Panel]]]:
    """The figures of a backbone on a data source with their panels. Figures without panels are skipped."""
    tasks = sorted(sheet.tasks, key=lambda task: (-sum(len(g.records) for g in sheet.tasks[task]), task))
    omitted = f" Not shown: {', '.join(sorted(tasks[PANELS:]))}." if len(tasks) > PANELS else ""
    by_kind: dict[str, list[Panel]] = {name: [] for name in kinds(None)}
    for task in sorted(tasks[:PANELS]):
        for name, panel in _panels(sheet.tasks[task], read).items():
            if panel is not None:
                by_kind[name].append(_cut(panel))
    for name, panels in by_kind.items():
        if panels:
            has_baseline = any(axes.reference(panel, baseline) for panel in panels)
            kind = kinds(baseline if has_baseline else None)[name]
            yield replace(kind, caption=kind.caption + omitted), panels


def _panels(groups: Sequence[Runs], read: Read) -> dict[str, Panel | None]:
    score, loss = curve_panels(groups, read)
    return {
        "rank": rank_panel(groups),
        "learning": score,
        "loss": loss,
        "memory": memory_panel(groups),
        "time_cpu": time_panel(groups, gpu=False),
        "time_gpu": time_panel(groups, gpu=True),
    }


def _cut(panel: Panel) -> Panel:
    return replace(panel, lines=panel.lines[:LINES], left_out=panel.left_out + max(0, len(panel.lines) - LINES))


def named_directly(kind: Kind, panels: Sequence[Panel]) -> bool:
    """Whether lines or points are labeled directly; otherwise there is a legend, or the axis has the names."""
    return kind.names is not None and max(len(panel.lines) for panel in panels) <= DIRECT


def _laid_out(kind: Kind, panels: Sequence[Panel], legend: Sequence[Sequence[Any]]) -> tuple[Any, list[Any]]:
    """A figure with axes for its panels. Margins are fixed, since automatic layout takes longer than drawing."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    longest = 0.06 * min(40, max(len(line.label) for panel in panels for line in panel.lines))
    left, right = (0.75, 0.15 + longest * named_directly(kind, panels)) if kind.names else (0.25 + longest, 0.45)
    wide, inner = 2.5, 1.8 if kind.names else max(1.2, 0.2 * max(len(panel.lines) for panel in panels))
    width = max(columns * (left + wide + right), sum(map(_column_width, legend)))
    above, below, foot = 0.3, 0.5, 0.05 + 0.17 * max(map(len, legend), default=0)
    height = rows * (above + inner + below) + foot
    figure = Figure(figsize=(width, height))
    places = []
    for i in range(len(panels)):
        x = left + (i % columns) * width / columns
        y = foot + below + (rows - 1 - i // columns) * (above + inner + below)
        places.append(figure.add_axes((x / width, y / height, wide / width, inner / height)))
    return figure, places


def _figure(
    kind: Kind,
    sheet: Sheet,
    panels: Sequence[Panel],
    styles: dict[str, Look],
    groups: Mapping[str, Group],
    folder: Path,
) -> Plot:
    from matplotlib import style

    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about glyphs missing from the font
        direct = named_directly(kind, panels)
        legend = legend_columns(panels, groups) if kind.names and not direct else []
        figure, places = _laid_out(kind, panels, legend)
        for axis, panel in zip(places, panels, strict=True):
            kind.draw(axis, panel, styles)
            if kind.names:
                kind.names(axis, panel, styles, direct)
            axis.set_title(f"{panel.title} ({seeds(panel)})")
        if legend:
            _legend(figure, legend, styles, kind.name != "memory")
        name = file_name("-".join((kind.name, sheet.model, sheet.source.replace(" ", "_"))))
        png = folder / f"{name}.png"
        _save(figure, png, {"Software": None})
        _save(figure, folder / f"{name}.pdf", {"CreationDate": None, "Producer": None, "Creator": None})
    return Plot(png, caption(kind, sheet, panels), alt(kind, panels))


def _save(figure: Any, path: Path, metadata: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=110, metadata=metadata)
    write_bytes(path, buffer.getvalue())


Entry = tuple[str, str]  # a method, empty for a heading, and its text


def legend_columns(panels: Sequence[Panel], groups: Mapping[str, Group]) -> list[list[Entry]]:
    """The columns of a legend: methods by group, below the heading of the group."""
    columns: list[list[Entry]] = []
    entries = named(panels)
    for group, heading in HEADINGS.items():
        members = [entry for entry in entries.items() if groups[entry[0]] == group]
        columns += [[("", "" if i else heading), *members[i : i + LEGEND]] for i in range(0, len(members), LEGEND)]
    return columns


def _column_width(column: Sequence[Entry]) -> float:
    return 0.75 + 0.062 * max(len(text) for _, text in column)


def _legend(figure: Any, columns: Sequence[Sequence[Entry]], styles: dict[str, Look], lines: bool) -> None:
    from matplotlib.lines import Line2D

    x = (figure.get_figwidth() - sum(map(_column_width, columns))) / 2
    for column in columns:
        handles = []
        for method, text in column:
            options: dict[str, Any] = {"linestyle": "none"}
            if method:
                look = styles[method]
                options = {"color": look.color, "marker": look.marker, "linestyle": look.dash if lines else "none"}
            handles.append(Line2D([], [], label=text, linewidth=1.4, markersize=4.5, **options))
        top = (0.05 + 0.17 * max(map(len, columns))) / figure.get_figheight()
        place = {"loc": "upper left", "bbox_to_anchor": (x / figure.get_figwidth(), top), "borderaxespad": 0.0}
        legend = figure.legend(handles=handles, frameon=False, handlelength=3, labelspacing=0.3, **place)
        legend.get_texts()[0].set_fontweight("bold")
        x += _column_width(column)


def named(panels: Sequence[Panel]) -> dict[str, str]:
    """The legend label of each method, with its rank if it has only one."""
    by_method: dict[str, set[str]] = {}
    for line in (line for panel in panels for line in panel.lines):
        by_method.setdefault(line.method, set()).add(line.label)
    return {method: min(labels) if len(labels) == 1 else method for method, labels in sorted(by_method.items())}


def seeds(panel: Panel) -> str:
    """The number of seeds per point of a panel, or its range."""
    counts = sorted(set().union(*(line.seeds for line in panel.lines)))
    return f"n={counts[0]}" if len(counts) == 1 else f"n={counts[0]} to {counts[-1]}"


def caption(kind: Kind, sheet: Sheet, panels: Sequence[Panel]) -> str:
    """The caption of a figure, including what is not shown."""
    devices = sorted(set().union(*(panel.devices for panel in panels)))
    hardware = f" Run on {', '.join(devices)}." if devices else ""
    hidden = sum(panel.left_out for panel in panels)
    more = f" Settings not shown: {hidden}." if hidden else ""
    return f"{kind.title}, {sheet.model} on {sheet.source}. {kind.caption}{hardware}{more}"


def alt(kind: Kind, panels: Sequence[Panel], shown: int = 4) -> str:
    """The alternative text of a figure: the end points of each line in the first panels."""
    texts = []
    for panel in panels[:shown]:
        lines = "; ".join(f"{line.label} {_ends(kind, line.points)}" for line in panel.lines)
        texts.append(f"{panel.title} ({panel.axis}): {lines}.")
    more = (
        f" {len(panels) - shown} more panels: {', '.join(p.title for p in panels[shown:])}." if panels[shown:] else ""
    )
    return f"{kind.title}. {' '.join(texts)}{more}"


def _ends(kind: Kind, points: Sequence[Any]) -> str:
    first, last = points[0], points[-1]
    if kind.name == "memory":
        return f"{first.mean:.4g} with {first.x / 1e6:.4g} MB"
    return f"{last.mean:.4g}" if first is last else f"{first.mean:.4g} at {first.x:g} to {last.mean:.4g} at {last.x:g}"
