"""Run the cells of a suite with a limit on parallel jobs, and report progress."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, UsageError
from rosa_bench.records.record import Record, Status, write_record
from rosa_bench.suite.gpus import Card, Placement
from rosa_bench.suite.plan import Cell, State, device_peak, duration, estimate
from rosa_bench.suite.rate_search import SETTLED, is_repeated, just_ran_out
from rosa_bench.system.console import counted, tell, warn
from rosa_bench.system.locks import claimed, held

POLL_S = 0.2
FLEET_POLL_S = 1.0  # interval between checks of cells taken by cluster workers
CARDS_S = 60.0  # interval after which the board displays the cards again
RESOURCES = "change the request with --set: gpus_per_node=0, timeout_min=240, slurm_partition=NAME"
OURS = "rosa_bench: "  # prefix of a line that explains why a run ended


class Board:
    """Runs cells, at most `jobs` at a time, and reports progress whenever it changes.

    With a `placement` each job gets one of its cards. `again` maps the ids of failed cells to retry to the start times
    of their failed runs, so that a new failure is not retried. With `leaves` the board does not wait at the end
    for cells that other processes run. `known` are finished records, used for estimates.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        executor: Any,
        jobs: int,
        again: Mapping[str, str] | None = None,
        placement: Placement | None = None,
        known: Sequence[Record] = (),
        leaves: bool = False,
    ) -> None:
        self.cells, self.executor, self.jobs, self.placement, self.leaves = cells, executor, jobs, placement, leaves
        self.again = again or {}
        self.running: dict[str, tuple[Cell, Any]] = {}
        for search in (cell.search for cell in cells if cell.search is not None):
            search.again, search.running = self.again, self.running
        self.states: dict[str, State] = {cell.id: cell.state for cell in cells}
        self.waiting = [c for c in cells if self.states[c.id] not in SETTLED or is_repeated(c, self.again)]
        self.reasons: dict[str, str] = {}  # by id, for cells that ended without a record of the reason
        self.known = {record.run_id: record for record in known if record.status == "done"}
        self.peaks: dict[str, int | None] = {}  # by id, a cell's peak GPU allocation
        self.short_of_memory: set[str] = set()  # ids of cells that need a card to themselves
        self.refused = False  # whether the cluster currently accepts no more jobs
        self.shown, self.shown_at = "", 0.0

    def run(self) -> None:
        """Run until every cell is done or has failed."""
        try:
            while self.waiting or self.running:
                self._collect()
                self._start()
                self._show()
                if self.leaves and not self.running and all(self.states[c.id] == "elsewhere" for c in self.waiting):
                    break
                time.sleep(POLL_S)
        except (KeyboardInterrupt, UsageError):
            self._stop()
            raise
        self._show()

    def _start(self) -> None:
        """Start cells in free places; a cell that another process runs is checked again later."""
        too_large: set[tuple[int | None, bool]] = set()  # sizes that currently fit no card; saves reading more records
        for cell in list(self.waiting):
            if self.refused or len(self.running) >= self.jobs or (self.placement is not None and self.placement.full):
                return
            if too_large and self._size(cell) in too_large:
                continue
            state = self.states[cell.id] = cell.state
            if state == "elsewhere" or (state == "waiting" and self._comes(cell)):
                continue
            if state in ("waiting", "done", "skipped") or (state == "failed" and not is_repeated(cell, self.again)):
                self.waiting.remove(cell)
                continue
            card = None
            if self.placement is not None:
                card = self.placement.place(cell.id, *self._size(cell))
                if card is None:
                    too_large.add(self._size(cell))
                    continue
            if (job := self._submit(cell, card)) is not None:
                self.waiting.remove(cell)
                self.running[cell.id] = (cell, job)

    def _size(self, cell: Cell) -> tuple[int | None, bool]:
        """Peak GPU allocation of a cell in bytes, None if unknown, and whether it needs a card to itself."""
        if cell.id not in self.peaks:
            self.peaks[cell.id] = device_peak(cell, list(self.known.values()))
        return self.peaks[cell.id], cell.id in self.short_of_memory

    def _submit(self, cell: Cell, card: Card | None) -> Any:
        """Submit a cell; None if Slurm refuses it for now. Raises UsageError if it does so with no job running."""
        if card is not None:  # update_parameters would accept only numbers, not card names
            self.executor.parameters.update(gpus_per_node=1, visible_gpus=(card.name,))
        try:
            with _without_signals(), contextlib.redirect_stderr(io.StringIO()):  # the error repeats sbatch's output
                return self.executor.submit(cell)
        except Exception as error:  # submitit raises its own errors
            if self.executor.cluster == "local":
                raise
            if not self.running:
                raise UsageError(f"Slurm refused the job: {_plain(error)}; {RESOURCES}") from error
            self.refused = True
            return None

    def _comes(self, cell: Cell) -> bool:
        """Whether a cell that waits for others will become ready: they will run or have just ended."""
        ahead = {other.id for other in self.waiting} | self.running.keys()
        return not cell.is_hopeless and all(
            other.id in ahead or other.state in ("done", "elsewhere") or just_ran_out(other.record)
            for other in cell.unsettled
        )

    def _collect(self) -> None:
        for key, (cell, job) in list(self.running.items()):
            if not job.done():
                continue
            self.refused = False
            state = cell.state
            if state in ("elsewhere", "pending"):
                state = self._unfinished(cell, job)
            self._release(cell, state)
            del self.running[key]  # only now, since a search counts a failed cell that is no longer running
            self.states[key] = state
            _forget(job, logs=state != "failed")  # a later process may reuse this id

    def _release(self, cell: Cell, state: State) -> None:
        """Release a cell's card; a cell that ran out of memory is repeated once on a card to itself."""
        record = cell.record
        if state == "done" and record is not None:
            self.known[record.run_id] = record
            self.peaks.clear()
        if self.placement is None:
            return
        too_large = state == "failed" and record is not None and record.status == "oom"
        self.placement.release(cell.id, too_large)
        if too_large and cell.id not in self.short_of_memory:
            warn(f"  {cell.name} ran out of memory; it is repeated once, alone on a card")
            self.short_of_memory.add(cell.id)
            self.waiting.append(cell)
            # if it stayed a failure, it would decide a search in another process
            _marked(cell, "oom", "interrupted", "memory ran out; the run is repeated alone on a card")

    def _unfinished(self, cell: Cell, job: Any) -> State:
        """State of a cell whose process ended without a finished record."""
        record = cell.record
        running = record is not None and record.status == "running"
        if held(cell.folder) or (running and _code(job) == EXIT_USAGE):  # another process took the cell first
            self.waiting.append(cell)
            return "elsewhere"
        if record is not None and record.status == "interrupted":
            return "pending"
        killed = "the process was killed, probably because memory ran out"
        if running and not _marked(cell, "running", "failed", killed):
            self.waiting.append(cell)
            return "elsewhere"
        self.reasons[cell.id] = _explanation(Path(job.paths.stderr))
        warn(f"  {cell.name} ended without a result; see {job.paths.stderr}")
        return "failed"

    def _stop(self) -> None:
        """Ask every running cell to save a checkpoint and exit; wait up to 20 s."""
        for _, job in self.running.values():
            if self.executor.cluster == "local":
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(int(job.job_id), signal.SIGTERM)
            else:
                job.cancel(check=False)
        until = time.monotonic() + 20
        while time.monotonic() < until and any(not job.done() for _, job in self.running.values()):
            time.sleep(POLL_S)

    def counts(self) -> dict[str, int]:
        """Number of cells by state."""
        counts = dict.fromkeys(("done", "running", "elsewhere", "failed", "waiting", "pending", "skipped"), 0)
        for cell in self.cells:
            counts["running" if cell.id in self.running else self.states[cell.id]] += 1
        return counts

    def _show(self) -> None:
        line = "  ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        late = self.placement is not None and time.monotonic() - self.shown_at > CARDS_S
        if line == self.shown and not late:
            return
        self.shown, self.shown_at = line, time.monotonic()
        left = [cell for cell in self.cells if cell in self.waiting or cell.id in self.running]
        rest = estimate(left, list(self.known.values()))
        jobs = min(self._at_once(), len(left))
        left_text = f"  (about {duration(rest.seconds / jobs)} left{rest.memory})" if left and rest.seconds else ""
        cards = "" if self.placement is None else f"  {self.placement}"
        tell(f"[{time.strftime('%H:%M:%S')}] {line}{left_text}{cards}")

    def _at_once(self) -> int:
        """Number of cells that run at a time."""
        return self.jobs if self.placement is None else max(1, len(self.running))


