"""`python -m rosa_bench.suite NAME`: every cell of configs/suite/NAME.yaml that is not done yet, in processes of its own.

A cell is a run; its state is read from its record and its lock, never remembered, so a suite can be killed and started
again, and several of them share the work. submitit starts the processes, here or on a Slurm cluster.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import filelock
from omegaconf import OmegaConf
from pydantic import Field, ValidationError

from rosa_bench import cli, config
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, UsageError, nearest
from rosa_bench.files import write_json
from rosa_bench.key import config_key, run_id
from rosa_bench.record import Record, lock_path, read_record, seconds
from rosa_bench.schema import Name, configured

State = Literal["done", "failed", "elsewhere", "pending"]
POLL_S = 0.2


@configured
class Suite:
    """What a file of configs/suite holds. A key with a list of values is swept; a list is meant by a text, "[q,v]"."""

    title: Name
    common: dict[str, Any] = Field(default_factory=dict)  # overrides of every cell
    cells: list[dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    overrides: tuple[str, ...]
    run: config.Run
    key: str

    @property
    def folder(self) -> Path:
        """Where its record is."""
        return Path(self.run.output_dir) / run_id(self.run, self.key)

    @property
    def record(self) -> Record | None:
        """Its record, if there is a whole one of this very run."""
        try:
            record = read_record(self.folder / "record.json")
        except UsageError:
            return None
        return record if record.key == self.key else None

    @property
    def state(self) -> State:
        """`elsewhere` while some process holds its lock; a run that was interrupted or killed is pending."""
        record = self.record
        if record is not None and record.status == "done":
            return "done"
        if locked(self.folder):
            return "elsewhere"
        return "failed" if record is not None and record.status in ("failed", "oom") else "pending"

    def __call__(self) -> int:
        """Run it; what submitit calls in the new process."""
        try:
            return cli.run_cell(self.run)
        except UsageError as error:
            return cli.complain(str(error))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED

    def checkpoint(self, *args: Any) -> Any:
        """What submitit queues again when a cluster takes the machine away: the same cell, which resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def locked(folder: Path) -> bool:
    """Whether a living process holds the folder of a run."""
    path = lock_path(folder)
    if not path.exists():
        return False
    lock = filelock.FileLock(str(path))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def load(name: str) -> Suite:
    """A suite by name. Raises UsageError for one that does not exist or is not as `Suite` says."""
    path = config.config_dir() / "suite" / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(f"suite {name} does not exist: {nearest(name, config.choices('suite'))}")
    values: Any = OmegaConf.to_container(OmegaConf.load(path))
    try:
        return Suite(**values)
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from error


