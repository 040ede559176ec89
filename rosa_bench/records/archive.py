"""Finished runs in one compressed file, such as `results/embedded.jsonl.gz`, which ships with a checkout.

One JSON object per line: `{"record": ..., "events": [...], "resampled": {...}}` for a run, and as the last line
`{"comparisons": ...}`, the paired tests computed from the runs' predictions. `resampled` holds the scores of each
variant on resampled examples, if a suite's claims need them. Equal content gives equal bytes.
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
from rosa_bench.system.strict_json import is_number, loads

SUFFIX = ".jsonl.gz"


@dataclass
class Archive:
    """The content of an archive. `broken` has a message for each record that cannot be read."""

    records: list[Record] = field(default_factory=list)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # training curves by run id
    resampled: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by run id and variant
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
    if entry.get("resampled"):
        archive.resampled[record.run_id] = _numbers(entry["resampled"], where)


def _numbers(by_variant: Any, where: str) -> dict[str, list[float]]:
    if not isinstance(by_variant, dict) or not all(
        isinstance(values, list) and all(map(is_number, values)) for values in by_variant.values()
    ):
        raise ValueError(f"{where}: resampled is not a list of numbers for each variant")
    return by_variant


def write_archive(
    path: Path,
    records: Iterable[Record],
    events: Mapping[str, list[dict[str, Any]]],
    comparisons: Mapping[str, Any],
    resampled: Mapping[str, Mapping[str, list[float]]] | None = None,
) -> None:
    """Write records ordered by run id, each with its training curve and resampled scores if present; comparisons last.

    `events` and `resampled` are keyed by run id.
    """
    lines: list[dict[str, Any]] = []
    for record in sorted(records, key=lambda record: record.run_id):
        also = {"events": events.get(record.run_id), "resampled": (resampled or {}).get(record.run_id)}
        lines.append({"record": record.to_dict()} | {name: value for name, value in also.items() if value})
    write_json_lines_gz(path, [*lines, {"comparisons": comparisons}])