class Fleet(Board):
    """Watches `workers` cluster jobs that take cells until none is left.

    A worker exits when other workers hold all remaining cells. If workers end early, new ones are submitted as long as
    the previous ones finished cells.
    """

    def __init__(self, cells: Sequence[Cell], executor: Any, worker: Any, workers: int, **options: Any) -> None:
        super().__init__(cells, executor, workers, **options)
        self.worker = worker
        self.finished: int | None = None  # finished cells when workers were last submitted

    def run(self) -> None:
        """Run until no more cells can be taken."""
        try:
            while True:
                self._look()
                self._collect()
                self._show()
                if not self.running and not self._submit_workers():
                    break
                time.sleep(FLEET_POLL_S)
        except (KeyboardInterrupt, UsageError):
            self._stop()
            raise

    def _look(self) -> None:
        """Refresh the state of unfinished cells."""
        for cell in list(self.waiting):
            state = self.states[cell.id] = cell.state
            if state in ("done", "skipped") or (state == "failed" and not is_repeated(cell, self.again)):
                self.waiting.remove(cell)
                if (record := cell.record) is not None and state == "done":
                    self.known[record.run_id] = record

    def _submit_workers(self) -> bool:
        """Submit workers for cells that nobody holds; return whether there is anything to wait for."""
        states = [self.states[cell.id] for cell in self.waiting]
        finished = len(self.cells) - len(states)
        if not {"pending", "failed"} & {*states} or finished == self.finished:
            return "elsewhere" in states
        self.finished = finished
        for _ in range(min(self.jobs, len(states) - states.count("elsewhere"))):
            job = self._submit(self.worker, None)
            if job is None:
                break
            self.running[job.job_id] = (self.worker, job)
        tell(f"  {counted(len(self.running), 'worker')}: jobs {', '.join(self.running)}")
        return True

    def _collect(self) -> None:
        for name, (_, job) in list(self.running.items()):
            if not job.done():
                continue
            del self.running[name]
            code = _code(job)
            if code != EXIT_DONE:
                outcome = "could not run every cell" if code == EXIT_FAILED else "ended early"
                warn(f"  worker {name} {outcome}; see {job.paths.stderr}")
            _forget(job, logs=code == EXIT_DONE)

    def counts(self) -> dict[str, int]:
        """Number of cells by state; cells held by workers count as running."""
        counts = super().counts()
        if self.running:
            counts["running"] += counts.pop("elsewhere")
        return counts

    def _at_once(self) -> int:
        return max(1, len(self.running))


