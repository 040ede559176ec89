"""Two processes on one cell, eight on one suite, and stale locks of dead processes here and on other machines."""

from __future__ import annotations

import collections
import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import killing
import pytest
from killing import arguments, command_line, ended, start
from support import SMALL, small

from rosa_bench import cli
from rosa_bench.errors import EXIT_DONE, UsageError
from rosa_bench.records.record import read_record, write_record
from rosa_bench.records.run_key import config_key, run_id
from rosa_bench.run import run as run_experiment
from rosa_bench.suite import plan, scheduler
from rosa_bench.system import locks
from rosa_bench.system.locks import HeldError, Lock, LostError, claimed, held

ELSEWHERE = {"host": "another", "machine": "of another start", "pid": 1, "token": "theirs"}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cell"


@pytest.fixture
def gone() -> int:
    """The id of a process that no longer exists."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(folder: Path, holder: dict, age_s: float) -> Path:
    """The lock file of a holder whose last heartbeat was this many seconds ago."""
    path = folder.with_name(f".{folder.name}.holder")
    path.write_text(json.dumps(holder))
    now = time.time()
    os.utime(path, (now - age_s, now - age_s))
    locks.lock_path(folder).touch()
    return path


def taken(folder: Path) -> bool:
    own = Lock(folder)
    try:
        own.acquire()
    except HeldError:
        return False
    own.release()
    return True


def test_one_process_at_a_time_and_the_other_learns_by_whom(folder, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    with claimed(folder):
        assert held(folder) and not taken(folder)
        with pytest.raises(UsageError, match=f"another process.*process {os.getpid()} on ") as caught, claimed(folder):
            pass
        assert "\n" not in str(caught.value)
    assert not held(folder) and taken(folder) and not list(folder.parent.glob(".*.holder"))


def test_checking_a_lock_does_not_take_it(folder):
    with claimed(folder):
        pass
    descriptor = os.open(locks.lock_path(folder), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    threading.Timer(0.3, os.close, [descriptor]).start()
    assert taken(folder)


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(folder, gone):
    left_by(folder, ELSEWHERE | {"machine": locks.machine(), "pid": gone}, 0)
    assert not held(folder) and taken(folder)


@pytest.mark.parametrize(
    ("age_s", "free"),
    [(5, False), (locks.SILENT_S + 60, True), (-365 * 86400, True)],
    ids=["alive", "silent", "clock set back by a year"],
)
def test_a_process_of_another_machine_holds_its_lock_while_its_heartbeat_lasts(folder, age_s, free, monkeypatch):
    monkeypatch.setattr(locks, "SETTLE_S", 0.01)
    left_by(folder, ELSEWHERE, age_s)
    assert held(folder) != free and taken(folder) == free


@pytest.mark.parametrize(("age_s", "code"), [(5, 2), (locks.SILENT_S + 60, 0)], ids=["alive", "dead"])
def test_a_command_runs_despite_the_lock_of_a_dead_machine(age_s, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "SETTLE_S", 0.01)
    run = small(tmp_path, "method=lora")
    folder = tmp_path / run_id(run, config_key(run))
    holder = left_by(folder, ELSEWHERE, age_s)
    assert cli.main([*SMALL, f"output_dir={tmp_path}", "method=lora"]) == code
    output = capsys.readouterr().err
    if code:
        assert "process 1 on another" in output and output.count("\n") == 1
        assert holder.exists() and not list(folder.glob("*"))
    else:
        assert read_record(folder / "record.json").status == "done" and not holder.exists() and not output


@pytest.mark.parametrize("reason", sorted(locks.NO_FLOCK))
def test_on_a_file_system_without_locks_the_named_holder_counts(folder, reason, monkeypatch, gone):
    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "SETTLE_S", 0.01)
    with claimed(folder):
        assert held(folder) and not taken(folder)
    assert not held(folder) and taken(folder)
    left_by(folder, ELSEWHERE | {"machine": locks.machine(), "pid": gone}, 0)
    assert not held(folder) and taken(folder)


def test_another_fault_of_the_lock_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(UsageError, match=r"cannot be written \(Input/output error\)"), claimed(folder):
        pass


def test_of_two_simultaneous_claims_without_locks_one_succeeds(folder, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    monkeypatch.setattr(locks, "SETTLE_S", 0.3)
    folder.mkdir()
    monkeypatch.setattr(locks, "lives", lambda *_: False)  # both look before either has written
    rivals, outcomes = [Lock(folder) for _ in range(2)], []

    def claim(own):
        try:
            own.acquire()
            outcomes.append(True)
        except HeldError:
            outcomes.append(False)

    threads = [threading.Thread(target=claim, args=(own,)) for own in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, True]
    for own in rivals:
        own.release()


def test_children_of_a_dead_process_are_waited_for(folder, gone):
    own = Lock(folder)
    folder.mkdir()
    own.acquire()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(4)"], pass_fds=[own._descriptor])
    own.release()
    left_by(folder, ELSEWHERE | {"machine": locks.machine(), "pid": gone}, 0)
    assert child.poll() is None and held(folder) and taken(folder) and child.wait() == 0


def test_a_process_that_missed_its_heartbeats_learns_that_it_lost_the_folder(folder, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    with claimed(folder) as own:
        own.check()
        path = left_by(folder, ELSEWHERE, 0)
        deadline = time.monotonic() + 30
        while not own.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(LostError, match="taken over by another machine"):
            own.check()
    assert json.loads(path.read_text()) == ELSEWHERE  # it is theirs, also after the end


def test_heartbeats_are_written(folder, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    with claimed(folder):
        path = folder.with_name(f".{folder.name}.holder")
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 30
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60


def test_a_cell_that_another_process_just_finished_is_not_run_again(tmp_path, monkeypatch):
    run = small(tmp_path, "method=lora")
    done = run_experiment(run)
    seen = []

    def not_yet(*values):
        seen.append(values)
        return None if len(seen) == 1 else done

    monkeypatch.setattr("rosa_bench.run.finished", not_yet)
    monkeypatch.setattr("rosa_bench.run.Experiment", None)
    assert run_experiment(run) is done and len(seen) == 2


def test_two_simultaneous_starts_leave_one_complete_result(tmp_path):
    expected, _ = killing.whole(tmp_path / "whole", "lora", "roberta_mini")
    own = arguments(tmp_path / "both", "lora", "roberta_mini")
    both = [start(command_line, own, log=tmp_path / f"{i}.log") for i in range(2)]
    codes = sorted(ended(process) for process in both)
    output = "".join((tmp_path / f"{i}.log").read_text() for i in range(2))
    assert codes in ([0, 2], [0, 0]) and "Traceback" not in output
    assert codes == [0, 0] or "is being written by another process (process " in output
    assert not killing.differences(expected, killing.result(tmp_path / "both"))


class Inline:
    """An executor that runs cells immediately in this process."""

    cluster = "local"

    def submit(self, cell):
        code = cell()
        paths = type("Paths", (), {"folder": Path("nowhere"), "stderr": "its log"})
        return type("Job", (), {"done": lambda _: True, "job_id": "0", "paths": paths, "result": lambda _: code})()


def shared_suite(folder: str, log: str) -> int:
    """A suite whose cells run in this process, with a log of training starts."""
    from rosa_bench import run
    from rosa_bench.suite import __main__ as suite

    original = run.Experiment.train

    def train(self):
        with Path(log).open("a") as stream:
            stream.write(self.record.run_id + "\n")
        return original(self)

    run.Experiment.train = train
    suite.make_executor = lambda *_: Inline()
    only = ["--only", "*task=cola*"]
    return suite.main(["smoke", *only, *SMALL, "train.max_steps=3", "train.threads=1", f"output_dir={folder}"])


def test_eight_processes_finish_a_suite_with_every_cell_done_once(tmp_path):
    log = tmp_path / "trained"
    logs = [tmp_path / f"{i}.log" for i in range(8)]
    processes = [start(shared_suite, str(tmp_path / "runs"), str(log), log=path) for path in logs]
    codes = [ended(process, 1200) for process in processes]
    assert codes == [EXIT_DONE] * 8, [path.read_text() for path in logs]
    records = [read_record(path) for path in (tmp_path / "runs").glob("*/record.json")]
    trained = collections.Counter(log.read_text().split())
    assert len(records) > 3 and {record.status for record in records} == {"done"}
    assert trained == {record.run_id: 1 for record in records}
    assert not any("Traceback" in path.read_text() for path in logs)


COUNTING = """
import os, sys
def seen(event, values):
    if event == "open" and "/.config.yaml." in str(values[0]) and "w" in str(values[1]):
        with open(os.environ["TRAINED"], "a") as stream:
            stream.write(str(values[0]).split("/")[-2] + "\\n")
