"""Runs the cells of a suite, at most so many at a time, and tells how they stand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rosa_bench.errors import EXIT_USAGE, UsageError
from rosa_bench.records.record import write_record
from rosa_bench.suite.plan import Cell, State, duration, estimate
from rosa_bench.system.console import tell, warn
from rosa_bench.system.locks import claimed, held

POLL_S = 0.2
OURS = "rosa_bench: "  # begins a line that tells why a run ended


class Board:
    """Runs cells, at most `jobs` at a time, and tells how they stand whenever that changes."""

    def __init__(self, cells: Sequence[Cell], executor: Any, jobs: int, retry_failed: bool) -> None:
        self.cells, self.executor, self.jobs = cells, executor, jobs
        self.states: dict[str, State] = {cell.id: cell.state for cell in cells}
        left_out = ("done",) if retry_failed else ("done", "failed")
        self.waiting = [cell for cell in cells if self.states[cell.id] not in left_out]
        self.running: dict[str, tuple[Cell, Any]] = {}
        self.reasons: dict[str, str] = {}  # by id, of cells that ended without a record that says why
        self.shown = ""

    def run(self) -> None:
        """Until every cell is done or has failed."""
        try:
            while self.waiting or self.running:
                self._collect()
                self._start()
                self._show()
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            self._stop()
            raise
        self._show()

    def _start(self) -> None:
        """Fill the free places; a cell that another process has is looked at again later."""
        for cell in list(self.waiting):
            if len(self.running) >= self.jobs:
                return
            state = self.states[cell.id] = cell.state
            if state == "elsewhere" or (state == "waiting" and self._comes(cell.source)):
                continue
            self.waiting.remove(cell)
            if state == "waiting":
                continue
            if state == "done":
                continue
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, not for what watches it
            try:
                self.running[cell.id] = (cell, self.executor.submit(cell))
            finally:
                signal.signal(signal.SIGINT, before)

    def _comes(self, source: Cell | None) -> bool:
        """Whether the cell that another starts from is going to be done."""
        ahead = {cell.id for cell in self.waiting} | self.running.keys()
        return source is not None and (source.id in ahead or source.state in ("done", "elsewhere"))

    def _collect(self) -> None:
        for key, (cell, job) in list(self.running.items()):
            if not job.done():
                continue
            del self.running[key]
            state = cell.state
            if state in ("elsewhere", "pending"):
                state = self._unfinished(cell, job)
            self.states[key] = state
            if state != "failed":
                _forget(job)

    def _unfinished(self, cell: Cell, job: Any) -> State:
        """What became of a cell whose process ended without a finished record."""
        record = cell.record
        running = record is not None and record.status == "running"
        if held(cell.folder) or (running and _code(job) == EXIT_USAGE):  # another process was quicker
            self.waiting.append(cell)
            return "elsewhere"
        if record is not None and record.status == "interrupted":
            return "pending"
        if running and not _marked_killed(cell):
            self.waiting.append(cell)
            return "elsewhere"
        self.reasons[cell.id] = _said(Path(job.paths.stderr))
        warn(f"  {cell.name} ended without a result; {job.paths.stderr} may say why")
        return "failed"

    def _stop(self) -> None:
        """Ask every running cell to keep a checkpoint and end; wait for that."""
        for _, job in self.running.values():
            if self.executor.cluster == "local":
                os.kill(int(job.job_id), signal.SIGTERM)
            else:
                job.cancel()
        until = time.monotonic() + 20
        while time.monotonic() < until and any(not job.done() for _, job in self.running.values()):
            time.sleep(POLL_S)

    def counts(self) -> dict[str, int]:
        """Cells by how they stand."""
        counts = dict.fromkeys(("done", "running", "elsewhere", "failed", "waiting", "pending"), 0)
        for cell in self.cells:
            counts["running" if cell.id in self.running else self.states[cell.id]] += 1
        return counts

    def _show(self) -> None:
        line = "  ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        if line == self.shown:
            return
        self.shown = line
        left = [cell for cell in self.cells if cell in self.waiting or cell.id in self.running]
        known = [cell.record for cell in self.cells if self.states[cell.id] == "done"]
        rest = estimate(left, [record for record in known if record is not None])
        told = f"  (about {duration(rest.seconds / self.jobs)} left{rest.memory})" if left and rest.seconds else ""
        tell(f"[{time.strftime('%H:%M:%S')}] {line}{told}")


def _code(job: Any) -> int | None:
    """The exit code of a cell's process that has ended; None if it was killed."""
    try:
        return int(job.result())
    except Exception:  # noqa: BLE001 - submitit raises what it likes for a process that is no more
        return None


def _said(path: Path) -> str:
    """The last thing that a process said of itself on standard error; empty if it said nothing."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix(OURS) for line in reversed(lines) if line.startswith(OURS)), "")


def _marked_killed(cell: Cell) -> bool:
    """Write into a cell's record that its process was killed; False if it is done or another process has it by now."""
    try:
        with claimed(cell.folder):
            record = cell.record
            if record is None or record.status != "running":
                return False
            record.status, record.error = "failed", "the process was killed, as a system does that runs out of memory"
            write_record(cell.folder, record)
    except UsageError:
        return False
    except OSError as error:
        warn(f"  {cell.name}: its record cannot be written ({error.strerror or error})")
    return True


def _forget(job: Any) -> None:
    """Remove the files of a process that has nothing to tell."""
    for path in Path(job.paths.folder).glob(f"{job.job_id}_*"):
        path.unlink(missing_ok=True)
