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
THEN = ", then "  # separates the devices in `env.device` of a run that continued on another one
DEEPEST = 60  # levels of nesting; a record has about eight
Status = Literal["running", "done", "failed", "oom", "interrupted"]


@dataclass
class Record:
    """The fields of `record.json`, described in docs/reference/records.md. A value that was not measured is absent."""

    run_id: str  # name of the folder: task, model, method, seed and the first 8 digits of the key
    key: str  # SHA-256 of everything that can change the result
    task: str  # the task's name
    model: str  # the backbone's name
    method: str  # the method's name in tables
    seed: int  # the seed
    config: dict[str, Any]  # the resolved configuration, as in `config.yaml`
    schema: int = SCHEMA  # version of this format
    status: Status = "running"  # `running`, `done`, `failed`, `oom` (out of memory) or `interrupted`
    started: str = ""  # time in UTC
    finished: str | None = None  # time in UTC
    error: str | None = None  # why the run did not finish, in one line
    # variants that were scored, the main one last; the plain model is ""
    variant_names: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)  # source of the rows, their number and SHA-256 per split
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)  # values by split, variant and metric
    primary: dict[str, Any] = field(default_factory=dict)  # the main score at the last and the best epoch
    params: dict[str, Any] = field(default_factory=dict)  # numbers of parameters
    cost: dict[str, Any] = field(default_factory=dict)  # seconds, rates and bytes
    facts: dict[str, Any] = field(default_factory=dict)  # what else was measured
    env: dict[str, Any] = field(default_factory=dict)  # versions, commit and device

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


def read_finished(folder: Path) -> Record:
    """Read the record of a finished run's folder. Raises UsageError like `read_record`, or if it is not finished."""
    record = read_record(folder / "record.json")
    if record.status != "done":
        raise UsageError(f"{folder} is not finished (status: {record.status}); run its command again to finish it")
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
