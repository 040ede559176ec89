"""Requests to Slurm and answers from it, simulated; tests/suite/test_slurm.py uses a real one."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit
from support import SMALL

from rosa_bench.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, UsageError
from rosa_bench.records.record import Record
from rosa_bench.suite import __main__ as suite
from rosa_bench.suite import plan, scheduler
from rosa_bench.suite.clusters import Queue, make_executor, options_of
from rosa_bench.suite.worker import as_job
from rosa_bench.system.signals import as_keyboard_interrupt


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts a script on the PATH under a given name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(submitit.SlurmJob, "watcher", submitit.SlurmJob.watcher)

    def put(name: str, script: str = "exit 1") -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return put


def cells_of(tmp_path, *overrides: str):
    block = plan.Block(run={"task": "cola", "method": "lora", "method.rank": [1, 2, 3]})
    return plan.plan(plan.Suite(title="ranks", cells=[block]), [*SMALL, f"output_dir={tmp_path}", *overrides])


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        ("auto", [], "--gpus-per-node=1"),
        ("auto", ["gpus_per_node=2"], "--gpus-per-node=2"),
        ("auto", ["gpus_per_node=0"], None),
        ("cpu", [], None),
        ("auto", ["slurm_gpus_per_task=1"], "--gpus-per-task=1"),
        ("auto", ["slurm_additional_parameters={gres: 'shard:1', requeue: true}"], "--gres=shard:1"),
    ],
)
def test_a_job_asks_for_one_gpu_unless_told_otherwise(programs, tmp_path, device, settings, expected):
    programs("srun")
    cells = cells_of(tmp_path, f"train.device={device}")
    executor = make_executor("slurm", tmp_path, "x", options_of(settings), cells)
    script = executor._executor._make_submission_file_text("true", "0")
    requested = [
        line.split()[1] for line in script.splitlines() if line.startswith(("#SBATCH --gpu", "#SBATCH --gres"))
    ]
    assert requested == ([expected] if expected else []) and "#SBATCH --requeue" in script


def test_settings_are_yaml(programs, tmp_path, capsys):
    assert options_of(["timeout_min=240", "slurm_partition=a,b", "slurm_setup=[module load x]"]) == {
        "timeout_min": 240,
        "slurm_partition": "a,b",
        "slurm_setup": ["module load x"],
    }
    assert options_of(["slurm_time=4:00:00", "slurm_account=007"]) == {"slurm_time": "4:00:00", "slurm_account": "007"}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        options_of(["timeout_min"])
    programs("srun")
    wrong = ["smoke", "--cluster", "slurm", *SMALL, f"output_dir={tmp_path}", "--set", "timeout_min=soon"]
    assert suite.main(wrong) == EXIT_USAGE and "timeout_min" in capsys.readouterr().err


def test_states_come_from_squeue_and_its_silence_is_one_line(programs, capsys, monkeypatch):
    monkeypatch.setattr(Queue, "INTERVAL_S", 0.0)
    programs("sacct", "echo asked >&2; exit 1")
    queue = Queue()
    for job in ("1", "2", "3", "4", "5"):
        queue.register_job(job)
    programs("squeue", "printf '1|RUNNING\\n2|PENDING\\n3|TIMEOUT\\n4|PREEMPTED\\n99|FAILED\\n'")
    assert [queue.is_done(job) for job in "12345"] == [False, False, True, False, True]  # the last has left the list
    assert queue.get_info("3") == {"State": "TIMEOUT"} and queue.get_state("unknown", "cache") == "UNKNOWN"
    programs("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert [queue.is_done("1") for _ in range(3)] == [False] * 3
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "Unable to contact" in message


def test_a_refused_job_gives_one_line_and_leaves_no_job(programs, tmp_path, capfd):
    programs("srun")
    programs("squeue", "exit 0")
    programs("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1")
    wanted = ["smoke", "--only", "*task=cola method=lora*", "--cluster", "slurm", *SMALL, f"output_dir={tmp_path}"]
    for arguments in ([], ["--workers", "2"]):
        assert suite.main([*wanted, *arguments]) == EXIT_USAGE
        (line,) = capfd.readouterr().err.splitlines()
        assert "Invalid account" in line and "--set" in line


class Cluster:
    """An executor of a cluster that takes at most `room` jobs; its jobs end when told to."""

    cluster = "slurm"

    def __init__(self, room: int) -> None:
        self.room, self.jobs = room, []

    def submit(self, work):
        if len([job for job in self.jobs if not job.ended]) >= self.room:
            raise RuntimeError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        number, paths = str(len(self.jobs) + 1), SimpleNamespace(folder=Path("nowhere"), stderr="log")
        job = SimpleNamespace(ended=False, code=EXIT_DONE, job_id=number, paths=paths, work=work)
        job.done, job.result, job.cancel = (
            lambda: job.ended,
            lambda: job.code,
            lambda check: setattr(job, "ended", True),
        )
        self.jobs.append(job)
        return job


@pytest.fixture
def records(monkeypatch):
    made: dict[str, Record] = {}
    monkeypatch.setattr(plan.Cell, "record", property(lambda cell: made.get(cell.id)))
    return made


def record_of(cell, status: str) -> Record:
    run = cell.run
    return Record(cell.id, cell.key, run.task.name, run.model.name, "lora", 1, {}, status=status, started=status)


def fleet(cells, executor, workers=2, **options):
    return scheduler.Fleet(cells, executor, object(), workers, **options)


def test_a_full_queue_is_tried_again_when_a_job_has_ended(tmp_path, records):
    cells, executor = cells_of(tmp_path), Cluster(1)
    board = scheduler.Board(cells, executor, 3)
    board._start()
    assert len(executor.jobs) == 1 and board.refused and len(board.waiting) == 2
    board._start()
    records[cells[0].id] = record_of(cells[0], "done")
    executor.jobs[0].ended = True
    board._collect()
    board._start()
    assert len(executor.jobs) == 2 and [job.work for job in executor.jobs] == cells[:2]


def test_workers_are_submitted_again_while_they_finish_cells(tmp_path, records, monkeypatch, capsys):
    cells, executor = cells_of(tmp_path), Cluster(8)
    watched = fleet(cells, executor)
    turns = []

    def turn(_):
        turns.append(len(executor.jobs))
        if len(turns) == 1:  # the first two are killed after a cell
            records[cells[0].id] = record_of(cells[0], "done")
            for job in executor.jobs:
                job.ended, job.code = True, None
        elif len(turns) == 3:  # the next two are killed at once
            for job in executor.jobs:
                job.ended, job.code = True, None
        assert len(turns) < 9

    monkeypatch.setattr(scheduler.time, "sleep", turn)
    watched.run()
    assert len(executor.jobs) == 4 and watched.counts()["pending"] == 2
    assert capsys.readouterr().err.count("ended early") == 4


def test_workers_waiting_for_a_first_stage_are_submitted_again(tmp_path, records):
    first, *others = cells_of(tmp_path)
    executor = Cluster(8)
    watched = fleet([first, *(dataclasses.replace(cell, source=first) for cell in others)], executor, workers=4)
    watched._look()
    assert watched._submit_workers() and len(executor.jobs) == 3
    records[first.id] = record_of(first, "failed")
    for job in executor.jobs:
        job.ended = True
    watched._look()
    watched._collect()
    assert not watched._submit_workers() and watched.counts()["waiting"] == 2


def test_a_worker_ends_when_others_run_the_rest(tmp_path, records, monkeypatch):
    cells = cells_of(tmp_path)
    monkeypatch.setattr(plan.Cell, "state", property(lambda _: "elsewhere"))
    board = scheduler.Board(cells, Cluster(1), 1, leaves=True)
    board.run()
    assert board.counts()["elsewhere"] == 3


def test_failed_cells_are_repeated_once_for_all_workers(tmp_path, records):
    cells = cells_of(tmp_path)
    records.update({cell.id: record_of(cell, "failed") for cell in cells[:2]})
    assert [cell.id for cell in fleet(cells, Cluster(8)).waiting] == [cells[2].id]
    again = {cells[0].id: "failed", cells[1].id: "an earlier start"}
    board = scheduler.Board(cells, Cluster(8), 9, again=again)
    assert [cell.id for cell in board.waiting] == [cells[0].id, cells[2].id]


@pytest.mark.parametrize("executor", ["slurm", "local"])
def test_a_time_limit_stops_the_work_cleanly_and_requeues_the_job(monkeypatch, executor):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    seen = []

    def work() -> int:
        try:
            with as_keyboard_interrupt():
                os.kill(os.getpid(), signal.SIGUSR2)
                signal.pause()
        except KeyboardInterrupt:
            seen.append("checkpoint")
            return EXIT_INTERRUPTED
        return EXIT_DONE

    before = signal.signal(signal.SIGUSR2, lambda *_: seen.append("queued again"))
    try:
        if executor == "slurm":
            with pytest.raises(SystemExit) as ended:
                as_job(work)
            assert ended.value.code == EXIT_INTERRUPTED
        else:
            as_job(work)
        assert seen == ["checkpoint", "queued again"]
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
        monkeypatch.setenv("SLURM_JOB_ID", "1")  # in a worker, which is queued again itself
        assert as_job(work) == EXIT_INTERRUPTED and seen[2:] == ["checkpoint"]
        assert as_job(lambda: EXIT_DONE) == EXIT_DONE
    finally:
        signal.signal(signal.SIGUSR2, before)
