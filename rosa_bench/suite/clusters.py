"""Executors for the cells of a suite: local processes, on one card each if there are GPUs, or Slurm jobs."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, UsageError
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record
from rosa_bench.suite.gpus import Placement, visible_cards
from rosa_bench.suite.plan import Cell
from rosa_bench.suite.scheduler import Board
from rosa_bench.suite.worker import as_job, exit_code
from rosa_bench.system.console import tell, warn_once
from rosa_bench.system.cores import processor_cores

VALUE = re.compile(r"0|[1-9][0-9]*|[0-9]+\.[0-9]+|true|false|[\[{].*")
TIMEOUTS = 1000  # maximum number of requeues after a job's time limit; each time it resumes from a checkpoint
# States in which squeue still lists a finished job; a job that it no longer lists has ended too.
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT")


class Queue:
    """States of our Slurm jobs from `squeue`, with the interface of submitit's watcher.

    submitit's own watcher calls `sacct`, which needs an accounting database; without one, jobs appear to run forever.
    """

    INTERVAL_S = 5.0

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.asked_at = -self.INTERVAL_S

    def register_job(self, job_id: str) -> None:
        """Watch a job; it counts as pending until squeue reports otherwise."""
        self.states[job_id] = "PENDING"
        self.asked_at = time.monotonic()

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """A job's Slurm state, at most a few seconds old; `mode="force"` refreshes it."""
        if mode == "force" or (mode == "standard" and time.monotonic() - self.asked_at > self.INTERVAL_S):
            self._ask()
        return self.states.get(job_id, "UNKNOWN")

    def get_info(self, job_id: str, mode: str = "standard") -> dict[str, str]:
        """The state under the key that submitit expects."""
        return {"State": self.get_state(job_id, mode)}

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        return self.get_state(job_id, mode) in ENDED

    def _ask(self) -> None:
        self.asked_at = time.monotonic()
        command = ["squeue", "--noheader", "--states=all", "--format=%i|%T", f"--user={getpass.getuser()}"]
        try:
            output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        except (OSError, subprocess.SubprocessError) as error:
            message = str(getattr(error, "stderr", None) or error)
            warn_once(f"rosa_bench: squeue does not answer ({' '.join(message.split())[:200]}); retrying")
            return
        listed = dict(line.strip().partition("|")[::2] for line in output.splitlines())
        self.states = {job: listed.get(job, "COMPLETED") for job in self.states}


def options_of(settings: Sequence[str]) -> dict[str, Any]:
    """Parse KEY=VALUE into submitit parameters: numbers, true, false, [lists], {mappings}, else strings (4:00:00).

    Raises:
        UsageError: for an argument not of this form.
    """
    options = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        try:
            options[key] = yaml.safe_load(value) if VALUE.fullmatch(value) else value
        except yaml.YAMLError as error:
            raise UsageError(f"--set {setting}: {' '.join(str(error).split())}") from error
        if not separator or not key:
            raise UsageError(f"--set {setting}: write it as KEY=VALUE, such as --set timeout_min=240")
    return options


def make_executor(cluster: str, folder: Path, name: str, options: Mapping[str, Any], cells: Sequence[Cell] = ()) -> Any:
    """Create submitit's executor; `options` are its parameters, such as slurm_partition.

    A Slurm job requests one GPU, unless the options set another number or the cells run on the CPU.
    """
    import submitit

    own: dict[str, Any] = {"name": f"rosa_bench-{name}", "timeout_min": 7 * 24 * 60}
    if cluster == "slurm":
        watcher: Any = Queue()
        submitit.SlurmJob.watcher = watcher
        own["slurm_additional_parameters"] = {"requeue": True}
        if not any("gpu" in key or "gres" in f"{key}={value}" for key, value in options.items()):
            own["gpus_per_node"] = 0 if cells and all(cell.run.train.device == "cpu" for cell in cells) else 1
    own |= options
    if not own.get("gpus_per_node"):  # Slurm without GPUs rejects even a request for zero
        own.pop("gpus_per_node", None)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=TIMEOUTS)
        executor.update_parameters(**own)
    except (AssertionError, OSError, RuntimeError, ValueError, NameError, TypeError) as error:
        message = " ".join(str(error).split())[:200]
        raise UsageError(f"submitit cannot start processes (--cluster {cluster}): {message}") from error
    return executor