def expand(overrides: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every combination of the values of swept keys, as command-line overrides."""
    values = [value if isinstance(value, list) else [value] for value in overrides.values()]
    for chosen in itertools.product(*values):
        yield tuple(f"{key}={_text(value)}" for key, value in zip(overrides, chosen, strict=True))


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def plan(suite: Suite, more: Sequence[str] = ()) -> list[Cell]:
    """Every cell of a suite once, checked before anything runs; `more` overrides all."""
    cells: dict[str, Cell] = {}
    for group in suite.cells:
        for overrides in expand({**suite.common, **group}):
            run = cli.compose([*overrides, *more])
            key = config_key(run)
            cells.setdefault(key, Cell((*overrides, *more), run, key))
    return list(cells.values())


@dataclass(frozen=True)
class Estimate:
    """What the pending cells will take, from finished neighbours; None where there is none."""

    seconds: float | None
    peak_bytes: float | None
    neighbours: int

    def __str__(self) -> str:
        if self.seconds is None:
            return "no estimate yet: no cell like these has been finished"
        memory = "" if self.peak_bytes is None else f", up to {self.peak_bytes / 1e9:.1f} GB per process"
        return f"about {duration(self.seconds)} of one process{memory} (from {self.neighbours} finished cells)"


def estimate(pending: Sequence[Cell], known: Sequence[Record]) -> Estimate:
    """The median of the nearest finished runs for each cell: same task, model and method, else less alike."""
    total, peak, used = 0.0, 0.0, set()
    for cell in pending:
        names = (cell.run.task.name, cell.run.model.name, type(cell.run.method).__name__.lower())
        alike = [[r for r in known if (r.task, r.model, r.method)[:n] == names[:n]] for n in (3, 2)]
        near = next((group for group in alike if group), None)
        if near is None:
            return Estimate(None, None, 0)
        total += statistics.median(seconds(record) for record in near)
        peak = max([peak, *(float(record.cost.get("peak_rss_bytes", 0)) for record in near)])
        used |= {record.run_id for record in near}
    return Estimate(total, peak or None, len(used))


def duration(value: float) -> str:
    """Seconds as people say them."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


class Board:
    """Runs cells, at most `jobs` at a time, and tells how they stand whenever that changes."""

    def __init__(self, cells: Sequence[Cell], executor: Any, jobs: int, retry_failed: bool) -> None:
        self.cells, self.executor, self.jobs = cells, executor, jobs
        self.states: dict[str, State] = {cell.key: cell.state for cell in cells}
        left_out = ("done",) if retry_failed else ("done", "failed")
        self.waiting = [cell for cell in cells if self.states[cell.key] not in left_out]
        self.running: dict[str, tuple[Cell, Any]] = {}
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
            state = self.states[cell.key] = cell.state
            if state == "elsewhere":
                continue
            self.waiting.remove(cell)
            if state == "done":
                continue
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, not for what watches it
            try:
                self.running[cell.key] = (cell, self.executor.submit(cell))
            finally:
                signal.signal(signal.SIGINT, before)

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
        if locked(cell.folder):  # another process was quicker
            self.waiting.append(cell)
            return "elsewhere"
        record = cell.record
        if record is not None and record.status == "interrupted":
            return "pending"
        if record is not None and record.status == "running":
            record.status, record.error = "failed", "the process was killed, as a system does that runs out of memory"
            write_json(cell.folder / "record.json", record.to_dict())
        print(f"  {cell.folder.name} ended without a result; {job.paths.stderr} may say why", file=sys.stderr)
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
        counts = dict.fromkeys(("done", "running", "elsewhere", "failed", "pending"), 0)
        for cell in self.cells:
            counts["running" if cell.key in self.running else self.states[cell.key]] += 1
        return counts

    def _show(self) -> None:
        line = "  ".join(f"{count} {name}" for name, count in self.counts().items() if count)
        if line == self.shown:
            return
        self.shown = line
        left = [cell for cell in self.cells if cell in self.waiting or cell.key in self.running]
        known = [cell.record for cell in self.cells if self.states[cell.key] == "done"]
        rest = estimate(left, [record for record in known if record is not None])
        told = f"  (about {duration(rest.seconds / self.jobs)} left)" if left and rest.seconds else ""
        print(f"[{time.strftime('%H:%M:%S')}] {line}{told}", flush=True)


def _forget(job: Any) -> None:
    """Remove the files of a process that has nothing to tell."""
    for path in Path(job.paths.folder).glob(f"{job.job_id}_*"):
        path.unlink(missing_ok=True)


def make_executor(cluster: str, folder: Path, name: str, options: Mapping[str, Any]) -> Any:
    """submitit's executor; `options` are parameters of it, such as slurm_partition."""
    try:
        import submitit
    except ImportError as error:
        raise UsageError("the suite needs submitit: pip install submitit") from error
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    gpus = {}
    if cluster == "local":
        import torch

        gpus = {"gpus_per_node": torch.cuda.device_count()}
    executor.update_parameters(name=f"rosa_bench-{name}", timeout_min=7 * 24 * 60, **{**gpus, **options})
    return executor


def summary(cells: Sequence[Cell]) -> str:
    """Seconds by method, and each cell that is not done with its reason."""
    spent: dict[str, list[float]] = {}
    failed = []
    for cell in cells:
        record = cell.record
        if record is not None and record.status == "done":
            spent.setdefault(record.method, []).append(seconds(record))
        else:
            status, error = ("not run", "") if record is None else (record.status, record.error or "")
            failed.append(f"  {status:12}{cell.folder.name}: {' '.join(error.split())[:200]}".rstrip(": "))
    lines = [f"  {method:8}{len(times):4} done  {sum(times):9.1f} s" for method, times in sorted(spent.items())]
    return "\n".join([*lines, *([f"{len(failed)} not done:", *failed] if failed else [])])


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.suite", description=__doc__)
    parser.add_argument("name", help="one of: " + ", ".join(config.choices("suite")))
    parser.add_argument("overrides", nargs="*", help="key=value for every cell, e.g. output_dir=DIR")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default 1)")
    parser.add_argument("--cluster", choices=["local", "slurm"], default="local")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a submitit parameter")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and the estimate, run nothing")
    parser.add_argument("--only", metavar="PATTERN", help="cells whose run id or overrides match, e.g. '*rosa*'")
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again")
    args = parser.parse_intermixed_args(argv)
    if args.jobs < 1:
        parser.error("--jobs must be 1 or more")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run a suite; returns the exit code: 1 if any cell failed."""
    args = parsed(argv)
    try:
        return run_suite(args)
    except UsageError as error:
        return cli.complain(str(error))
    except KeyboardInterrupt:
        print("rosa_bench: interrupted; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED


def run_suite(args: argparse.Namespace) -> int:
    """Plan, tell, run, sum up."""
    suite = load(args.name)
    cells = plan(suite, args.overrides)
    if args.only:
        cells = [c for c in cells if any(fnmatch.fnmatch(t, args.only) for t in (c.folder.name, " ".join(c.overrides)))]
        if not cells:
            raise UsageError(f"--only {args.only} matches no cell of {args.name}")
    if args.jobs > 1:
        threads = max(1, (os.cpu_count() or 1) // args.jobs)
        cells = [replace(c, run=replace(c.run, train=replace(c.run.train, threads=threads))) for c in cells]
    output = Path(cells[0].run.output_dir)
    states = [cell.state for cell in cells]
    counts = "  ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    print(f"{suite.title}: {len(cells)} cells: {counts}")
    known = [record for path in output.glob("*/record.json") if (record := _finished(path)) is not None]
    pending = [cell for cell, state in zip(cells, states, strict=True) if state != "done"]
    if pending:
        print(estimate(pending, known))
    if args.dry_run:
        print("\n".join(f"  {state:10}{cell.folder.name}" for cell, state in zip(cells, states, strict=True)))
        return EXIT_DONE
    if pending:
        options = dict(item.partition("=")[::2] for item in args.set)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        executor = make_executor(args.cluster, output / ".suite" / args.name, args.name, options)
        Board(cells, executor, args.jobs, args.retry_failed).run()
    print(summary(cells))
    return EXIT_DONE if all(cell.state == "done" for cell in cells) else EXIT_FAILED


def _finished(path: Path) -> Record | None:
    try:
        record = read_record(path)
    except UsageError:
        return None
    return record if record.status == "done" else None


if __name__ == "__main__":
    sys.exit(main())
