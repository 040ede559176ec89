"""How a grid becomes tables that fit: by kind of task, within a width, with rows in groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from rosa_bench.core.method import Group
from rosa_bench.tables.cell_scores import shown
from rosa_bench.tables.costs import SHARE, CostColumn, cost_columns
from rosa_bench.tables.grid import Column, Grid, Row

WIDTH = 110  # characters of a line
HEADINGS: dict[Group, str] = {"paper": "Methods of the papers", "baseline": "Baselines", "other": "Other methods"}


def by_group(rows: Sequence[Row]) -> list[Row]:
    """Rows in the order of their groups."""
    order: list[Group | None] = [*get_args(Group), None]
    return sorted(rows, key=lambda row: order.index(row.group))


def headed(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by group with its heading; without headings if there is only one group."""
    groups = dict.fromkeys(row.group for row in rows)
    if len(groups) < 2:
        return [("", list(rows))]
    return [(HEADINGS[group] if group else "", [row for row in rows if row.group == group]) for group in groups]


def kinds(grid: Grid) -> dict[str, list[Column]]:
    """Columns by the title of their kind of task, those with the most rows first unless a paper gives the order."""
    columns: dict[str, list[Column]] = {}
    for column in grid.columns:
        columns.setdefault(column.kind, []).append(column)
    if all(row.group for row in grid.rows):
        for members in columns.values():
            members.sort(key=lambda column: -len(rows_with(grid, [column])))
    return columns


def rows_with(grid: Grid, columns: Sequence[Column]) -> list[Row]:
    """The rows that have content in any of the columns."""
    return [row for row in grid.rows if any(shown(row.place(column)) for column in columns)]


def usual_n(grid: Grid) -> int | None:
    """The most common number of seeds, which cells do not repeat; the largest if several are equally common."""
    counts = Counter(place.scores[grid.epoch].n for place in grid.places if grid.epoch in place.scores)
    return max(counts, key=lambda n: (counts[n], n)) if counts else None


@dataclass(frozen=True)
class Part:
    """A table that fits: some columns of a grid and the rows with content in them."""

    title: str  # of the kind of its tasks; empty if the grid has one kind, or the part continues another
    columns: Sequence[Column]
    costs: Sequence[CostColumn]
    rows: Sequence[Row]


def parts(grid: Grid, widths: Mapping[Column, int]) -> list[Part]:
    """Split a grid by kind of task, and each kind by width; `widths` are column widths including separators.

    The first part of a kind shows all costs, the others only the trainable share.
    """
    made = []
    titled = kinds(grid)
    for title, columns in titled.items():
        costs = cost_columns(grid, columns)
        for i, (used, chunk) in enumerate(_chunks(columns, widths, grid.rows, costs)):
            heading = title if len(titled) > 1 and i == 0 else ""
            made.append(Part(heading, chunk, used, rows_with(grid, chunk)))
    return made


def _chunks(
    columns: Sequence[Column], widths: Mapping[Column, int], rows: Sequence[Row], costs: Sequence[CostColumn]
) -> list[tuple[Sequence[CostColumn], list[Column]]]:
    chunks: list[tuple[Sequence[CostColumn], list[Column]]] = []
    headings = [heading for heading, _ in headed(rows)]
    label = 4 + max(map(len, [*(row.label for row in rows), *(f"*{heading}*" for heading in headings)]), default=0)
    room = 0
    for column in columns:
        room -= widths[column]
        if room < 0 or not chunks:
            used = costs if not chunks else [cost for cost in costs if cost.measure is SHARE]
            costs_width = width([[cost.head for cost in used], *([cost.cell(row) for cost in used] for row in rows)])
            room = WIDTH - label - costs_width - widths[column]
            chunks.append((used, []))
        chunks[-1][1].append(column)
    return chunks


def width(texts: Sequence[Sequence[str]]) -> int:
    """The width of adjacent text columns with their separators."""
    return sum(3 + max(map(len, column)) for column in zip(*texts, strict=True))
