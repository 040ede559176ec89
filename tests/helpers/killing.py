"""Runs the command line in new processes that are killed from outside at a time, or from inside at a place.

They are forked from a process that has imported everything, so starting is fast and no kill hits an import.
"""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from support import SMALL, on, without_cost

from rosa_bench.records.record import read_record

CONTEXT = multiprocessing.get_context("forkserver")
Task = Callable[..., Any]


def start(task: Task, *values: Any, log: Path) -> Any:
    """Start a process that calls a function of a module; its result is the exit code, its output goes to a file."""
    CONTEXT.set_forkserver_preload(["killing_imports"])
    process = CONTEXT.Process(target=_begin, args=(task, values, str(log), dict(os.environ)))
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):  # for what it imports first
        process.start()
    return process


def _begin(task: Task, values: Sequence[Any], log: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(target, stream.fileno())
    sys.exit(task(*values))


def ended(process: Any, seconds: float = 600) -> int:
    """Wait for a process; return its exit code, or the negative number of the signal that killed it."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"still running after {seconds} s")
    return process.exitcode


def command_line(arguments: Sequence[str]) -> int:
    """`python -m rosa_bench ARGUMENTS`."""
    from rosa_bench import cli

    return cli.main(arguments)


@dataclass(frozen=True)
class Place:
    """A point of a run: before or after the n-th call of a function, or halfway through it (`half`)."""

    name: str
    function: str
    count: int = 1
    half: str = ""  # a function of this module that does half of it, if not "before" or "after"

    def reach(self, do: Callable[[], Any]) -> None:
        """Make this process act when it reaches the place."""
        module, _, name = self.function.rpartition(".")
        try:
            owner = importlib.import_module(module)
        except ModuleNotFoundError:
            outer, _, cls = module.rpartition(".")
            owner = getattr(importlib.import_module(outer), cls)
        original = getattr(owner, name)
        left = self.count

        @functools.wraps(original)
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                value = globals()[self.half](original, *args, **kwargs) if self.half else None
                do()
                if self.half:
                    return value
            return original(*args, **kwargs)

        setattr(owner, name, counted)


def after(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function completely."""
    return original(*args, **kwargs)


def half_split(original: Callable[..., Any], *args: Any) -> None:
    """Factorize two weights, but not the third."""
    Place("", "rosa_bench.methods.rosa.factorize", 3).reach(lambda: os.kill(os.getpid(), signal.SIGKILL))
    original(*args)


def half_a_file(original: Callable[..., Any], state: Any, path: Path) -> None:
    """Write half of the bytes under the final name."""
    original(state, path)
    os.truncate(path, path.stat().st_size // 2)


def half_a_line(original: Callable[..., Any], owner: Any, *args: Any, **values: Any) -> None:
    """Append half of a line."""
    path = owner.path if hasattr(owner, "path") else owner.folder / "events.jsonl"
    before = path.stat().st_size if path.exists() else 0
    original(owner, *args, **values)
    os.truncate(path, (before + path.stat().st_size) // 2)


def half_removed(original: Callable[..., Any], folders: Any) -> None:
    """Delete part of a folder."""
    for folder in list(folders):
        (folder / "optimizer.pt").unlink(missing_ok=True)


def unreplaced(original: Callable[..., Any], path: Path, rows: Any) -> None:
    """Write half of a temporary file, without replacing the target."""
    path.with_name(f".{path.name}.0-dead.tmp").write_bytes(str(next(iter(rows))).encode())


def unreplaced_tensors(original: Callable[..., Any], state: Any, path: Path) -> None:
    """The same for weights."""
    path.with_name(f".{path.name}.0-dead.tmp").write_bytes(b"half")


def at(place: Place, number: int, arguments: Sequence[str]) -> int:
    """Run the command line in a process that sends itself a signal at a place."""
    place.reach(lambda: os.kill(os.getpid(), number))
    return command_line(arguments)


# In the order in which one run comes to them: each kill is of the run that the last one left.
TRAINING = [
    Place("loading", "rosa_bench.run.load"),
    Place("first record", "rosa_bench.records.recorder.write_record"),
    Place("training", "rosa_bench.training.trainer.BenchTrainer.training_step", 4, "after"),
    Place("half a line of the curve", "rosa_bench.records.recorder.Recorder.event", 1, "half_a_line"),
    Place("half a checkpoint", "rosa_bench.records.checkpoints.save_tensors", 1, "half_a_file"),
    Place("checkpoint not yet declared whole", "rosa_bench.records.checkpoints.mark_complete"),
    Place("evaluation", "rosa_bench.training.trainer.Loop._score"),
    Place("re-factorization", "rosa_bench.methods.rosa.Rosa.split", 2, "half_split"),
    Place("half-removed checkpoint", "rosa_bench.records.checkpoints.remove", 2, "half_removed"),
]
FINISHING = [
    Place("half-written predictions", "rosa_bench.records.recorder.write_json_lines_gz", 1, "unreplaced"),
    Place("half-saved adapter", "rosa_bench.records.checkpoints.save_tensors", 1, "half_a_file"),
    Place("adapter not yet in its place", "rosa_bench.records.checkpoints.save_tensors", 1, "unreplaced_tensors"),
    Place("merging", "rosa_bench.evaluation.diagnostics.update_facts"),
    Place("before the last record", "rosa_bench.records.recorder.Recorder._write_last"),
    Place("record written, checkpoints still there", "rosa_bench.run.clear_finished"),
]
DECODING = [
    Place("decoding", "rosa_bench.evaluation.predict._generated", 2),
    Place("half a batch of texts", "rosa_bench.evaluation.journal.Journal.add", 1, "half_a_line"),
]


def arguments(folder: Path, method: str, name: str, *more: str) -> list[str]:
    """Arguments of a short run of two epochs that saves its weights and decodes texts in batches of two."""
    own = [f"method={method}", *on(name), "save=adapter", "train.threads=1", "train.eval_batch_size=2"]
    own += ["train.limit_eval=8"] if name == "gpt2_mini" else []
    return [*SMALL, f"output_dir='{folder}'", *own, *more]


def result(folder: Path) -> dict[str, Any]:
    """The parts of a run that must be bitwise equal however often it was stopped. Fails if other files remain."""
    (path,) = folder.glob("*/record.json")
    record = read_record(path)
    facts = {name: value for name, value in record.facts.items() if not name.endswith("_s")}
    lines = [json.loads(line) for line in (path.parent / "events.jsonl").read_text().splitlines()]
    curve = [{name: line.get(name) for name in ("step", "epoch", "loss", "lr", "scores")} for line in lines]
    plain = ("record.json", ".record.json", "config.yaml", "events.jsonl")
    files = {
        str(file.relative_to(path.parent)): file.read_bytes()
        for file in sorted(path.parent.rglob("*"))
        if file.is_file() and file.name not in plain
    }
    return {"record": without_cost(record), "facts": facts, "curve": curve, "files": files}


def whole(folder: Path, method: str, name: str, *more: str) -> tuple[dict[str, Any], float]:
    """The result of an uninterrupted run, and its duration in seconds."""
    process = start(command_line, arguments(folder, method, name, *more), log=folder.with_suffix(".log"))
    began = time.monotonic()  # the first start of all imports everything before it forks
    code = ended(process)
    assert code == 0, folder.with_suffix(".log").read_text()
    return result(folder), time.monotonic() - began


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The parts in which two results differ."""
    return [
        f"{part}.{name}" if isinstance(value, dict) else part
        for part in first
        for name, value in (first[part] if isinstance(first[part], dict) else {part: first[part]}).items()
        if value != (second[part].get(name) if isinstance(second[part], dict) else second[part])
    ] + [f"{name} is left" for name in second["files"].keys() - first["files"].keys()]


@dataclass
class Tally:
    """Outcomes of random kills."""

    kills: int = 0
    finished: int = 0


def killed_at_random(folder: Path, method: str, name: str, kills: int, seed: str) -> Tally:
    """Kill a run repeatedly at random times, resuming it with the same command each time.

    When a run completes, its result is compared with that of an uninterrupted run, and a new run starts. Raises
    AssertionError for the first difference or unexpected failure.
    """
    expected, seconds = whole(folder / "whole", method, name)
    moments, tally, log = random.Random(seed), Tally(), folder / "parts.log"
    parts = folder / "parts"
    while tally.kills < kills or parts.exists():
        process = start(command_line, arguments(parts, method, name), log=log)
        if tally.kills < kills:
            process.join(moments.uniform(0, seconds))
        else:
            process.join(600)
        if process.exitcode is None:
            process.kill()
        code = ended(process)
        if code == -signal.SIGKILL:
            tally.kills += 1
            continue
        assert code == 0, log.read_text()
        actual = result(parts)
        assert not differences(expected, actual), (tally, differences(expected, actual), log.read_text())
        tally.finished += 1
        shutil.rmtree(parts)
    return tally
