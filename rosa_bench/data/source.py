"""Rows of a split from the embedded data, local files or the hub, with each row's location and a hash of all rows."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rosa_bench.config import Data
from rosa_bench.core.task import TUNE, Example, Hub, Task, Upstream
from rosa_bench.data import upstream
from rosa_bench.data.releases import Comparison
from rosa_bench.errors import UsageError, first_line
from rosa_bench.system import hub
from rosa_bench.system.console import warn_once
from rosa_bench.system.files import file_sha256
from rosa_bench.system.strict_json import is_text, loads

SUFFIXES = (".jsonl", ".jsonl.gz")
VALIDATION = ("validation", "dev", "devel", "valid", "val")  # common names of the validation split
ROWS = re.compile(r"\.(jsonl?|ndjson|tsv|csv|txt|parquet|arrow|xml)(\.(gz|zip|bz2|xz|zst))?$")
LONGEST_LINE = 2**24  # bytes; real rows have thousands


@dataclass(frozen=True)
class Split:
    """The examples of a split, with the number of its raw rows and their sha256 (both before any limit)."""

    examples: Sequence[Example]
    rows: int
    sha256: str
    released: bool | None = None  # whether the rows match the public release; None if unknown
    upstream: str | None = None  # repository and commit, if the rows are not from the hub


def load_split(task: Task, data: Data, split: str, limit: int | None = None) -> Split:
    """Read one split. With `limit`, only its first `limit` raw rows become examples.

    With `task.tune_share`, the splits `train` and `tune` are the two parts of the training rows.

    Raises:
        UsageError: if a file is missing, the hub does not provide the split, or a row is malformed; names file, line
            and field.
    """
    stored = stored_split(task, split)
    source = _SOURCES[data.source](task, data, stored)
    digest, comparison, rows = hashlib.sha256(), Comparison(task, stored), 0
    examples: list[Example] = []
    parts = {TUNE: True, "train": False} if task.tune_share is not None else {}
    for row, where in source.rows:
        example = task.parse(row, where) if parts or limit is None or rows < limit else None
        comparison.add(row)
        if example is not None and split in parts and task.is_tuning_row(example) != parts[split]:
            continue
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)  # parquet also has times and bytes
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
        if example is not None and (limit is None or rows < limit):
            examples += task.targets(example) if split == "train" else [example]
        rows += 1
    if split == TUNE:
        examples = _with_all_references(examples)
    elif split != "train":
        examples = list(task.pooled(examples))
    if not examples:
        raise UsageError(f"{task.name}: split {split!r} of data={data.source} has no rows")
    released = None if data.source == "embedded" else comparison.same
    if data.source == "hub" and released is False:
        warn_once(
            f"rosa_bench: data=hub: the {comparison.rows:,} rows of {task.name}/{split} differ from the public "
            f"release; tables mark the scores"
        )
    return Split(examples, rows, digest.hexdigest(), released, source.upstream)


def stored_split(task: Task, split: str) -> str:
    """The split whose rows are read for `split`: `tune` is part of the training rows."""
    return "train" if split == TUNE and task.tune_share is not None else split


def _with_all_references(examples: Sequence[Example]) -> list[Example]:
    """Merge examples with equal texts that differ in their reference, as training rows of generation tasks do."""
    merged: dict[object, Example] = {}
    for index, example in enumerate(examples):
        first = merged.setdefault(example.texts if example.references else index, example)
        if first is not example:
            references = dict.fromkeys([*first.references, *example.references])
            merged[example.texts] = replace(first, references=tuple(references))
    return list(merged.values())


@dataclass(frozen=True)
class Source:
    """The rows of a split, each with its location."""

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
    """The file of a split below `folder`. Raises UsageError, naming the expected file and the files found."""
    base = Path(folder) / task.folder
    for suffix in SUFFIXES:
        if (path := base / f"{split}{suffix}").is_file():
            return path
    missing = f"{base / split}.jsonl (or .jsonl.gz) is missing"
    if not base.is_dir():
        files = _data_files(Path(folder))
        parts, inner = Path(folder).absolute().parts, Path(task.folder).parts
        if parts[-len(inner) :] == inner:
            raise UsageError(f"{missing}; set data.dir={Path(*parts[: -len(inner)])}")
        advice = f"; move {', '.join(files)} to {base}" if files else f": {base} is not a folder"
        raise UsageError(f"{missing}{advice}")
    files = _data_files(base)
    names = [split.replace("validation", word) for word in VALIDATION]
    similar = next((file for name in names for file in files if file.partition(".")[0].lower() == name), None)
    raise UsageError(f"{missing}; the folder has {', '.join(files) or 'no data files'}{_way(similar, split)}")


def _data_files(folder: Path) -> list[str]:
    """Names of the files in a folder that may hold rows."""
    return sorted(path.name for path in folder.glob("*") if path.is_file() and ROWS.search(path.name))


def _way(similar: str | None, split: str) -> str:
    """How to turn a file of another name or format into the file of a split."""
    if similar is None:
        return ""
    suffix = similar[len(similar.partition(".")[0]) :]
    if suffix in SUFFIXES:
        return f"; rename {similar} to {split}{suffix}"
    return f"; convert {similar} to {split}.jsonl, one JSON object per line"


def json_lines(path: Path) -> Iterator[tuple[Any, str]]:
    """Parse each line of a JSON-lines file, plain or gzip, and yield it with its `file:line`.

    Handles a BOM and CRLF, and skips blank lines.

    Raises:
        UsageError: for a broken archive, bytes that are not UTF-8, or a line that is not JSON or is too long for a row.
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
        raise UsageError(f"{where}: longer than {LONGEST_LINE >> 20} MB, too long for a row")
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
        raise UsageError(f"{where}: contains an unpaired surrogate")
    return row


