"""Details of the cells of a page: runs, shared configuration, data and environment, each stored once.

Thousands of runs of a suite share a few dozen configurations of a task, a method or a machine. These are numbered and
cells refer to them by number, so each run adds only its name, seed, key and scores to the page.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rosa_bench.records.record import Record
from rosa_bench.tables.grid import Epoch, Place, Score

EPOCHS: tuple[Epoch, Epoch] = ("last", "best")
ABSENT = "(absent)"  # shown for a setting that only some of the runs have
_NOTHING = object()


class Panels:
    """Collects the cells of a page and numbers them from 0."""

    def __init__(self) -> None:
        self.parts: list[Any] = []  # configurations of a group, data and environments, by number
        self.sources: Counter[tuple[str, int]] = Counter()  # runs by task and number of their data
        self.environments: Counter[int] = Counter()  # runs by number of their environment
        self._numbers: dict[str, int] = {}  # of JSON texts
        self._places: list[str] = []
        self._counted: set[str] = set()

    def add(self, place: Place, lines: Sequence[str]) -> int:
        """Add a cell and return its number. `lines` are the first lines of its panel."""
        records = (*place.records, *place.ended)
        shared, differing = common([record.config for record in records])
        settings = {name: value for name, value in shared.items() if isinstance(value, Mapping)}
        settings[""] = {name: value for name, value in shared.items() if name not in settings}
        data = self._grouped([(record.seed, record.data) for record in records])
        env = self._grouped([(record.seed, record.env) for record in records])
        value = {
            "lines": list(lines),
            "runs": [_run(r, place.scores) for r in place.records] + [_run(r, {}) for r in place.ended],
            "config": {name: self._number(part) for name, part in settings.items()},
            "differs": differing,
            "data": data,
            "env": env,
        }
        self._count(place.records)
        self._places.append(dumped(value))
        return len(self._places) - 1

    def add_runs(self, records: Sequence[Record], lines: Sequence[str]) -> int:
        """Add runs of several cells, with their primary scores, and return the number of their panel."""
        runs = [[*_run(record, {})[:3], record.primary.get("last"), record.primary.get("best")] for record in records]
        value = {"lines": list(lines), "runs": runs, "config": {}, "differs": {}, "data": [], "env": []}
        self._count(records)
        self._places.append(dumped(value))
        return len(self._places) - 1

    def _number(self, value: Any) -> int:
        number = self._numbers.setdefault(dumped(value), len(self.parts))
        if number == len(self.parts):
            self.parts.append(value)
        return number

    def _grouped(self, values: Sequence[tuple[int, Any]]) -> list[tuple[int, list[int]]]:
        """The number of each distinct value and the seeds of its runs."""
        groups: list[tuple[Any, list[int]]] = []
        for seed, value in values:
            same = next((seeds for other, seeds in groups if other == value), None)
            if same is None:
                groups.append((value, [seed]))
            else:
                same.append(seed)
        return [(self._number(value), seeds) for value, seeds in groups]

    def _count(self, records: Sequence[Record]) -> None:
        """Count the data and environments of runs; a run in several tables counts once."""
        last: Record | None = None
        source = environment = 0
        for record in records:
            if record.run_id in self._counted:
                continue
            self._counted.add(record.run_id)
            if last is None or (record.data, record.env) != (last.data, last.env):
                source, environment, last = self._number(record.data), self._number(record.env), record
            self.sources[record.task, source] += 1
            self.environments[environment] += 1

    def json(self) -> str:
        """All details as JSON that is safe inside a script element."""
        text = f'{{"parts":[{",".join(self._numbers)}],"places":[{",".join(self._places)}]}}'
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _run(record: Record, epoch_scores: Mapping[Epoch, Score]) -> list[Any]:
    """Seed, name, key, score at the last and the best epoch (None if absent), and the error of a failed run."""
    scores = [epoch_scores[epoch].by_seed.get(record.seed) if epoch in epoch_scores else None for epoch in EPOCHS]
    run = [record.seed, record.run_id, record.key, *scores]
    return run if record.status == "done" else [*run, f"{record.status}: {record.error or 'no error recorded'}"]


def common(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The shared part of configurations, nested, and the differing values by dotted path. Seeds are ignored."""
    if not configs:
        return {}, {}
    shared, differing = _split([{k: v for k, v in config.items() if k != "seed"} for config in configs], "")
    return shared, differing


def _split(values: Sequence[Any], path: str) -> tuple[Any, dict[str, list[Any]]]:
    first = values[0]
    if all(value == first for value in values[1:]):
        return first, {}
    if not all(isinstance(value, Mapping) for value in values):
        return _NOTHING, {path: [ABSENT if value is _NOTHING else value for value in values]}
    shared: dict[str, Any] = {}
    differing: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for value in values for name in value):
        part, other = _split([value.get(name, _NOTHING) for value in values], f"{path}.{name}" if path else name)
        differing |= other
        if part is not _NOTHING:
            shared[name] = part
    return shared, differing


def dumped(value: Any) -> str:
    """Compact ASCII JSON; non-finite numbers, which JSON lacks, become strings."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_with_strings(value), allow_nan=False, separators=(",", ":"))


def _with_strings(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_strings(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_strings(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
