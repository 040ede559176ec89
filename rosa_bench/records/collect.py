"""Reads records below folders in one pass and groups runs that differ only in their seed."""

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

UNFINISHED = ("failed", "oom")  # ended without a result


def as_text(options: Any) -> str:
    """Part of a configuration as canonical JSON: equal values give equal text."""
    return json.dumps(options, sort_keys=True)


@dataclass
class Group:
    """Runs of one setting, identified by model, rows and `parts`: method, task and train options."""

    parts: Mapping[str, Any]
    records: dict[int, Record] = field(default_factory=dict)  # finished runs by seed
    unfinished: dict[int, Record] = field(default_factory=dict)  # failed runs by seed

    @property
    def all_records(self) -> list[Record]:
        """Finished runs, then failed ones."""
        return [*self.records.values(), *self.unfinished.values()]

    @property
    def first(self) -> Record:
        """Any record of the group, to read what all records share."""
        return next(iter(self.records.values() or self.unfinished.values()))

    @cached_property
    def where(self) -> tuple[str, str, str]:
        """Task, model and method options, by which tables find a group."""
        return self.first.task, self.first.model, as_text(self.parts["method"])


@dataclass
class Collection:
    """Groups of records, and messages about skipped records. The other fields are keyed by the `id` of a record.

    `resampled` maps a variant to its scores on resampled examples.
    """

    groups: list[Group]
    folders: dict[int, Path]
    broken: list[str]
    events: dict[int, list[dict[str, Any]]] = field(default_factory=dict)  # training curves that archives hold
    resampled: dict[int, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        """Every record of a finished run."""
        return [record for group in self.groups for record in group.records.values()]

    def folder(self, record: Record) -> Path:
        return self.folders[id(record)]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause garbage collection, which takes longer than creating the many small objects of records."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def collect(roots: Sequence[Path]) -> Collection:
    """Read all records below `roots`, one per run: finished before failed, then from the first root, then the newest.

    `broken` names skipped records: damaged, incompatible, or duplicates of equal status below the same root.
    """
    collection = Collection([], {}, [])
    by_setting: dict[str, Group] = {}
    settings: dict[bytes, tuple[str, dict[str, Any], dict[str, Any]]] = {}
    selected: dict[str, Record] = {}
    resampled: dict[str, tuple[Any, dict[str, list[float]]]] = {}  # scores and resampled scores of archives, by key
    choice = _Choice(collection, roots)
    with _without_collector():
        for root in roots:
            for record, folder in read_valid(root, collection):
                archived = collection.resampled.pop(id(record), None)
                if record.status in ("done", *UNFINISHED):
                    collection.folders[id(record)] = folder
                    choice.put(selected, record.key, record)
                    if archived is not None:
                        resampled[record.key] = record.scores, archived
        for record in selected.values():
            scores, archived = resampled.get(record.key, (None, None))
            if archived is not None and scores == record.scores:  # a copy may have no predictions
                collection.resampled[id(record)] = archived
            setting, parts, record.config = _shared(record, settings)
            group = by_setting.setdefault(setting, Group(parts))
            choice.put(group.records if record.status == "done" else group.unfinished, record.seed, record)
    collection.groups = list(by_setting.values())
    return collection


def read_valid(root: Path, collection: Collection) -> Iterator[tuple[Record, Path]]:
    """Yield the valid records of a folder or an archive with their folders; name the others in `broken`."""
    if is_archive(root):
        archive = read_archive(root)
        collection.broken += archive.broken
        for record in archive.records:
            folder = root / record.run_id
            try:
                checked(record, folder)
            except UsageError as error:
                collection.broken.append(f"skipped: {error}")
                continue
            if record.run_id in archive.events:
                collection.events[id(record)] = archive.events[record.run_id]
            if record.run_id in archive.resampled:
                collection.resampled[id(record)] = archive.resampled[record.run_id]
            yield record, folder
        return
    for path in record_files(root):
        try:
            record = checked(read_record(path), path)
        except UsageError as error:
            collection.broken.append(f"skipped: {error}")
            continue
        yield record, path.parent


@dataclass(frozen=True)
class _Choice:
    """Selects one of several records of a run. Names the others in `broken` if root and status are the same."""

    collection: Collection
    roots: Sequence[Path]

    def put(self, selected: dict[Any, Record], name: Any, record: Record) -> None:
        """Store under `name` the better of `record` and the record that is already there."""
        existing = selected.setdefault(name, record)
        if existing is record:
            return
        better, worse = (record, existing) if self._rank(record) > self._rank(existing) else (existing, record)
        selected[name] = better
        skipped, used = (self.collection.folder(record) for record in (worse, better))
        in_one_root = better.status == worse.status and self._rank(better)[1] == self._rank(worse)[1]
        if in_one_root and skipped != used:
            self.collection.broken.append(f"skipped: {skipped}: seed {worse.seed} of this setting is taken from {used}")
        self.collection.folders.pop(id(worse))  # another record may get its id
        self.collection.events.pop(id(worse), None)
        self.collection.resampled.pop(id(worse), None)

    def _rank(self, record: Record) -> tuple[bool, int, str]:
        root = self.roots.index(self.collection.folder(record).parent)
        return record.status == "done", -root, str(record.finished or "")


def record_files(root: Path) -> list[Path]:
    """`*/record.json` below a folder, sorted; empty if the folder does not exist."""
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208 - sorting 100,000 Path objects takes seconds
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [root / name / "record.json" for name in names if os.path.exists(f"{root}/{name}/record.json")]  # noqa: PTH110


def started_from(record: Record) -> str | None:
    """Task and method of the run that `start` named, or the hash of the loaded tensors; None without a start."""
    start = record.facts.get("start")
    if not isinstance(start, dict):
        return None
    return f"{start['task']} {start['method']}" if {"task", "method"} <= start.keys() else str(start.get("sha256"))


def _shared(
    record: Record, settings: dict[bytes, tuple[str, dict[str, Any], dict[str, Any]]]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A record's setting as text, its parts, and the configuration object that all runs of the setting share."""
    own = {
        name: value
        for name, value in record.config.items()
        if name not in ("seed", "output_dir", "resume", "force", "start")
    }
    start = started_from(record)  # each seed may start from another run, so the backbone hashes differ
    settings_of_start = str(record.facts["start"].get("settings", "")) if start else ""
    rows = record.data.get("sha256"), record.data.get("source"), None if start else record.facts.get("backbone_hash")
    # fast, and equal for equal values in the same order
    digest = marshal.dumps((own, rows, start, settings_of_start), 2)
    if digest not in settings:
        parts = identity_parts(own) | ({"start": start} if start else {})
        parts |= {"settings_of_start": settings_of_start} if settings_of_start else {}
        setting = as_text([parts, model_parts(own), rows])
        settings[digest] = (setting, parts, own)
    return settings[digest]
