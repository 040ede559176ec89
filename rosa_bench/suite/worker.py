"""Run a cell, in this process or a new one, and turn its outcome into an exit code and plain messages.

In a new process no state of another run, such as its peak memory, carries over. Processes are forked from a server that
has imported everything and computed nothing, so starting one is cheap.
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
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, UsageError, not_installed
from rosa_bench.evaluation.artefacts import lacking
from rosa_bench.records.display import in_words, result_table
from rosa_bench.records.record import Record, read_record
from rosa_bench.records.run_key import clear_finished, config_key, finished, run_id
from rosa_bench.system import hub
from rosa_bench.system.console import complain, plain_os, tell, warn
from rosa_bench.system.distributed import is_first
from rosa_bench.system.files import describe_error
from rosa_bench.system.locks import held
from rosa_bench.system.signals import as_keyboard_interrupt


def cell_code(run: Run) -> int:
    """Run a cell and print any error; return its exit code."""
    return exit_code(lambda: run_cell(run))


def exit_code(work: Callable[[], int]) -> int:
    """Do work that returns an exit code and print any error; return the exit code."""
    try:
        with as_keyboard_interrupt():
            return work()
    except UsageError as error:
        return complain(str(error))
    except ModuleNotFoundError as error:
        if os.environ.get("ROSA_BENCH_TRACEBACK"):
            raise
        return complain(not_installed(error))
    except OSError as error:
        return complain(plain_os(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def as_job(work: Callable[[], int]) -> int:
    """Run a job under submitit, whose time-limit signal (SIGUSR2) makes it exit cleanly; return its exit code.

    An interrupted run has saved its checkpoint by then. On Slurm the job is requeued after this signal. After any other
    signal the job leaves no result and Slurm decides: it requeues after a preemption, not after `scancel`.
    """
    requeue: Any = signal.getsignal(signal.SIGUSR2)
    if os.environ.get("SUBMITIT_EXECUTOR") is None or not callable(requeue):
        return work()
    signals = []

    def end(number: int, frame: Any) -> None:
        signals.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, end)
    try:
        code = work()
    finally:
        signal.signal(signal.SIGUSR2, requeue)
    in_worker = os.environ["SUBMITIT_EXECUTOR"] == "local" and "SLURM_JOB_ID" in os.environ
    if code == EXIT_INTERRUPTED and not in_worker:
        if signals:
            requeue(signal.SIGUSR2, None)  # ends the process
        if os.environ["SUBMITIT_EXECUTOR"] == "slurm":
            sys.exit(EXIT_INTERRUPTED)
    return code


def report_if_done(run: Run) -> int | None:
    """Report a run that is already done and return the exit code; None if it is not done."""
    key = config_key(run)
    folder = Path(run.output_dir) / run_id(run, key)
    if (record := finished(run, folder, key)) is None or lacking(run, folder, record):
        return None
    if is_first() and not held(folder):
        clear_finished(folder, bool(record.config["train"].get("keep_checkpoints")))
    tell(f"already done ({record.finished}); set force=true to run it again")
    tell(result_table([record], [folder]))
    return EXIT_DONE


def run_cell(run: Run) -> int:
    """Run a cell, or report that it is already done; return its exit code."""
    if (code := report_if_done(run)) is not None:
        return code
    folder = Path(run.output_dir) / run_id(run, config_key(run))
    if is_first():
        tell(f"{in_words(run)}\n  folder {folder}")
    hub.prepare(run.needs_hub)
    from rosa_bench.run import run as run_experiment

    try:
        record = run_experiment(run)
    except (UsageError, ModuleNotFoundError):
        raise
    except Exception as error:
        recorded = _failed(folder)
        message = describe_error(error, folder) if recorded is None else str(recorded.error)
        warn(f"rosa_bench: failed: {' '.join(message.split())[:400]}")
        if recorded is not None:
            warn(f"rosa_bench: see {folder / 'record.json'}")
        if os.environ.get("ROSA_BENCH_TRACEBACK"):
            raise
        return EXIT_FAILED
    if is_first():
        tell(result_table([record], [folder]))
    return EXIT_DONE


def _failed(folder: Path) -> Record | None:
    """The record of a run, if it says that the run failed; on a full disk it may be missing."""
    try:
        record = read_record(folder / "record.json")
    except UsageError:
        return None
    return record if record.status in ("failed", "oom") else None


def run_apart(run: Run) -> int:
    """Run a cell in a new process; return its exit code. If interrupted, wait for the cell's checkpoint.

    Raises:
        KeyboardInterrupt: if the cell was interrupted.
    """
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # in a joblib worker; unknown to multiprocessing
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rosa_bench.run"])
    sys.stdout.flush()
    process = context.Process(target=_child, args=(run,))
    with _passing_on(process):
        process.start()
        while process.is_alive():
            with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C reaches the cell too, which exits by itself
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
    """Forward SIGTERM to the cell."""

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
