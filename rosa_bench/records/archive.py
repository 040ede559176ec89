"""Finished runs in one compressed file, such as `results/embedded.jsonl.gz`, which ships with a checkout.

One JSON object per line: `{"record": ..., "events": [...]}` for a run, and as the last line `{"comparisons": ...}`, the
paired tests computed from the runs' predictions. Equal content gives equal bytes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosa_bench.errors import UsageError
from rosa_bench.records.record import Record, parse_record
from rosa_bench.system.files import write_json_lines_gz
from rosa_bench.system.strict_json import loads

SUFFIX = ".jsonl.gz"


@dataclass
class Archive:
    """The content of an archive. `broken` has a message for each record that cannot be read."""

    records: list[Record] = field(default_factory=list)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # training curves by run id
    comparisons: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def is_archive(path: Path) -> bool:
    """Whether a path names an archive instead of a folder of runs."""
    return path.name.endswith(SUFFIX)


def read_archive(path: Path) -> Archive:
    """Read an archive. A missing file gives an empty archive.

    Raises:
        UsageError: if the file is damaged.
    """
    archive = Archive()
    if not path.is_file():
        return archive
    try:
        with gzip.open(path) as stream:
            lines = stream.read().splitlines()
        for number, line in enumerate(lines, start=1):
            _read_line(archive, loads(line), f"{path}, line {number}")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}); restore it, for example with git checkout") from error
    return archive


def _read_line(archive: Archive, entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not an object")
    if "comparisons" in entry:
        archive.comparisons = entry["comparisons"]
        return
    try:
        record = parse_record(entry.get("record"))
    except (ValueError, TypeError) as error:
        archive.broken.append(f"skipped: {where} is not a record of this version ({str(error)[:200]})")
        return
    archive.records.append(record)
    if entry.get("events"):
        archive.events[record.run_id] = entry["events"]


def write_archive(
    path: Path,
    records: Iterable[Record],
    events: Mapping[str, list[dict[str, Any]]],
    comparisons: Mapping[str, Any],
) -> None:
    """Write records ordered by run id, with their training curves if present, and comparisons."""
    lines: list[dict[str, Any]] = []
    for record in sorted(records, key=lambda record: record.run_id):
        curve = events.get(record.run_id)
        lines.append({"record": record.to_dict()} | ({"events": curve} if curve else {}))
    write_json_lines_gz(path, [*lines, {"comparisons": comparisons}])
