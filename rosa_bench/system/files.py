"""Writing files so that no reader ever sees half of one, and sealing them so that a changed byte is noticed."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosa_bench.system.strict_json import loads

NO_ROOM = re.compile("No space left on device|StorageFull|Disk quota exceeded")  # as torch and safetensors say it
ROOM_BYTES = 1 << 18  # with less than this a disk is full
SEAL = ',\n "checksum": '  # the last line of a sealed file: the sha256 of all bytes before it


def cache_dir() -> Path:
    """`$ROSA_BENCH_CACHE`, else the user's cache folder, else the system's temporary folder."""
    if named := os.environ.get("ROSA_BENCH_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rosa_bench"
    except RuntimeError:  # no HOME and no entry in the user database
        return Path(tempfile.gettempdir()) / f"rosa_bench-{os.getuid()}"


def unwritable(folder: Path) -> Path | None:
    """The existing part of a path that keeps a folder from being made or written; None if nothing does."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return None if there.is_dir() and os.access(there, os.W_OK | os.X_OK) else there


def said_of(error: BaseException, folder: Path) -> str:
    """An error in words; if it came of a full disk that is said first, whichever way a library puts it."""
    said = "".join(traceback.format_exception_only(error)).strip()
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or NO_ROOM.search(said) is not None
    with contextlib.suppress(OSError):
        full |= shutil.disk_usage(folder).free < ROOM_BYTES
    if not full or not isinstance(error, Exception):
        return said
    return f"no space left on the disk of {folder}; with more room the same command goes on ({said})"


def temporary_name(path: Path) -> Path:
    """Where to write what is to replace a file: beside it, and of no other process or machine."""
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to be written in a `with` block; at its end it replaces `path` in one step.

    What was there before stays whole until then, and stays if the block raises.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; what was there before stays whole until then."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def clear_temporaries(folder: Path) -> None:
    """Delete what killed processes left of `replacing` in a folder and those in it. Only where nobody else writes."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON; a number that is not finite raises ValueError instead of becoming a sentinel."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum as its last entry, by which `read_sealed_json` knows it is as written."""
    body = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}").encode()
    seal = f'{SEAL}"{hashlib.sha256(body).hexdigest()}"\n}}\n'
    write_bytes(path, body + seal.encode())


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The object that `write_sealed_json` wrote, without its checksum. One that never had a checksum is taken as it is.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no JSON object, or not as it was written.
    """
    return unsealed(path.read_bytes())


def unsealed(content: bytes) -> dict[str, Any]:
    """The object in the bytes of a sealed file. Raises ValueError as `read_sealed_json` does."""
    value = loads(content)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    told = value.pop("checksum", None)
    if told is not None and hashlib.sha256(content.rpartition(SEAL.encode())[0]).hexdigest() != told:
        raise ValueError("damaged: its checksum does not fit")
    return value


def write_json_lines_gz(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write gzip JSON lines whose bytes depend on the rows only (no name, no time of writing)."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream:
        for row in rows:
            stream.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
    write_bytes(path, buffer.getvalue())


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, remembered as long as its size and time of change stay."""
    status = path.stat()
    return _sha256(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
