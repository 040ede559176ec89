"""Results that other papers report for the same method, backbone, task and metric (results/papers/related.csv).

Settings differ from paper to paper, so these values are shown next to ours and never compared with them. `rows` of a
table in results/papers/sources.yaml maps its rows to our runs.
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
    """The properties of a run that other papers also state."""

    method: str  # name in records
    options: Mapping[str, Any]  # of the method
    model: str
    variant: str  # of the trained model


def with_elsewhere(grid: Grid, planned: Mapping[tuple[str, str], Described]) -> Grid:
    """Add other papers' results to each cell; `planned` describes cells without runs, by row and task."""

    def reported_place(row: Row, column: Column, place: Place) -> Place:
        run = described(place) or planned.get((row.label, column.task))
        return place if run is None else dataclasses.replace(place, elsewhere=reported(run, column))

    grid = grid.with_places(reported_place)
    used = {value.table for place in grid.places for value in place.elsewhere}
    return dataclasses.replace(grid, notes=[*grid.notes, *map(_note, sorted(used))])


def described(place: Place) -> Described | None:
    """Describe the runs of a cell; None without runs."""
    if not place.records:
        return None
    record = place.records[0]
    return Described(record.method, record.config["method"], record.model, place.variant)


def reported(run: Described, column: Column) -> tuple[Elsewhere, ...]:
    """Other papers' results for a run and a column, in file order."""
    cells = [cell for cell in papers.read(papers_dir() / "related.csv") if _fits(cell, run, column)]
    per_paper = Counter(cell.paper for cell in cells)
    return tuple(
        Elsewhere(
            cell.value,
            cell.std,
            f"{cell.paper}{f' {cell.method}' if per_paper[cell.paper] > 1 else ''}{_quoted(cell)}",
            f"{cell.paper}/{cell.table}",
        )
        for cell in cells
        if cell.value is not None
    )


def _quoted(cell: papers.Reported) -> str:
    """A remark if the paper quotes the result from another one."""
    return " (quoted)" if (cell.note or "").startswith("quoted") else ""


def _fits(cell: papers.Reported, run: Described, column: Column) -> bool:
    task, split = papers.task_of(cell.task)
    if (task, split, cell.metric) != (column.task, column.split, column.metric):
        return False
    if cell.model != run.model.replace("_", "-"):
        return False
    options = dict(papers.source(cell.paper, cell.table).get("rows", {}).get(cell.method, {}))
    if options.pop("method", None) != run.method:
        return False
    rank_of_row = options.pop("rank", None)
    rank = cell.rank or rank_of_row
    if rank is not None and (run.options.get("rank", rank) != rank or run.variant not in ("", f"r{rank}")):
        return False
    return all(run.options.get(name) == value for name, value in options.items())


def _note(table: str) -> str:
    paper, _, name = table.partition("/")
    source = papers.source(paper, name)
    parts = [papers.document(paper), *(str(source[key]) for key in ("split", "aggregation", "units") if key in source)]
    return f"Reported elsewhere, {paper}: {'; '.join([str(source['read_from']), *parts])}."
