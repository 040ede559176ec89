"""Reads the papers' printed numbers and related results of other papers from results/papers. Does not import torch.

`reported.csv` holds one printed score per row and no row for what a paper omits. `sources.yaml` describes each table:
where it was read, its units, its aggregation over seeds and its misprints. It also holds tables other than scores.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from rosa_bench.config import papers_dir
from rosa_bench.errors import UsageError, nearest


@dataclass(frozen=True)
class Reported:
    """A printed score. Fields are None if the paper does not state them."""

    paper: str
    table: str
    model: str
    method: str  # label of the row, as in `Block.reported`
    rank: int | None
    task: str
    metric: str
    value: float | None  # on the table's scale
    std: float | None
    trainable_params: str | None  # as printed, e.g. 0.35M
    split: str | None
    aggregation: str | None  # over seeds and epochs
    note: str | None


COLUMNS = [field.name for field in fields(Reported)]
NEEDED = ("paper", "table", "model", "method", "task", "metric")


def reported(paper: str, table: str | None = None) -> list[Reported]:
    """The printed scores of a paper or of one of its tables, in file order. Empty for a table without scores."""
    rows = read(papers_dir() / "reported.csv")
    return [row for row in rows if row.paper == paper and table in (None, row.table)]


def task_of(name: str) -> tuple[str, str]:
    """The task and split for a task name in related.csv."""
    task, split = _yaml(papers_dir() / "sources.yaml")["tasks"].get(name, (name, "validation"))
    return task, split


def source(paper: str, table: str) -> Mapping[str, Any]:
    """The description of a table: `read_from`, `aggregation`, `units`, `misprints`, and `numbers` other than scores.

    Raises:
        UsageError: if results/papers/sources.yaml has no such table.
    """
    path = papers_dir() / "sources.yaml"
    tables = _yaml(path)["tables"]
    name = f"{paper}/{table}"
    if name not in tables:
        raise UsageError(f"{path} has no table {name}: {nearest(name, tables)}")
    description: Mapping[str, Any] = tables[name]
    return description


def document(name: str) -> str:
    """The reference of a paper: its entry in `documents` of results/papers/sources.yaml."""
    return str(_yaml(papers_dir() / "sources.yaml")["documents"][name])


@functools.lru_cache(maxsize=4)
def read(path: Path) -> tuple[Reported, ...]:
    """Read a file like reported.csv. Raises UsageError that names the file, line and column."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = csv.DictReader(stream)
            if lines.fieldnames != COLUMNS:
                raise UsageError(f"{path}:1: the columns are {lines.fieldnames}, not {COLUMNS}")
            return tuple(_row(line, f"{path}:{lines.line_num}") for line in lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error


def _row(line: Mapping[str, str | None], where: str) -> Reported:
    if None in line or None in line.values():
        raise UsageError(f"{where}: expected {len(COLUMNS)} cells")
    cells: dict[str, Any] = {name: text or None for name, text in line.items()}
    for name in NEEDED:
        if cells[name] is None:
            raise UsageError(f"{where}: column {name} is empty")
    for name in ("value", "std"):
        cells[name] = _number(cells[name], float, f"{where}: column {name}")
    cells["rank"] = _number(cells["rank"], int, f"{where}: column rank")
    return Reported(**cells)


def _number(text: str | None, kind: type[int] | type[float], where: str) -> float | None:
    if text is None:
        return None
    try:
        value = kind(text)
        if not math.isfinite(value):
            raise ValueError(text)
    except ValueError as error:
        raise UsageError(f"{where} is {text!r}, not a number") from error
    return value


@functools.lru_cache(maxsize=4)
def _yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict) or not isinstance(value.get("tables"), dict):
        raise UsageError(f"{path}: expected a mapping with the key 'tables'")
    return value
