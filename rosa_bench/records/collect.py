"""Records below folders, gathered into groups of runs that differ in their seeds alone. Made for many: one pass."""

from __future__ import annotations

import gc
import json
import marshal
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rosa_bench.errors import UsageError
from rosa_bench.records.archive import is_archive, read_archive
from rosa_bench.records.record import Record, read_record
from rosa_bench.records.run_key import identity_parts, model_parts
from rosa_bench.records.validate import checked

UNFINISHED = ("failed", "oom")  # without a result, and not to be expected one


def as_text(options: Any) -> str:
    """Part of a configuration as text: the same for the same values."""
    return json.dumps(options, sort_keys=True)


@dataclass
class Group:
    """Runs of one setting. `parts` is what identifies it beside model and rows: method, task and train options."""

    parts: Mapping[str, Any]
    records: dict[int, Record] = field(default_factory=dict)  # done, by seed
    unfinished: dict[int, Record] = field(default_factory=dict)

    @property
    def first(self) -> Record:
        """One of them, to read what they share."""
        return next(iter(self.records.values() or self.unfinished.values()))

    @cached_property
    def where(self) -> tuple[str, str, str]:
        """Task, model and method options, by which a table finds a group."""
        return self.first.task, self.first.model, as_text(self.parts["method"])


@dataclass
class Collection:
    """What was found: groups, where each record lies (by the identity of the object), and what was left out and why."""

    groups: list[Group]
    folders: dict[int, Path]
    broken: list[str]
    events: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # training curves that archives hold

    @property
    def records(self) -> list[Record]:
        """Every record of a run that is done."""
        return [record for group in self.groups for record in group.records.values()]

    def folder(self, record: Record) -> Path:
        """The folder of a run."""
        return self.folders[id(record)]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Many small objects are made and kept: looking for garbage among them takes longer than making them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def collect(roots: Sequence[Path]) -> Collection:
    """All records below `roots`; of several of one run the first root's is taken, and in a root the last finished one.

    A damaged or foreign record is named in `broken` and left out, and so is one beside which another was taken.
    """
    found = Collection([], {}, [])
    by_setting: dict[str, Group] = {}
    settings: dict[bytes, tuple[str, dict[str, Any], dict[str, Any]]] = {}
    taken: dict[str, Record] = {}
    chosen = _Choice(found, roots)
    with _without_collector():
        for root in roots:
            for record, folder in _read(root, found):
                if record.status in ("done", *UNFINISHED):
                    found.folders[id(record)] = folder
                    chosen.put(taken, record.key, record)
        for record in taken.values():
            setting, parts, record.config = _shared(record, settings)
            group = by_setting.setdefault(setting, Group(parts))
            chosen.put(group.records if record.status == "done" else group.unfinished, record.seed, record)
    found.groups = list(by_setting.values())
    return found


def _read(root: Path, found: Collection) -> Iterator[tuple[Record, Path]]:
    """The whole records below a folder or in an archive, each with its folder; the others are named in `broken`."""
    if is_archive(root):
        archive = read_archive(root)
        found.broken += archive.broken
        for record in archive.records:
            folder = root / record.run_id
            try:
                checked(record, folder)
            except UsageError as error:
                found.broken.append(f"left out: {error}")
                continue
            if record.run_id in archive.events:
                found.events[id(record)] = archive.events[record.run_id]
            yield record, folder
        return
    for path in record_files(root):
        try:
            record = checked(read_record(path), path)
        except UsageError as error:
            found.broken.append(f"left out: {error}")
            continue
        yield record, path.parent


@dataclass(frozen=True)
class _Choice:
    """Of records of one run takes one, and names what was left out unless it lies below a later root."""

    found: Collection
    roots: Sequence[Path]

    def put(self, taken: dict[Any, Record], name: Any, record: Record) -> None:
        """Under a name the better one of a record and of what is there."""
        other = taken.setdefault(name, record)
        if other is record:
            return
        better, worse = (record, other) if self._rank(record) > self._rank(other) else (other, record)
        taken[name] = better
        if better.status == worse.status and self._rank(better)[1] == self._rank(worse)[1]:
            left, kept = (self.found.folder(record) for record in (worse, better))
            if left != kept:
                self.found.broken.append(f"left out: {left}: seed {worse.seed} of this setting is taken from {kept}")

    def _rank(self, record: Record) -> tuple[bool, int, str]:
        root = self.roots.index(self.found.folder(record).parent)
        return record.status == "done", -root, str(record.finished or "")


def record_files(root: Path) -> list[Path]:
    """`*/record.json` below a folder, by name; nothing if there is no such folder."""
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208 - of 100,000 paths as objects the sorting alone takes seconds
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [root / name / "record.json" for name in names if os.path.exists(f"{root}/{name}/record.json")]  # noqa: PTH110


def started_from(record: Record) -> str | None:
    """Task and method of the run that a run started from, or the hash of what it loaded; None without a start."""
    start = record.facts.get("start")
    if not isinstance(start, dict):
        return None
    return f"{start['task']} {start['method']}" if {"task", "method"} <= start.keys() else str(start.get("sha256"))


def _shared(
    record: Record, known: dict[bytes, tuple[str, dict[str, Any], dict[str, Any]]]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A record's setting as text, its parts, and its configuration as the object that all runs of the setting share."""
    own = {
        name: value
        for name, value in record.config.items()
        if name not in ("seed", "output_dir", "resume", "force", "start")
    }
    start = started_from(record)  # of every seed from another run, so from other weights
    rows = record.data.get("sha256"), record.data.get("source"), None if start else record.facts.get("backbone_hash")
    short = marshal.dumps((own, rows, start), 2)  # quick, and the same for the same values in the same order
    if short not in known:
        parts = identity_parts(own) | ({"start": start} if start else {})
        setting = as_text([parts, model_parts(own), rows])
        known[short] = (setting, parts, own)
    return known[short]