def _local(task: Task, data: Data, split: str) -> Iterator[tuple[dict[str, Any], str]]:
    for row, where in json_lines(split_file(task, str(data.dir), split)):
        if not isinstance(row, dict):
            raise UsageError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
        yield row, where


def _hub(task: Task, data: Data, split: str) -> Source:
    source = task.hub
    try:
        if isinstance(source, Upstream):
            return _upstream(task, source, split, source.repository)
        return _snapshot(task, source, split)
    except hub.HubError as error:
        advice = "Use data=embedded, or data=local data.dir=FOLDER"
        raise UsageError(f"data=hub: {task.name}/{split}: {error}. {advice}") from error


def _snapshot(task: Task, source: Hub, split: str) -> Source:
    """Rows from the hub's parquet files, or from the upstream file if the hub no longer has them."""
    try:
        files = hub.dataset(source.repository, source.revision, source.files.replace("{split}", split))
    except hub.HubError as error:
        if source.upstream is None or not (error.gone or upstream.is_cached(source.upstream)):
            raise
        hub_error = error
    else:
        return Source(_placed(task.from_hub(_parquet_rows(files), split), source.repository, split))
    try:
        return _upstream(task, source.upstream, split, source.repository)
    except hub.HubError as error:
        raise hub.HubError(f"{hub_error}; {error}") from error


def _upstream(task: Task, source: Upstream, split: str, name: str) -> Source:
    """Rows from an upstream file. Ids start with `name`, as on the hub, so that runs on either can be paired."""
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
            raise UsageError(f"{file}: not a readable parquet file ({first_line(error)[:160]})") from error


_SOURCES: dict[str, Callable[[Task, Data, str], Source]] = {
    "embedded": lambda task, _, split: Source(_embedded(task, split)),
    "local": lambda task, data, split: Source(_local(task, data, split)),
    "hub": _hub,
}


def fingerprint(task: Task, data: Data) -> dict[str, str]:
    """Identify the rows in a run's key without parsing them; local files are identified by content."""
    if data.source == "embedded":
        from rosa_bench import embedded

        return {"source": f"embedded {embedded.VERSION}"}
    if data.source == "hub":
        return {"source": "hub", "repository": task.hub.repository, "revision": task.hub.revision}
    stored = dict.fromkeys(stored_split(task, split) for split in task.splits)
    files = {split: split_file(task, str(data.dir), split) for split in stored}
    return {"source": "local"} | {split: file_sha256(path) for split, path in files.items()}
