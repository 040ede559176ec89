"""Writes hand-made records to disk and builds tables from a folder of them."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

from rosa_bench.config.compose import compose
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record
from rosa_bench.suite import plan
from rosa_bench.tables import build as building
from rosa_bench.tables.formats import comma_separated
from rosa_bench.tables.grid import Grid

RUNS: dict[tuple[str, ...], dict] = {}  # composed configurations by their overrides


def config(*overrides: str) -> dict:
    """The resolved configuration of a run, composed once."""
    if overrides not in RUNS:
        RUNS[overrides] = compose(overrides).to_dict()
    return copy.deepcopy(RUNS[overrides])


def record(folder: Path, *overrides: str, seed: int = 1, last: float = 50.0, best: float | None = None, **more) -> Path:
    """Write one record of a run of CoLA; `more` replaces its top-level fields."""
    own = config(*overrides) | {"seed": seed}
    task, model = own["task"]["name"], own["model"]["name"]
    method = own["method"]["_target_"].rpartition(".")[2].lower()
    metric, split = own["task"]["primary"], own["task"].get("select_split", "test")
    values = {
        "run_id": f"{task}-{method}-s{seed}-{abs(hash((overrides, last))) % 10**8}",
        "key": f"{overrides} {seed}",
        "task": task,
        "model": model,
        "method": method,
        "seed": seed,
        "config": own,
        "status": "done",
        "variant_names": [""],
        "data": {"source": "embedded v1", "sha256": {}, "rows": {}},
        "scores": {split: {"": {metric: last}}},
        "primary": {"metric": metric, "split": split, "last": last} | ({} if best is None else {"best": best}),
        "params": {"trainable": 1000},
    } | more
    place = folder / values["run_id"]
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(Record(**values).to_dict()))
    return place / "record.json"


def changed(path: Path, **fields) -> None:
    """Replace fields of a written record."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def built(folder: Path, *suites: plan.Suite, **options) -> list[Grid]:
    """The tables of a folder's records with these suites only."""
    return building.build(collect([folder]), {suite.name: suite for suite in suites}, **options)


def cells(grid: Grid) -> list[list[str]]:
    """The cells of a table's CSV."""
    return list(csv.reader(comma_separated(grid).splitlines()))
