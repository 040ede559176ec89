"""Suites on a real Slurm (`make test-slurm`): workers, kills, time limits, what a cluster refuses.

The folders of runs have to be on a file system that the nodes share: SLURM_TEST_DIR, or below this one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support import SMALL

from rosa_bench.errors import EXIT_DONE, EXIT_USAGE
from rosa_bench.records.record import read_record

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
STEPS = 40
CELLS = [*SMALL, "train.threads=1", f"train.max_steps={STEPS}", "train.log_steps=1", "train.limit_train=200"]


@pytest.fixture
def shared():
    parent = os.environ.get("SLURM_TEST_DIR") or Path(__file__).parents[2]
    folder = Path(tempfile.mkdtemp(prefix=".test slurm ", dir=parent))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def begin(folder: Path, *arguments: str, only: str = "*task=cola*") -> subprocess.Popen:
    suite = [sys.executable, "-m", "rosa_bench.suite", "smoke", "--only", only, "--cluster", "slurm"]
    command = [*suite, *CELLS, f"output_dir={folder}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(condition, seconds: float = 240):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert value
    return value


def running_job(folder: Path) -> str:
    """One of the Slurm jobs of the suite in a folder that run now."""
    submitted = {path.name.partition("_")[0] for path in folder.glob(".suite/*/*_submission.sh")}
    return min(submitted.intersection(slurm("squeue", "--noheader", "--format=%i", "--states=running").split()))


def training(folder: Path) -> list[Path]:
    """Folders of unfinished runs with a checkpoint."""
    kept = {path.parents[1] for path in folder.glob("*/checkpoint-*/complete.json")}
    return [path for path in kept if read_record(path / "record.json").status == "running"]


def finished(folder: Path) -> dict[str, str]:
    """By run, the hash of what it wrote; every step of every run is there exactly once."""
    records = {path.parent: read_record(path) for path in folder.glob("*/record.json")}
    for path, record in records.items():
        assert record.status == "done", record.error
        steps = [json.loads(line).get("step") for line in (path / "events.jsonl").read_text().splitlines()]
        trained = [step for step in steps if step]
        assert sorted(set(trained)) == list(range(1, STEPS + 1)), path
    return {path.name: json.dumps(record.scores, sort_keys=True) for path, record in records.items()}


def ended(process: subprocess.Popen, code: int = EXIT_DONE) -> tuple[str, str]:
    output, errors = process.communicate(timeout=500)
    assert process.returncode == code, (output, errors)
    assert "sacct" not in errors and "Traceback" not in errors
    return output, errors


def test_workers_run_every_cell_once_although_one_is_killed(shared):
    process = begin(shared, "--workers", "2")
    wait_for(lambda: training(shared))
    slurm("scancel", "--signal=KILL", running_job(shared))
    output, errors = ended(process)
    cells = int(re.search(r"(\d+) cells", output)[1])
    assert "workers: jobs" in output and "ended early" in errors and "not done" not in output
    results = finished(shared)
    assert len(results) == cells > 2
    again, errors = ended(begin(shared, "--workers", "2"))
    assert f"{cells} cells: {cells} done" in again and "workers" not in again and not errors
    alone = begin(shared / "alone", only="*task=cola method=lora*")  # a job of its own for the cell
    ended(alone)
    assert finished(shared / "alone").items() <= results.items()
    assert not list(shared.glob(".suite/*/*.pkl"))


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["a job for each cell", "a worker"])
@pytest.mark.parametrize(
    "end",
    [["scancel", "--signal=USR2"], ["scontrol", "requeue"]],
    ids=["before a time limit", "after a preemption"],
)
def test_a_job_that_must_end_writes_a_checkpoint_and_is_requeued(shared, workers, end):
    process = begin(shared, *workers, only="*task=cola method=lora*")
    (run,) = wait_for(lambda: training(shared))
    job = running_job(shared)
    slurm(*end, job)
    wait_for(lambda: read_record(run / "record.json").status == "interrupted")
    assert list(run.glob("checkpoint-*/complete.json"))
    wait_for(lambda: "PENDING" in slurm("squeue", "--noheader", "--format=%T", f"--jobs={job}"))
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now")  # not in two minutes
    _, errors = ended(process)
    assert not errors and len(finished(shared)) == 1


def test_a_stopped_suite_cancels_its_jobs_and_resumes(shared):
    process = begin(shared, "--workers", "1", only="*task=cola method=lora*")
    (run,) = wait_for(lambda: training(shared))
    job = running_job(shared)
    process.terminate()
    ended(process, 130)
    wait_for(lambda: read_record(run / "record.json").status == "interrupted", 60)
    wait_for(lambda: job not in slurm("squeue", "--noheader", "--format=%i", "--states=running,pending"), 90)
    ended(begin(shared, "--workers", "1", only="*task=cola method=lora*"))
    assert len(finished(shared)) == 1


def test_a_job_asks_for_one_gpu_unless_told_otherwise(shared):
    if "gpu" in slurm("sinfo", "--noheader", "--format=%G"):
        pytest.skip("this Slurm has GPUs to give")
    process = begin(shared, "train.device=auto")
    _, errors = ended(process, EXIT_USAGE)
    assert len(errors.splitlines()) == 1 and "gpus_per_node=0" in errors
