"""What other papers report for the same method, backbone, task and metric: results/papers/related.csv.

The settings are theirs and differ from paper to paper, so such a value is shown beside ours and never compared with it.
`rows` of a table in results/papers/sources.yaml says which of our runs a row is beside.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rosa_bench.config import papers_dir
from rosa_bench.tables import papers
from rosa_bench.tables.grid import Column, Elsewhere, Grid, Place, Row


@dataclass(frozen=True)
class Described:
    """A run as far as other papers describe theirs."""

    method: str  # its name in records
    options: Mapping[str, Any]  # of the method
    model: str
    variant: str  # of the trained model


def with_elsewhere(grid: Grid, asked: Mapping[tuple[str, str], Described]) -> Grid:
    """The grid with what other papers report in each place; `asked` describes places without runs, by row and task."""
    rows = [_row(row, asked) for row in grid.rows]
    used = {value.table for row in rows for place in row.places.values() for value in place.elsewhere}
    return dataclasses.replace(grid, rows=rows, notes=[*grid.notes, *map(_note, sorted(used))])


def _row(row: Row, asked: Mapping[tuple[str, str], Described]) -> Row:
    places = {}
    for column, place in row.places.items():
        run = described(place) or asked.get((row.label, column.task))
        places[column] = place if run is None else dataclasses.replace(place, elsewhere=reported(run, column))
    return dataclasses.replace(row, places=places)


def described(place: Place) -> Described | None:
    """The runs of a place; None without any."""
    if not place.records:
        return None
    record = place.records[0]
    return Described(record.method, record.config["method"], record.model, place.variant)


def reported(run: Described, column: Column) -> tuple[Elsewhere, ...]:
    """What other papers have for a run in a column, in the file's order."""
    cells = [cell for cell in papers.read(papers_dir() / "related.csv") if _fits(cell, run, column)]
    several = Counter(cell.paper for cell in cells)
    return tuple(
        Elsewhere(
            cell.value,
            cell.std,
            f"{cell.paper}{f' {cell.method}' if several[cell.paper] > 1 else ''}{_quoted(cell)}",
            f"{cell.paper}/{cell.table}",
        )
        for cell in cells
        if cell.value is not None
    )


def _quoted(cell: papers.Reported) -> str:
    """That a paper did not run this itself."""
    return " (quoted)" if (cell.note or "").startswith("quoted") else ""


def _fits(cell: papers.Reported, run: Described, column: Column) -> bool:
    task, split = papers.task_of(cell.task)
    if (task, split, cell.metric) != (column.task, column.split, column.metric):
        return False
    if cell.model != run.model.replace("_", "-"):
        return False
    wanted = dict(papers.source(cell.paper, cell.table).get("rows", {}).get(cell.method, {}))
    if wanted.pop("method", None) != run.method:
        return False
    rank = cell.rank or wanted.pop("rank", None)
    wanted.pop("rank", None)
    if rank is not None and (run.options.get("rank", rank) != rank or run.variant not in ("", f"r{rank}")):
        return False
    return all(run.options.get(name) == value for name, value in wanted.items())


def _note(table: str) -> str:
    paper, _, name = table.partition("/")
    source = papers.source(paper, name)
    parts = [papers.document(paper), *(str(source[key]) for key in ("split", "aggregation", "units") if key in source)]
    return f"Reported elsewhere, {paper}: {'; '.join([str(source['read_from']), *parts])}."
