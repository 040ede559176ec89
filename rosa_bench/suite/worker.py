"""Runs one cell, here or in a process of its own, and turns how it ended into an exit code and plain lines.

In a process of its own nothing of one run, its peak of memory least of all, is another's.

The processes are forked from one that has imported everything and computed nothing, so a start costs little.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rosa_bench.config import Run
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, UsageError
from rosa_bench.evaluation.artefacts import lacking
from rosa_bench.records.display import result_table
from rosa_bench.records.record import Record, read_record
from rosa_bench.records.run_key import clear_finished, config_key, finished, run_id
from rosa_bench.system import hub
from rosa_bench.system.console import complain, plain_os, tell, warn
from rosa_bench.system.distributed import is_first
from rosa_bench.system.files import describe_error
from rosa_bench.system.locks import held
from rosa_bench.system.signals import as_keyboard_interrupt


def cell_code(run: Run) -> int:
    """Run one cell, saying what went wrong; returns its exit code."""
    try:
        with as_keyboard_interrupt():
            return run_cell(run)
    except UsageError as error:
        return complain(str(error))
    except OSError as error:
        return complain(plain_os(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def as_job(work: Callable[[], int]) -> int:
    """Do a job's work under submitit, whose signal for a time limit (SIGUSR2) lets it end in order; returns its code.

    What was interrupted has kept its checkpoint by then. On Slurm the job is queued again after such a signal, and
    leaves no result after another one, so that Slurm decides whether it is: after a preemption, not after `scancel`.
    """
    requeue: Any = signal.getsignal(signal.SIGUSR2)
    if os.environ.get("SUBMITIT_EXECUTOR") is None or not callable(requeue):
        return work()
    asked = []

    def end(number: int, frame: Any) -> None:
        asked.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, end)
    try:
        code = work()
    finally:
        signal.signal(signal.SIGUSR2, requeue)
    in_worker = os.environ["SUBMITIT_EXECUTOR"] == "local" and "SLURM_JOB_ID" in os.environ
    if code == EXIT_INTERRUPTED and not in_worker:
        if asked:
            requeue(signal.SIGUSR2, None)  # which ends the process
        if os.environ["SUBMITIT_EXECUTOR"] == "slurm":
            sys.exit(EXIT_INTERRUPTED)
    return code


def told_if_done(run: Run) -> int | None:
    """Say so and return the exit code if a run is done already; None if it is not."""
    key = config_key(run)
    folder = Path(run.output_dir) / run_id(run, key)
    if (record := finished(run, folder, key)) is None or lacking(run, folder) is not None:
        return None
    if is_first() and not held(folder):
        clear_finished(folder, bool(record.config["train"].get("keep_checkpoints")))
    tell(f"done already, nothing to do ({record.finished}); force=true runs it again")
    tell(result_table([record], [folder]))
    return EXIT_DONE


def run_cell(run: Run) -> int:
    """Run one cell, or say that it is done already; returns its exit code."""
    if (code := told_if_done(run)) is not None:
        return code
    folder = Path(run.output_dir) / run_id(run, config_key(run))
    if is_first():
        tell(f"{folder.name}: {run.method!r}")
    hub.prepare(run.needs_hub)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from rosa_bench.run import run as run_experiment

    try:
        record: Record | None = run_experiment(run)
    except UsageError:
        raise
    except Exception as error:
        recorded = _failed(folder)
        said = describe_error(error, folder) if recorded is None else str(recorded.error)
        warn(f"rosa_bench: failed: {' '.join(said.split())[:400]}")
        if recorded is not None:
            warn(f"rosa_bench: the record says more: {folder / 'record.json'}")
        if os.environ.get("ROSA_BENCH_TRACEBACK"):
            raise
        return EXIT_FAILED
    if record is not None and is_first():
        tell(result_table([record], [folder]))
    return EXIT_DONE


def _failed(folder: Path) -> Record | None:
    """The record of a run that failed, if it says so; on a full disk it may not have been written."""
    try:
        record = read_record(folder / "record.json")
    except UsageError:
        return None
    return record if record.status in ("failed", "oom") else None


def run_apart(run: Run) -> int:
    """Run one cell in a new process; returns its exit code. When asked to stop it waits for the cell's checkpoint.

    Raises:
        KeyboardInterrupt: when the cell was interrupted.
    """
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # in a worker of joblib; nobody else knows the name
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rosa_bench.run"])
    sys.stdout.flush()
    process = context.Process(target=_child, args=(run,))
    with _passing_on(process):
        process.start()
        while process.is_alive():
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the cell too, which ends by itself
                process.join()
    code = process.exitcode
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code is None or code < 0:
        warn("rosa_bench: the cell's process was killed; rerun the same command to resume it")
        return EXIT_FAILED
    return code


@contextlib.contextmanager
def _passing_on(process: BaseProcess) -> Iterator[None]:
    """A wish to end (SIGTERM) goes to the cell."""

    def end(number: int, frame: Any) -> None:
        if process.pid is not None:
            process.terminate()

    before = None
    with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
        before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _child(run: Run) -> None:
    sys.exit(cell_code(run))
