"""Atomic file writes, and JSON files with a checksum that detects changed bytes."""

from __future__ import annotations

import argparse
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

NO_ROOM = re.compile("No space left on device|StorageFull|Disk quota exceeded")  # wording of torch and safetensors
ROOM_BYTES = 1 << 18  # a disk with less free space counts as full
SEAL = ',\n "checksum": '  # starts the last line of a sealed file: the sha256 of all preceding bytes


def typed_path(text: str) -> Path:
    """A path on the command line; `~` is the home folder, even where the shell does not expand it (`--out=~/a`).

    Raises:
        ArgumentTypeError: if the path begins with the home folder of an unknown user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text} starts with the home folder of an unknown user") from error


def file_name(name: str) -> str:
    """A file name for `name`: the name itself, or its safe part plus a hash, so that two names never share a file."""
    safe = re.sub(r"[^\w.+-]+", "_", name).strip(".")[:100]
    return name if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def cache_dir() -> Path:
    """`$ROSA_BENCH_CACHE`, else the user's cache folder, else the system's temporary folder."""
    if folder := os.environ.get("ROSA_BENCH_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rosa_bench"
    except RuntimeError:  # no HOME and no entry in the user database
        return Path(tempfile.gettempdir()) / f"rosa_bench-{os.getuid()}"


def unwritable(folder: Path) -> Path | None:
    """The nearest existing path that prevents creating or writing `folder`, or None if it is writable."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return None if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK) else existing


def describe_error(error: BaseException, folder: Path) -> str:
    """An error as text. A full disk is named first, however a library words it."""
    text = "".join(traceback.format_exception_only(error)).strip()
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or NO_ROOM.search(text) is not None
    with contextlib.suppress(OSError):
        full |= shutil.disk_usage(folder).free < ROOM_BYTES
    if not full or not isinstance(error, Exception):
        return text
    return f"no space left on the disk of {folder}; free some space and rerun the same command to resume ({text})"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; when the `with` block ends, it replaces `path` atomically.

    If the block raises, `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")  # unique on all machines
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def clear_temporaries(folder: Path) -> None:
    """Delete what killed processes left unfinished in a folder and its subfolders. Nothing else may write there."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically. Raises ValueError for a number that is not finite."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whose last entry is a checksum, which `unsealed` verifies."""
    body = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}").encode()
    seal = f'{SEAL}"{hashlib.sha256(body).hexdigest()}"\n}}\n'
    write_bytes(path, body + seal.encode())


def unsealed(content: bytes) -> dict[str, Any]:
    """Parse the bytes that `write_sealed_json` wrote, without the checksum. An object without one is accepted.

    Raises:
        ValueError: if the bytes are not a JSON object or the checksum does not match.
    """
    value = loads(content)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    checksum = value.pop("checksum", None)
    if checksum is not None and hashlib.sha256(content.rpartition(SEAL.encode())[0]).hexdigest() != checksum:
        raise ValueError("damaged: its checksum does not match")
    return value


def write_json_lines_gz(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write gzipped JSON lines. The bytes depend only on the rows: the header has no file name and no timestamp."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream:
        for row in rows:
            stream.write((json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode())
    write_bytes(path, buffer.getvalue())


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, cached while its size and modification time stay the same."""
    status = path.stat()
    return _sha256(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
