"""A run's key: a hash of everything that can change its result, and of nothing else. Does not import torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from rosa_bench.config import GROUPS, Model, Run, target_class
from rosa_bench.core.method import Method
from rosa_bench.core.schema import key_marks
from rosa_bench.data.source import fingerprint
from rosa_bench.errors import UsageError
from rosa_bench.models.identity import identity
from rosa_bench.records.record import Record, read_record
from rosa_bench.records.start import find_start
from rosa_bench.system.console import warn_once
from rosa_bench.system.files import clear_temporaries

APART = {"model", "data", "tracker"}  # groups that enter a key by content, or not at all
NAMED = {"method", "task"}  # groups whose choices have their own classes


def identity_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a resolved configuration that can change a result, without model and data.

    Model and data enter the key by content (`config_key`). Method and task enter by the names of their choices, not
    by the import paths of their classes. `Neutral` fields are omitted, as are `Added` fields with the marked value.
    """
    top = _identifying(config, Run)
    parts = {name: value for name, value in top.items() if name not in GROUPS and name != "choices"}
    choices = config.get("choices") or {}
    for group in GROUPS:
        if group not in APART:
            node = config[group]
            target = str(node.get("_target_", ""))
            parts[group] = _identifying(node, class_of(group, target))
            if group in NAMED:
                parts[group]["choice"] = choices.get(group) or target.rpartition(".")[2].lower()
    if parts["train"].get("max_steps") is not None:
        parts["train"].pop("epochs", None)  # max_steps takes precedence
    return parts


def model_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The backbone's options in a resolved configuration, without `Added` fields that have the marked value."""
    return _identifying(config["model"], Model)


def _identifying(node: Mapping[str, Any], cls: type | None) -> dict[str, Any]:
    neutral, added = key_marks(cls) if cls is not None else (frozenset(), {})
    dropped = {name for name, value in added.items() if name in node and node[name] == value}
    return {name: value for name, value in node.items() if name != "_target_" and name not in neutral | dropped}


_known_class = cache(target_class)  # a class that is not found may be defined or imported later


def class_of(group: str, target: str) -> type | None:
    """The configuration class; None if this version does not have it."""
    try:
        return _known_class(group, target)
    except UsageError:
        return None


def method_class(options: Mapping[str, Any]) -> type[Method]:
    """The class of a method's options in a record; `Method` if this version does not have it."""
    return cast(type[Method], class_of("method", str(options.get("_target_", ""))) or Method)


def config_key(run: Run) -> str:
    """The sha256 of a run's configuration, the content of the files it loads, and the identity of its rows."""
    parts = identity_parts(run.to_dict())
    parts |= {"model": identity(run.model, run.task), "data": fingerprint(run.task, run.data)}
    if (start := find_start(run)) is not None:
        parts["start"] = start.sha256
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def run_id(run: Run, key: str) -> str:
    """`<task>-<model>-<method>-s<seed>-<8 hex of the key>`, safe as a folder name."""
    return f"{run_name(run)}-{key[:8]}"


def run_name(run: Run) -> str:
    """The readable part of a run's id, defined even without rows or weights to compute a key from."""
    model = re.sub(r"[^A-Za-z0-9_.]+", "_", run.model.name)[:48]
    return f"{run.task.name}-{model}-{run.method.name}-s{run.seed}"


def clear_finished(folder: Path, keep_checkpoints: bool) -> None:
    """Delete files that only an unfinished run needs, including those of a run killed right after its record."""
    with contextlib.suppress(OSError):  # a read-only folder
        clear_temporaries(folder)
        for path in folder.glob("decoding-*.jsonl"):
            path.unlink(missing_ok=True)
        for path in [] if keep_checkpoints else folder.glob("checkpoint-*"):
            shutil.rmtree(path, ignore_errors=True)


def finished(run: Run, folder: Path, key: str) -> Record | None:
    """The record of this run, if it is done and `force` is not set."""
    path = folder / "record.json"
    if run.force or not path.is_file():
        return None
    try:
        record = read_record(path)
    except UsageError as error:
        warn_once(f"rosa_bench: {error}; running it again")
        return None
    return record if record.status == "done" and record.key == key else None
