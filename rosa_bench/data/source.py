"""Rows of a split from one of three sources, each with the place it came from and a hash of the whole."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rosa_bench.config import Data
from rosa_bench.core.task import Example, Hub, Task, Upstream
from rosa_bench.data import upstream
from rosa_bench.data.releases import Comparison
from rosa_bench.errors import UsageError
from rosa_bench.system import hub
from rosa_bench.system.console import warn_once
from rosa_bench.system.files import file_sha256
from rosa_bench.system.strict_json import is_text, loads

SUFFIXES = (".jsonl", ".jsonl.gz")
VALIDATION = ("validation", "dev", "devel", "valid", "val")  # what others call it
ROWS = re.compile(r"\.(jsonl?|ndjson|tsv|csv|txt|parquet|arrow|xml)(\.(gz|zip|bz2|xz|zst))?$")
LONGEST_LINE = 2**24  # bytes; a row of any task has thousands


@dataclass(frozen=True)
class Split:
    """The examples of a split, its number of raw rows and the sha256 of all of them (before any limit)."""

    examples: Sequence[Example]
    rows: int
    sha256: str
    released: bool | None = None  # whether the rows are those of the public release, if that is known
    upstream: str | None = None  # repository and commit, if the rows are not from the hub


def load_split(task: Task, data: Data, split: str, limit: int | None = None) -> Split:
    """Read one split. `limit` keeps its first raw rows.

    Raises:
        UsageError: for a missing file, a hub that does not provide it, or a malformed row; names file, line and field.
    """
    source = _SOURCES[data.source](task, data, split)
    digest, comparison = hashlib.sha256(), Comparison(task, split)
    examples: list[Example] = []
    for row, where in source.rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        if limit is None or comparison.rows < limit:
            example = task.parse(row, where)
            examples += task.targets(example) if split == "train" else [example]
        comparison.add(row)
    if not examples:
        raise UsageError(f"{task.name}: split {split!r} of data={data.source} has no rows")
    released = None if data.source == "embedded" else comparison.same
    if data.source == "hub" and released is False:
        warn_once(
            f"rosa_bench: data=hub: the {comparison.rows:,} rows of {task.name}/{split} are not those of the public "
            f"release; tables say so beside the scores"
        )
    return Split(examples, comparison.rows, digest.hexdigest(), released, source.upstream)


@dataclass(frozen=True)
class Source:
    """The rows of a split, each with the place it comes from."""

    rows: Iterable[tuple[dict[str, Any], str]]
    upstream: str | None = None


def _embedded(task: Task, split: str) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        rows = task.embedded(split)
    except ValueError as error:
        raise UsageError(f"data=embedded: {error}") from error
    for index, row in enumerate(rows):
        yield dict(row), f"embedded {task.name}/{split} row {index}"


def split_file(task: Task, folder: str, split: str) -> Path:
    """The file of a split below `folder`. Raises UsageError that says what would be read and what is there instead."""
    base = Path(folder) / task.folder
    for suffix in SUFFIXES:
        if (path := base / f"{split}{suffix}").is_file():
            return path
    missing = f"{base / split}.jsonl or .jsonl.gz would be read and is missing"
    if not base.is_dir():
        there = _data_files(Path(folder))
        parts, inner = Path(folder).absolute().parts, Path(task.folder).parts
        if parts[-len(inner) :] == inner:
            raise UsageError(f"{missing}; set data.dir={Path(*parts[: -len(inner)])}")
        found = f"; move {', '.join(there)} to {base}" if there else f": {base} is not a folder"
        raise UsageError(f"{missing}{found}")
    there = _data_files(base)
    names = [split.replace("validation", word) for word in VALIDATION]
    similar = next((file for name in names for file in there if file.partition(".")[0].lower() == name), None)
    raise UsageError(f"{missing}; there: {', '.join(there) or 'no data file'}{_way(similar, split)}")


def _data_files(folder: Path) -> list[str]:
    """Names of the files in a folder that may hold rows."""
    return sorted(path.name for path in folder.glob("*") if path.is_file() and ROWS.search(path.name))


def _way(similar: str | None, split: str) -> str:
    """How to make the file of a split from one of another name or format."""
    if similar is None:
        return ""
    suffix = similar[len(similar.partition(".")[0]) :]
    if suffix in SUFFIXES:
        return f"; rename {similar} to {split}{suffix}"
    return f"; write {similar} as {split}.jsonl, one JSON object a row"


def json_lines(path: Path) -> Iterator[tuple[Any, str]]:
    """Each line of a plain or gzip JSON-lines file with its `file:line`; a BOM, CRLF and empty lines are read rightly.

    Raises:
        UsageError: for a broken archive, bytes that are not UTF-8, or a line that is no JSON or too long for a row.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), start=1):
                line = _decoded(raw, number, where := f"{path}:{number}")
                if line.strip():
                    yield _parsed(line, where), where
    except (OSError, EOFError) as error:
        raise UsageError(f"{path}: cannot be read after line {number} ({error})") from error
    except Exception as error:
        if type(error).__module__ == "zlib":
            raise UsageError(f"{path}: broken gzip after line {number} ({error})") from error
        raise


