"""Suites: planned from yaml, run in separate processes, resumable, shared."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import made
import pytest
from small_suites import Pretend, small_suite
from support import SMALL, composed

from rosa_bench import config
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UsageError
from rosa_bench.models.load import load
from rosa_bench.records.record import Record, read_record, write_record
from rosa_bench.run import run as run_experiment
from rosa_bench.suite import __main__ as suite
from rosa_bench.suite import plan, scheduler
from rosa_bench.system.locks import Lock

TINY = [*SMALL, "train.max_steps=2", "train.threads=1"]


def test_lists_are_swept_and_texts_are_not():
    result = list(plan.expand({"method": ["lora", "rosa"], "method.targets": "[q,v]", "seed": [1, 2], "force": False}))
    assert len(result) == 4 and result[0] == ("method=lora", "method.targets=[q,v]", "seed=1", "force=false")


@pytest.mark.parametrize("name", config.choices("suite"))
def test_every_suite_has_valid_cells(name):
    cells = plan.plan(plan.load(name))
    assert len(cells) == len({cell.id for cell in cells}) > 1
    # Others have a key once the cells they depend on are done, or where the model of a package is installed.
    known = [cell.folder for cell in cells if cell.source is None and not cell.rates and not cell.run.model.package]
    assert len(known) == len(set(known))
    assert config.describe("suite", name)


@pytest.mark.slow
def test_every_cell_of_the_embedded_suite_can_be_attached():
    cells = [cell for cell in plan.plan(plan.load("embedded")) if cell.run.seed == 1]
    for run in {(repr(cell.run.method), cell.run.model.name): cell.run for cell in cells}.values():
        run.method.check(run.task)
        run.method.attach(load(run.model, run.task, 0)[0])


def test_a_cell_listed_twice_is_run_once():
    assert len(plan.plan(small_suite({"seed": [1, 2]}, {"seed": [2, 3]}))) == 3


def test_wrong_names_and_keys_give_one_line():
    with pytest.raises(UsageError, match="did you mean smoke"):
        plan.load("smok")
    with pytest.raises(UsageError, match=r"method\.rnak"):
        plan.plan(small_suite({"method": "lora", "method.rnak": 3}))


def test_a_task_on_the_command_line_leaves_out_cells_of_other_kinds():
    suite = small_suite({"task": ["cola", "stsb"]}, {"task": "e2e", "task.num_beams": 2})
    (cell,) = plan.plan(suite, ["task=mrpc"])  # instead of cola and stsb
    assert cell.run.task.name == "mrpc"
    (cell,) = plan.plan(suite, ["task=webnlg"])
    assert cell.run.task.name == "webnlg" and cell.run.task.num_beams == 2
    with pytest.raises(UsageError, match="task=piqa: no cell of suite small has a task of this kind"):
        plan.plan(dataclasses.replace(suite, name="small"), ["task=piqa"])


def running(cells, **options):
    executor = Pretend()
    again = scheduler.failed_so_far(cells) if options.pop("retry_failed", False) else {}
    return scheduler.Board(cells, executor, options.pop("jobs", 2), again), executor


def test_finished_cells_are_not_repeated(tmp_path, capsys):
    cells = plan.plan(small_suite({"method": ["lora", "rosa"], "task": "cola"}), [*TINY, f"output_dir={tmp_path}"])
    run_experiment(cells[0].run)
    whole, executor = running(cells)
    whole.run()
    assert executor.submitted == [cells[1].key] and whole.counts()["done"] == 2
    again, executor = running(cells)
    again.run()
    assert executor.submitted == []
    assert "2 done" in capsys.readouterr().out


def test_a_cell_running_in_another_process_is_awaited(tmp_path, monkeypatch):
    (cell,) = plan.plan(small_suite({"task": "cola"}), [*TINY, f"output_dir={tmp_path}"])
    lock = Lock(cell.folder)
    lock.acquire()
    seen = []

    def sleep(_):
        seen.append(cell.state)
        if len(seen) == 3:
            lock.release()

    monkeypatch.setattr(scheduler.time, "sleep", sleep)
    whole, executor = running([cell])
    whole.run()
    assert seen[:2] == ["elsewhere"] * 2 and executor.submitted == [cell.key] and cell.state == "done"


def test_a_failed_cell_is_a_row_and_is_repeated_on_demand(tmp_path, monkeypatch, capsys):
    cells = plan.plan(small_suite({"seed": [1, 2], "task": "cola"}), [*TINY, f"output_dir={tmp_path}"])
    with monkeypatch.context() as patch:
        patch.setattr("rosa_bench.training.trainer.make_trainer", None)
        patch.setattr("rosa_bench.run.make_trainer", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
        running(cells[:1])[0].run()
    assert cells[0].state == "failed" and cells[0].record.status == "oom"
    whole, executor = running(cells)
    whole.run()
    assert executor.submitted == [cells[1].key] and "1 failed" in capsys.readouterr().out
    assert "no room" in suite.summary(cells, {})
    whole, executor = running(cells, retry_failed=True)
    whole.run()
    assert executor.submitted == [cells[0].key] and whole.counts()["done"] == 2


def test_the_estimate_counts_failed_cells_only_if_they_are_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "load", lambda _: small_suite({"seed": [1, 2], "task": "cola"}))
    wanted = ["smoke", *TINY, f"output_dir={tmp_path}/${{seed}}", "--dry-run"]  # with a folder for each seed
    for cell, status in zip(plan.plan(suite.load("smoke"), wanted[1:-1]), ("failed", "done"), strict=True):
        cell.folder.mkdir(parents=True)
        own = {"task": "cola", "model": "roberta_mini", "seed": cell.run.seed, "config": cell.run.to_dict()}
        record = made.record(run_id=cell.folder.name, key=cell.key, status=status, cost={"train_s": 40.0}, **own)
        write_record(cell.folder, record)
    assert suite.main(wanted) == EXIT_DONE and "about" not in capsys.readouterr().out
    assert suite.main([*wanted, "--retry-failed"]) == EXIT_DONE
    assert "about 40 s of one process (from 1 finished cell)" in capsys.readouterr().out


def test_a_killed_process_is_reported(tmp_path):
    (cell,) = plan.plan(small_suite({"task": "cola"}), [*TINY, f"output_dir={tmp_path}"])
    record = run_experiment(cell.run)
    path = cell.folder / "record.json"
    write_record(cell.folder, dataclasses.replace(record, status="running"))
    whole, executor = running([cell])
    executor.submit = lambda cell: Pretend.submit(executor, type("Dies", (), {"key": cell.key, "__call__": int})())
    whole.run()
    assert cell.state == "failed" and "killed" in read_record(path).error and record.status == "done"


def test_the_estimate_comes_from_the_nearest_neighbors(tmp_path):
    cells = plan.plan(small_suite({"method": ["lora", "rosa"]}, {"task": "sst2"}), [*TINY, f"output_dir={tmp_path}"])
    lora, rosa, other = (cell.run for cell in cells)

    def record(run, seconds, peak):
        name = type(run.method).__name__.lower()
        cost = {"train_s": seconds, "peak_rss_bytes": peak}
        return Record(f"{name}{seconds}", "", run.task.name, run.model.name, name, 1, {}, cost=cost)

    known = [record(lora, 10.0, 5e8), record(lora, 30.0, 7e8), record(lora, 20.0, 6e8)]
    assert plan.estimate(cells[:1], known).seconds == 20 and plan.estimate(cells[:1], known).peak_bytes == 7e8
    assert plan.estimate(cells[:2], [*known, record(rosa, 50.0, 9e8)]).seconds == 70
    assert plan.estimate(cells[1:2], known).seconds == 20  # another method on the same task and model
    assert plan.estimate(cells[2:], known).seconds == 20 and other.task.name == "sst2"  # another task on the same model
    foreign = dataclasses.replace(cells[0], run=composed("model=gpt2_mini", "task=e2e"))
    assert plan.estimate([*cells, foreign], known).seconds is None


def test_the_time_left_counts_no_more_jobs_than_cells(tmp_path, capsys):
    cells = plan.plan(small_suite({"method": "lora"}), [*TINY, f"output_dir={tmp_path}"])
    run = cells[0].run
    known = Record("a", "", run.task.name, run.model.name, "lora", 1, {}, status="done", cost={"train_s": 40.0})
    scheduler.Board(cells, Pretend(), 8, known=[known])._show()
    assert "1 pending  (about 40 s left)" in capsys.readouterr().out


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "rosa_bench.suite", *arguments, *TINY, f"output_dir={folder}"]


def test_cells_of_two_concurrent_suites_run_in_separate_processes(tmp_path):
    wanted = command(tmp_path / "a b", "smoke", "--only", "*task=cola*method=[lr]o*", "--jobs", "2")
    both = [subprocess.Popen(wanted, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [EXIT_DONE] * 2, outputs
    records = [read_record(path) for path in (tmp_path / "a b").glob("*/record.json")]
    assert {record.method for record in records} == {"lora", "rosa"}
    assert all(record.status == "done" for record in records)
    again = subprocess.run(wanted, capture_output=True, text=True, timeout=60)
    assert again.returncode == EXIT_DONE and "2 cells: 2 done" in again.stdout and "running" not in again.stdout
    assert not list((tmp_path / "a b" / ".suite").rglob("*.pkl"))


def test_a_cell_that_cannot_run_is_listed_with_exit_1(tmp_path):
    wanted = command(tmp_path, "smoke", "--only", "*task=cola method=lora*")
    done = subprocess.run([*wanted, "train.precision=fp16"], capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_FAILED and "1 not done" in done.stdout and "Traceback" not in done.stderr
    log = Path(re.search(r"result; see (\S+)", done.stderr)[1])
    assert "fp16 needs a GPU" in log.read_text() and "fp16 needs a GPU" in done.stdout


def test_a_cell_without_rows_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    rows = [{"sentence": f"The dog sees cat {i}.", "label": i % 2} for i in range(24)]
    (tmp_path / "glue" / "cola").mkdir(parents=True)
    for split in ("train", "validation"):
        path = tmp_path / "glue" / "cola" / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(suite, "load", lambda _: small_suite({"task": ["stsb", "cola"], "method": "lora"}))
    monkeypatch.setattr(suite, "make_executor", lambda *_: Pretend())
    wanted = ["smoke", *TINY, "data=local", f"data.dir={tmp_path}", f"output_dir={tmp_path / 'runs'}"]
    assert suite.main([*wanted, "--dry-run"]) == EXIT_DONE
    assert "2 cells: 1 pending  1 without input" in capsys.readouterr().out
    assert suite.main(wanted) == EXIT_FAILED
    output = capsys.readouterr().out.partition("1 not done:")[2]
    assert "stsb-roberta_mini-lora-s1: " in output and "glue/stsb" in output
    assert [read_record(path).task for path in (tmp_path / "runs").glob("*/record.json")] == ["cola"]


def test_usage(tmp_path, capsys, monkeypatch, attempts):
    done = subprocess.run(command(tmp_path, "zz"), capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_USAGE and "choose from" in done.stderr and "Traceback" not in done.stderr
    monkeypatch.setenv("PATH", str(tmp_path))  # without Slurm
    blocked = tmp_path.parent / "a file"
    blocked.write_text("")
    wrong = [
        (["smoke", "--only", "zzz"], "matches no cell"),
        (["smoke", "--cluster", "slurm"], "--cluster slurm"),
        (["smoke", "--set", "walltime=3"], "walltime"),
        (["smoke", f"output_dir={blocked}"], "a file"),
        (["smoke", "--published-code"], "no settings of suite smoke differ"),
        (["dylora_table9", "--published-code", "task=cola"], "dylora_table9 on tasks of this kind differ"),
        (["lora_table14", "data=local", f"data.dir={tmp_path}"], "is missing"),
    ]
    for (name, *arguments), message in wrong:  # in this process, as starting one takes seconds
        assert suite.main([name, *TINY, f"output_dir={tmp_path}", *arguments]) == EXIT_USAGE
        assert message in capsys.readouterr().err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = ["dylora_table9", "--only", "*task=dart*", "--dry-run", f"output_dir={tmp_path}"]
    assert suite.main(wanted) == EXIT_DONE
    output = capsys.readouterr().out
    assert "12 pending" in output and output.count("HF_HUB_OFFLINE forbids downloads") == 1 and "webnlg-" not in output
    assert suite.main(["smoke", "--dry-run", *TINY, f"output_dir={tmp_path}"]) == EXIT_DONE
    assert "19 pending" in capsys.readouterr().out and not list(tmp_path.glob("*/record.json"))


def test_a_stopped_suite_resumes(tmp_path):
    wanted = [*command(tmp_path, "smoke", "--only", "*task=cola method=lora*"), "train.max_steps=400"]
    process = subprocess.Popen(wanted, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/checkpoint-*/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, error
    (path,) = tmp_path.glob("*/record.json")
    assert read_record(path).status == "interrupted"
    done = subprocess.run(wanted, capture_output=True, text=True, timeout=240)
    assert done.returncode == EXIT_DONE and read_record(path).status == "done", done.stderr
