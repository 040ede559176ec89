"""`record.json`, a run's machine-readable result: configuration, data, scores, cost and environment."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rosa_bench.errors import UsageError
from rosa_bench.system.console import warn_once
from rosa_bench.system.files import unsealed, write_sealed_json
from rosa_bench.system.strict_json import depth, is_text

SCHEMA = 1
COPY = ".record.json"  # next to the record of a finished run
DEEPEST = 60  # levels of nesting; a record has about eight
Status = Literal["running", "done", "failed", "oom", "interrupted"]


@dataclass
class Record:
    """The fields of `record.json`; the README describes them. A value that was not measured is absent."""

    run_id: str
    key: str
    task: str
    model: str
    method: str
    seed: int
    config: dict[str, Any]
    schema: int = SCHEMA
    status: Status = "running"
    started: str = ""
    finished: str | None = None
    error: str | None = None
    variant_names: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    primary: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values, without fields that are None."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


def seconds(record: Record) -> float:
    """Seconds spent on training, the method's own work and evaluation."""
    return sum(float(record.cost.get(name, 0.0)) for name in ("train_s", "method_s", "eval_s"))


def read_record(path: Path) -> Record:
    """Read a record. If the file is damaged, warn and read its copy.

    Raises:
        UsageError: if the file is missing, has another schema, or is damaged without an intact copy; names the file.
    """
    try:
        return _parsed(path)
    except UsageError as error:
        if not path.is_file():
            raise
        try:
            record = _parsed(path.with_name(COPY))
        except UsageError:
            raise error from None
        warn_once(f"rosa_bench: {error}; using its copy {COPY}")
        return record


def _parsed(path: Path) -> Record:
    try:
        content = path.read_bytes()
        value = unsealed(content)
        if content.count(b"{") + content.count(b"[") > DEEPEST and depth(value) > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} levels")
        if b"\\u" in content and not is_text(value):
            raise ValueError("contains an unpaired surrogate")
        return parse_record(value)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is not a record of this version ({str(error)[:200]})") from error


def parse_record(value: Any) -> Record:
    """A record from plain values.

    Raises:
        ValueError: for another schema.
        TypeError: for unknown or missing fields.
    """
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        schema = value.get("schema") if isinstance(value, dict) else None
        raise ValueError(f"schema {schema!r}, expected {SCHEMA}")
    return Record(**value)


def write_record(folder: Path, record: Record) -> None:
    """Write a record atomically. A finished record also gets a copy, which survives damage to the record."""
    write_sealed_json(folder / "record.json", record.to_dict())
    if record.status == "done":
        with contextlib.suppress(OSError):  # the disk may have become full; the record itself is complete
            write_sealed_json(folder / COPY, record.to_dict())
    else:
        (folder / COPY).unlink(missing_ok=True)
