"""A run's key: a hash of everything that can change its result, and of nothing else. Light: no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rosa_bench.config import Run
from rosa_bench.data.source import fingerprint
from rosa_bench.errors import UsageError
from rosa_bench.models.identity import identity
from rosa_bench.records.record import Record, read_record
from rosa_bench.system.console import warn_once
from rosa_bench.system.files import clear_temporaries

# Keys that change where, how fast or how visibly a run is done, but not its result.
NEUTRAL_TOP = {"output_dir", "resume", "force", "save", "tracker", "model", "data"}
NEUTRAL_TRAIN = {
    "micro_batch_size",
    "eval_batch_size",
    "log_steps",
    "checkpoint_steps",
    "keep_checkpoints",
    "num_workers",
    "device",
    "threads",
    "gradient_checkpointing",
    "matmul",
    "fused",
}
NEUTRAL_METHOD = {"solver"}  # ROSA's way to the same directions
NEUTRAL_TASK = {"folder"}
# Fields younger than the records that exist, each with the value under which a run is what it was before them. While a
# field has that value it is left out, so that a new option leaves finished runs finished.
LATER: dict[tuple[str, str], Any] = {
    ("train", "head_lr"): None,
    ("method", "score_ranks"): None,
    ("method", "score_scale"): "trained",
}


def identity_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved configuration can change a result; model and rows apart, which are known by content."""
    kept = {key: value for key, value in config.items() if key not in NEUTRAL_TOP}
    kept["train"] = {key: value for key, value in config["train"].items() if key not in NEUTRAL_TRAIN}
    kept["method"] = {key: value for key, value in config["method"].items() if key not in NEUTRAL_METHOD}
    kept["task"] = {key: value for key, value in config["task"].items() if key not in NEUTRAL_TASK}
    for (group, name), old in LATER.items():
        if name in kept[group] and kept[group][name] == old:
            kept[group] = {key: value for key, value in kept[group].items() if key != name}
    if kept["train"].get("max_steps") is not None and kept["train"].get("epochs") is not None:
        kept["train"].pop("epochs")  # max_steps wins
    return kept


def config_key(run: Run) -> str:
    """The sha256 of a run's identity: configuration, content of the backbone's files, identity of the rows."""
    kept = identity_parts(run.to_dict())
    kept |= {"model": identity(run.model), "data": fingerprint(run.task, run.data)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def method_name(run: Run) -> str:
    """The method's name in records."""
    return run.method.name


def run_id(run: Run, key: str) -> str:
    """`<task>-<model>-<method>-s<seed>-<8 hex of the key>`, safe as a folder name."""
    return f"{run_name(run)}-{key[:8]}"


def run_name(run: Run) -> str:
    """What of a run's id a reader knows it by, also where there are no rows or weights to make a key of."""
    model = re.sub(r"[^A-Za-z0-9_.]+", "_", run.model.name)[:48]
    return f"{run.task.name}-{model}-{method_name(run)}-s{run.seed}"


def clear_finished(folder: Path, keep_checkpoints: bool) -> None:
    """Delete what only an unfinished run needs; also what one left that was killed between its record and this."""
    with contextlib.suppress(OSError):  # a folder that can only be read
        clear_temporaries(folder)
        for path in folder.glob("decoding-*.jsonl"):
            path.unlink(missing_ok=True)
        for path in [] if keep_checkpoints else folder.glob("checkpoint-*"):
            shutil.rmtree(path, ignore_errors=True)


def finished(run: Run, folder: Path, key: str) -> Record | None:
    """The record of this very run if it is done and is not to be forced again."""
    path = folder / "record.json"
    if run.force or not path.is_file():
        return None
    try:
        record = read_record(path)
    except UsageError as error:
        warn_once(f"rosa_bench: {error}; the run is done again")
        return None
    return record if record.status == "done" and record.key == key else None