sys.addaudithook(seen)
"""


@pytest.mark.slow
def test_eight_commands_finish_a_suite_with_every_cell_done_once(tmp_path):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(COUNTING)
    path = os.pathsep.join([str(tmp_path / "path"), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "TRAINED": str(tmp_path / "trained"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rosa_bench.suite", "smoke", "--only", "*task=cola*", *SMALL]
    command += ["train.max_steps=3", "train.threads=1", f"output_dir={tmp_path / 'runs'}"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    processes = [subprocess.Popen(command, **options) for _ in range(8)]
    output = [process.communicate(timeout=3000)[0] for process in processes]
    assert [process.returncode for process in processes] == [EXIT_DONE] * 8, output
    records = [read_record(path) for path in (tmp_path / "runs").glob("*/record.json")]
    trained = collections.Counter((tmp_path / "trained").read_text().split())
    assert trained == {record.run_id: 1 for record in records} and len(records) > 3


def test_marking_a_killed_cell_does_not_affect_one_that_runs_again(tmp_path):
    """Marking a killed cell takes its lock, so it never overwrites a run that has started again."""
    suite = plan.Suite(title="one", cells=[plan.Block(run={"task": "cola"})])
    (cell,) = plan.plan(suite, [*SMALL, f"output_dir={tmp_path}"])
    record = run_experiment(cell.run)
    write_record(cell.folder, dataclasses.replace(record, status="running"))
    with claimed(cell.folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "PATIENCE_S", 0.1)
        assert not scheduler._marked(cell, "running", "failed", "killed") and cell.record.status == "running"
    assert scheduler._marked(cell, "running", "failed", "killed") and cell.record.status == "failed"
