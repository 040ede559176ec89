"""Renders a grid as Markdown and CSV. An absent number is an en dash.

Markdown, like LaTeX, splits a wide grid (`layout`); the CSV files hold it whole.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from rosa_bench.records.record import Record
from rosa_bench.tables.cells import Footnotes, digits, elsewhere_text, emphasized, notes, ours, printed_text, signed
from rosa_bench.tables.costs import batch_latency, latency, mean, memory, seconds, share
from rosa_bench.tables.grid import DASH, Column, Epoch, Grid, Place, Row
from rosa_bench.tables.layout import headed, parts, usual_n, width

LONG = [
    *("table", "group", "row", "kind", "task", "metric", "split", "variant", "epoch"),
    *("n", "seeds", "mean", "median", "sd", "low", "high"),
    *("trainable", "trainable_percent", "memory_bytes", "seconds", "latency_batch_1", "latency_batch_eval"),
    *("last_gain", "last_sd", "still_improving"),
    *("printed", "printed_sd", "difference", "mark", "reasons"),
    *("baseline", "baseline_difference", "p_holm", "holds", "test"),
    *("unfinished", "other_settings", "runs", "elsewhere"),
]
COSTS: dict[str, Callable[[Record], float | None]] = {
    "trainable_percent": share,
    "memory_bytes": memory,
    "seconds": seconds,
    "latency_batch_1": latency,
    "latency_batch_eval": batch_latency,
}


def markdown(grid: Grid) -> str:
    """GitHub Markdown with aligned columns: a table for each kind of task, none wider than a page."""
    footnotes, usual = Footnotes(), usual_n(grid)
    related = with_related(grid)
    decimals = {column: digits(grid, column) for column in grid.columns}
    heads = {column: list(map(_in_markdown, _heads(grid, column, related))) for column in grid.columns}
    cells: dict[tuple[str, Column], list[str]] = {}
    for row in grid.rows:
        for column in grid.columns:
            texts = _cells(row, grid, column, decimals[column], usual, footnotes)[: len(heads[column])]
            cells[row.label, column] = list(map(_in_markdown, texts))
    widths = {column: width([heads[column], *(cells[r.label, column] for r in grid.rows)]) for column in grid.columns}
    lines = [f"## {grid.title}", ""]
    for part in parts(grid, widths):
        lines += [f"### {part.title}", ""] if part.title else []
        body = [["method", *(cost.head for cost in part.costs), *itertools.chain(*(heads[c] for c in part.columns))]]
        for heading, members in headed(part.rows):
            body += [[f"*{heading}*", *[""] * (len(body[0]) - 1)]] if heading else []
            for row in members:
                scores = itertools.chain(*(cells[row.label, column] for column in part.columns))
                body.append([_in_markdown(row.label), *(cost.cell(row) for cost in part.costs), *scores])
        lines += [*aligned(body), ""]
    return "\n".join([*lines, *(f"{note}  " for note in notes(grid, footnotes)), ""])


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table with `table[0]` as its head: first column left-aligned, others right-aligned."""
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [table[0], rule, *table[1:]]:
        padded = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(padded)} |")
    return lines


def _in_markdown(text: str) -> str:
    """Text of a Markdown cell: one line, with pipes and HTML tags escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def comma_separated(grid: Grid) -> str:
    """CSV of the table as shown: a head, then a line per row with the label, the parameters and every cell."""
    related, footnotes = with_related(grid), Footnotes()
    heads = [_heads(grid, column, related) for column in grid.columns]
    lines = [["method", "trainable", *itertools.chain(*heads)]]
    decimals = {column: digits(grid, column) for column in grid.columns}
    for row in grid.rows:
        cells = [_cells(row, grid, column, decimals[column], None, footnotes) for column in grid.columns]
        shown = (texts[: len(head)] for texts, head in zip(cells, heads, strict=True))
        lines.append([row.label, _sizes(row), *itertools.chain(*shown)])
    return _csv(lines)


def _sizes(row: Row) -> str:
    """Trainable parameters in full, ours and the paper's."""
    own = " / ".join(f"{size:,}" for size in row.trainable) or DASH
    return f"{own} (paper {row.printed_trainable})" if row.printed_trainable else own


def with_related(grid: Grid) -> set[Column]:
    """The columns in which other papers report results."""
    return {column for row in grid.rows for column, place in row.places.items() if place.elsewhere}


def _heads(grid: Grid, column: Column, related: set[Column]) -> list[str]:
    """The heading of a column, and of a second one if other papers report results."""
    return [grid.head(column), *(["reported elsewhere"] if column in related else [])]


def _cells(
    row: Row, grid: Grid, column: Column, decimals: int, usual: int | None, footnotes: Footnotes
) -> tuple[str, str]:
    """A score with its marks, and the results of other papers."""
    place = row.place(column)
    text = emphasized(ours(place, grid, decimals, usual), place)
    if place.printed is not None:
        text += f"; paper {printed_text(place.printed, decimals)}"
        if place.verdict is not None:
            marks = f" [{footnotes.mark(place.verdict.reasons)}]" if place.verdict.reasons else ""
            text += f"; {signed(place.verdict.difference, decimals)}, {place.verdict.mark}{marks}"
    return text, elsewhere_text(place) or DASH


def long_csv(grid: Grid) -> str:
    """CSV with one line per cell and epoch and one column per value; absent values are empty."""
    return _csv([LONG, *([str(line.get(name, "")) for name in LONG] for line in _long(grid))])


def _csv(lines: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _long(grid: Grid) -> Iterator[dict[str, object]]:
    for row in grid.rows:
        for column, place in row.places.items():
            for epoch in place.scores or (grid.epoch,):
                yield _long_line(grid, row, column, place, epoch)


def _long_line(grid: Grid, row: Row, column: Column, place: Place, epoch: Epoch) -> dict[str, object]:
    line: dict[str, object] = {"table": grid.name, "group": row.group, "row": row.label, "kind": column.kind}
    line |= {"task": column.task, "metric": column.metric}
    line |= {"split": column.split, "variant": place.variant, "epoch": epoch}
    if (score := place.scores.get(epoch)) is not None:
        line |= {"n": score.n, "seeds": " ".join(map(str, score.by_seed)), "mean": score.mean, "median": score.median}
        line |= {"sd": score.sd, "low": score.low, "high": score.high}
    line |= {"trainable": " ".join(map(str, row.trainable)), "runs": " ".join(r.run_id for r in place.records)}
    line |= {"unfinished": " ".join(f"{status}:{count}" for status, count in place.unfinished.items())}
    for name, cost in COSTS.items():
        line[name] = mean(place.records, cost)
    if (gain := place.gain) is not None:
        line |= {"last_gain": gain.gain, "last_sd": gain.sd, "still_improving": str(gain.improving).lower()}
    line |= {"other_settings": place.other_settings or "", "elsewhere": elsewhere_text(place)}
    if place.printed is not None:
        line |= {"printed": place.printed.value, "printed_sd": place.printed.std}
    if epoch == grid.epoch and (verdict := place.verdict) is not None:
        line |= {"difference": verdict.difference, "mark": verdict.mark, "reasons": "; ".join(verdict.reasons)}
    if epoch == "last" and (against := place.against) is not None:
        line |= {"baseline": against.baseline, "baseline_difference": against.difference, "p_holm": against.p}
        line |= {"holds": str(against.holds).lower(), "test": against.test}
    return {name: "" if value is None else value for name, value in line.items()}
