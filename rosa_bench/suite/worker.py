"""A cell of a sweep in a process of its own, so that nothing of one run, its peak of memory least of all, is another's.

The processes are forked from one that has imported everything and computed nothing, so a start costs little.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from rosa_bench import cli
from rosa_bench.config import Run
from rosa_bench.errors import EXIT_FAILED, EXIT_INTERRUPTED
from rosa_bench.system.console import warn


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
        warn("rosa_bench: the cell's process was killed; the same command goes on with it")
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
    sys.exit(cli.cell_code(run))