def failed_so_far(cells: Sequence[Cell]) -> dict[str, str]:
    """Start time of each failed cell, by id. Their searches have no outcome until a board has repeated them."""
    records = ((cell.id, cell.record) for cell in cells if cell.state == "failed")
    again = {name: record.started for name, record in records if record is not None}
    for cell in cells if again else ():
        vars(cell).pop("key", None)  # it may depend on the outcome
        if cell.search is not None:
            cell.search.again = again
            cell.search.reopen()
    return again


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """Make processes started inside ignore Ctrl-C and Slurm's SIGUSR2, which are meant for the run, not its watcher."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _plain(error: BaseException) -> str:
    """sbatch's error as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = next((line for line in lines if line.startswith("sbatch: error:")), lines[-1] if lines else repr(error))
    return message.removeprefix("sbatch: error: ")[:200]


def _code(job: Any) -> int | None:
    """Exit code of a cell's ended process; None if it was killed."""
    try:
        return int(job.result())
    except Exception:  # noqa: BLE001 - submitit may raise anything for a dead process
        return None


def _explanation(path: Path) -> str:
    """The last explanation that a process wrote to standard error; empty if there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix(OURS) for line in reversed(lines) if line.startswith(OURS)), "")


def _marked(cell: Cell, status: Status, new_status: Status, reason: str) -> bool:
    """Set `new_status` in a cell's record; False if it is not in `status` or another process holds the cell."""
    try:
        with claimed(cell.folder):
            record = cell.record
            if record is None or record.status != status:
                return False
            record.status, record.error = new_status, reason
            write_record(cell.folder, record)
    except UsageError:
        return False
    except OSError as error:
        warn(f"  {cell.name}: its record cannot be written ({error.strerror or error})")
    return True


def _forget(job: Any, logs: bool) -> None:
    """Remove a job's files, including its logs if `logs`."""
    for path in Path(job.paths.folder).glob(f"{job.job_id}_*" if logs else f"{job.job_id}_*.pkl"):
        path.unlink(missing_ok=True)