@dataclass(frozen=True)
class Share:
    """How cells share a machine: `jobs` at a time (None: as many as cards allow), on the cards `gpus`."""

    jobs: int | None = None
    gpus: str | None = None  # "all", or card positions such as "0,2"; None: the least used card for each job
    per_gpu: int | None = None  # jobs per card; None: as many as fit into its memory

    def placement(self, cells: Sequence[Cell]) -> Placement | None:
        """Placement on cards; None if there are none to use. Raises UsageError if requested cards cannot be used."""
        on_cpu = all(cell.run.train.device == "cpu" for cell in cells)
        if self.gpus is None:
            cards = [] if on_cpu else visible_cards()
            jobs = self.jobs or 1
            return Placement(cards, jobs, jobs) if cards else None
        if on_cpu:
            raise UsageError(f"--gpus {self.gpus}: the cells run with train.device=cpu; remove one of the two")
        cards = visible_cards(self.gpus)
        if not cards:
            raise UsageError(f"--gpus {self.gpus}: torch finds no GPU on this machine; remove --gpus to use the CPU")
        if self.per_gpu is None and any(card.reading is None for card in cards):
            tell(
                "nvidia-smi does not report the memory of every card; such cards run one job at a time (see --per-gpu)"
            )
        return Placement(cards, self.per_gpu, min(self.jobs or processor_cores(), processor_cores()))

    def board(self, cells: Sequence[Cell], executor: Any, placement: Placement | None, **options: Any) -> Board:
        """A board for processes on this machine, which share its CPU cores."""
        jobs = (self.jobs or 1) if placement is None else placement.at_most(len(cells))
        return Board(with_threads(cells, jobs), executor, jobs, placement=placement, **options)


def with_threads(cells: Sequence[Cell], jobs: int) -> list[Cell]:
    """Divide the CPU cores among `jobs` concurrent cells; a cell that sets its own number of threads keeps it."""
    if jobs == 1:
        return list(cells)
    threads = max(1, processor_cores() // jobs)
    shared = [replace(c.run.train, threads=c.run.train.threads or threads) for c in cells]
    return [replace(c, run=replace(c.run, train=train)) for c, train in zip(cells, shared, strict=True)]


@dataclass(frozen=True)
class Worker:
    """A cluster job that takes cells until none is left: it runs the suite on its own machine."""

    cells: tuple[Cell, ...]
    name: str
    folder: Path
    share: Share
    again: Mapping[str, str]

    def __call__(self) -> int:
        """Run cells; called by submitit on the cluster node. Returns an exit code."""
        return as_job(lambda: exit_code(self._take))

    def checkpoint(self, *args: Any) -> Any:
        """Requeue the same worker at the time limit; it takes the remaining cells."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _take(self) -> int:
        job, restart = os.environ.get("SLURM_JOB_ID", os.getpid()), os.environ.get("SLURM_RESTART_COUNT", "0")
        folder = self.folder / f"worker-{job}-{restart}"
        executor = make_executor("local", folder, self.name, {})
        known: list[Record] = collect([Path(self.cells[0].run.output_dir)]).records
        options = {"again": self.again, "known": known, "leaves": True}
        board = self.share.board(self.cells, executor, self.share.placement(self.cells), **options)
        board.run()
        with contextlib.suppress(OSError):  # kept while it contains logs of failed cells
            folder.rmdir()
        return EXIT_FAILED if board.counts()["failed"] else EXIT_DONE
