"""Suites whose cells start from other cells."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_suites import TWO_STAGES, Pretend, small_suite
from support import SMALL, interrupt, without_cost

from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, UsageError
from rosa_bench.records.record import read_record
from rosa_bench.run import run as run_experiment
from rosa_bench.suite import __main__ as suite
from rosa_bench.suite import plan
from rosa_bench.suite.scheduler import Board

TINY = [*SMALL, "train.max_steps=2", "train.threads=1"]


def test_the_papers_suites_start_from_mnli():
    for name, code, methods in (("lora_table2", False, {"lora", "full"}), ("dylora_table2", True, {"dylora", "lora"})):
        cells = plan.plan(plan.load(name), published_code=code)
        started = [cell for cell in cells if cell.source is not None]
        assert {cell.run.task.name for cell in started} == {"mrpc", "rte", "stsb"}
        assert {cell.run.method.name for cell in started} == methods
        for cell in started:
            source = cell.source
            assert source.run.task.name == "mnli" and source.run.save == "adapter"
            assert (source.run.seed, source.run.model, source.run.method) == (
                cell.run.seed,
                cell.run.model,
                cell.run.method,
            )
            assert cell.block.incomparable is None or cell.run.method.name == "full"
    restricted = [cell for cell in plan.plan(plan.load("lora_table2")) if cell.block.reported == "LoRA_restricted"]
    assert restricted and all(cell.source is None for cell in restricted)
    assert not any(cell.source for cell in plan.plan(plan.load("dylora_table2")))


def test_a_start_that_matches_no_cell_or_several_or_itself_is_one_line():
    wrong = [
        ([{"task": "rte", "start": {"task": "mnli"}}], "matches no cell"),
        ([{"task": "mnli", "train.lr": [1e-3, 1e-4]}, {"task": "rte", "start": {"task": "mnli"}}], "matches 2 cells"),
        ([{"task": "rte", "start": {"task": "mrpc"}}, {"task": "mrpc", "start": {"task": "rte"}}], "from itself"),
    ]
    for cells, message in wrong:
        with pytest.raises(UsageError, match=message):
            plan.plan(small_suite(*cells))
    chosen = {"task": "rte", "start": {"task": "mnli", "train.lr": 1e-3}}
    cells = plan.plan(small_suite({"task": "mnli", "train.lr": [1e-3, 1e-4]}, chosen))
    assert next(cell for cell in cells if cell.source).source.run.train.lr == 1e-3
    other = {"task": "rte", "method": "lora", "start": {"task": "mnli", "method": "full"}}
    cells = plan.plan(small_suite({"task": "mnli", "method": ["full", "lora"]}, other))
    assert next(cell for cell in cells if cell.source).source.run.method.name == "full"
    for typed in ("start=elsewhere", "++start=elsewhere"):
        cells = plan.plan(small_suite({"task": "mnli"}, {"task": "rte", "start": {"task": "mnli"}}), [typed])
        assert not any(cell.source for cell in cells) and all(cell.run.start == "elsewhere" for cell in cells)


def test_cells_that_start_from_different_folders_are_different_cells():
    cells = plan.plan(small_suite({"task": "rte", "start": ["runs/first", "runs/second"]}))
    assert [cell.run.start for cell in cells] == ["runs/first", "runs/second"]


def test_second_stages_wait_run_and_are_reused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "load", lambda _: small_suite(*TWO_STAGES))
    monkeypatch.setattr(suite, "make_executor", lambda *_: Pretend())
    wanted = ["smoke", *TINY, f"output_dir={tmp_path}", "--jobs", "2"]
    assert suite.main([*wanted, "--dry-run"]) == EXIT_DONE
    out = capsys.readouterr().out
    assert "3 cells: 1 pending  2 waiting" in out and out.count("  starts from mnli-roberta_mini-lora-s1-") == 2
    assert suite.main(wanted) == EXIT_DONE
    records = {record.task: record for record in map(read_record, tmp_path.glob("*/record.json"))}
    for task in ("rte", "mrpc"):
        assert records[task].facts["start"]["run_id"] == records["mnli"].run_id
        assert records[task].config["start"] == records["mnli"].run_id
    capsys.readouterr()
    assert suite.main(wanted) == EXIT_DONE and "3 cells: 3 done" in capsys.readouterr().out


def test_only_includes_the_cells_it_starts_from(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "load", lambda _: small_suite(*TWO_STAGES))
    assert suite.main(["smoke", *TINY, f"output_dir={tmp_path}", "--only", "*task=rte*", "--dry-run"]) == EXIT_DONE
    out = capsys.readouterr().out
    assert "pending   mnli-" in out and "waiting   rte-" in out and "mrpc-" not in out


def test_a_failed_first_stage_lists_what_cannot_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "load", lambda _: small_suite(*TWO_STAGES))
    monkeypatch.setattr(suite, "make_executor", lambda *_: Pretend())
    wanted = ["smoke", *TINY, f"output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr("rosa_bench.run.make_trainer", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
        assert suite.main(wanted) == EXIT_FAILED
    lines = capsys.readouterr().out.partition("3 not done:")[2]
    assert "no room" in lines and lines.count("which failed") == 2
    assert "cannot run  rte-roberta_mini-lora-s1: starts from mnli-" in lines
    assert suite.main(wanted) == EXIT_FAILED and "which failed" in capsys.readouterr().out  # not tried again
    assert suite.main([*wanted, "--retry-failed"]) == EXIT_DONE


def test_a_first_stage_without_stored_weights_is_run_again(tmp_path):
    cells = plan.plan(small_suite(*TWO_STAGES), [*TINY, f"output_dir={tmp_path}"])
    (source,) = [cell for cell in cells if cell.is_source]
    plain = run_experiment(dataclasses.replace(source.run, save="none"))
    assert plain.status == "done" and source.state == "pending"
    executor = Pretend()
    Board(cells, executor, 1).run()
    assert len(executor.submitted) == 3 and all(cell.state == "done" for cell in cells)
    assert without_cost(source.record) == without_cost(plain)


def command(folder: Path, *more: str) -> subprocess.Popen:
    """A suite of two stages in a process."""
    code = "import small_suites; small_suites.two_stages()"
    arguments = [sys.executable, "-c", code, "smoke", *TINY, f"output_dir={folder}", *more]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_suites_at_once_share_the_stages(tmp_path):
    both = [command(tmp_path, "--jobs", "2") for _ in range(2)]
    outputs = [process.communicate(timeout=280) for process in both]
    assert [process.returncode for process in both] == [EXIT_DONE] * 2, outputs
    records = list(map(read_record, tmp_path.glob("*/record.json")))
    assert len(records) == 3 and all(record.status == "done" for record in records)


def test_stopping_in_either_stage_does_not_change_the_result(tmp_path):
    def cells(name: str) -> list[plan.Cell]:
        options = [*TINY[:-2], "train.max_steps=5", "train.threads=1", "save=adapter", f"output_dir={tmp_path / name}"]
        return plan.plan(small_suite(*TWO_STAGES), options)

    def finish(result: list[plan.Cell]) -> None:
        Board(result, Pretend(), 1).run()
        assert all(cell.state == "done" for cell in result)

    whole, parts = cells("whole"), cells("parts")
    finish(whole)
    source = next(cell for cell in parts if cell.is_source)
    interrupt(source.run, 3)
    Board([source], Pretend(), 1).run()
    for cell in parts:
        if cell is not source:
            interrupt(cell.resolved, 3)
    finish(parts)
    for expected, cell in zip(whole, parts, strict=True):
        assert without_cost(cell.record) == without_cost(expected.record)
        first, second = (one.folder / "adapter" / "adapter.safetensors" for one in (expected, cell))
        assert first.read_bytes() == second.read_bytes()