def _decoded(raw: bytes, number: int, where: str) -> str:
    if len(raw) > LONGEST_LINE:
        raise UsageError(f"{where}: longer than {LONGEST_LINE >> 20} MB, which no row is")
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 (byte {error.start + 1} of the line)") from error


def _parsed(line: str, where: str) -> Any:
    try:
        row = loads(line, once=True)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON ({str(error)[:120]})") from error
    if "\\u" in line and not is_text(row):
        raise UsageError(f"{where}: holds half of a surrogate pair, which is no text")
    return row


def _local(task: Task, data: Data, split: str) -> Iterator[tuple[dict[str, Any], str]]:
    for row, where in json_lines(split_file(task, str(data.dir), split)):
        if not isinstance(row, dict):
            raise UsageError(f"{where}: a row is a JSON object, not {type(row).__name__}")
        yield row, where


def _hub(task: Task, data: Data, split: str) -> Source:
    source = task.hub
    try:
        if isinstance(source, Upstream):
            return _upstream(task, source, split, source.repository)
        return _snapshot(task, source, split)
    except hub.HubError as error:
        ways = "Two ways on: data=embedded, or data=local data.dir=FOLDER"
        raise UsageError(f"data=hub: {task.name}/{split}: {error}. {ways}") from error


def _snapshot(task: Task, source: Hub, split: str) -> Source:
    """The rows of a hub's parquet files; of the upstream file if the hub no longer has them."""
    try:
        files = hub.dataset(source.repository, source.revision, source.files.format(split=split))
    except hub.HubError as error:
        if source.upstream is None or not (error.gone or upstream.is_cached(source.upstream)):
            raise
        lost = error
    else:
        return Source(_placed(task.from_hub(_parquet_rows(files), split), source.repository, split))
    try:
        return _upstream(task, source.upstream, split, source.repository)
    except hub.HubError as error:
        raise hub.HubError(f"{lost}; {error}") from error


def _upstream(task: Task, source: Upstream, split: str, name: str) -> Source:
    """The rows of an upstream file. Ids begin with `name` like the hub's, so that runs on either can be paired."""
    rows = task.from_upstream(upstream.content(source, split), split)
    return Source(_placed(rows, name, split), f"{source.repository}@{source.revision}")


def _placed(rows: Iterable[Mapping[str, Any]], name: str, split: str) -> Iterator[tuple[dict[str, Any], str]]:
    for index, row in enumerate(rows):
        yield dict(row), f"{name}/{split} row {index}"


def _parquet_rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    for file in files:
        try:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
                yield from batch.to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise UsageError(
                f"{file}: not a parquet file that can be read ({str(error).splitlines()[0][:160]})"
            ) from error


_SOURCES: dict[str, Callable[[Task, Data, str], Source]] = {
    "embedded": lambda task, _, split: Source(_embedded(task, split)),
    "local": lambda task, data, split: Source(_local(task, data, split)),
    "hub": _hub,
}


def fingerprint(task: Task, data: Data) -> dict[str, str]:
    """What identifies the rows without reading them all: part of a run's key. Local files by their content."""
    if data.source == "embedded":
        from rosa_bench import embedded

        return {"source": f"embedded {embedded.VERSION}"}
    if data.source == "hub":
        return {"source": "hub", "repository": task.hub.repository, "revision": task.hub.revision}
    files = {split: split_file(task, str(data.dir), split) for split in task.splits}
    return {"source": "local"} | {split: file_sha256(path) for split, path in files.items()}
