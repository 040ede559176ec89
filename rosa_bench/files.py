"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def unwritable(folder: Path) -> Path | None:
    """The existing part of a path that keeps a folder from being made or written; None if nothing does."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return None if there.is_dir() and os.access(there, os.W_OK | os.X_OK) else there


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; what was there before stays whole until then."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON; a number that is not finite raises ValueError instead of becoming a sentinel."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_json_lines_gz(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write gzip JSON lines whose bytes depend on the rows only (no name, no time of writing)."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream:
        for row in rows:
            stream.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
    write_bytes(path, buffer.getvalue())
