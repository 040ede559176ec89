"""Placement of a suite's cells on cards, without a GPU and with simulated answers of the driver."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import SMALL

from rosa_bench.errors import EXIT_USAGE, UsageError
from rosa_bench.records.record import Record
from rosa_bench.records.recorder import status_of
from rosa_bench.suite import __main__ as suite
from rosa_bench.suite import clusters, gpus, plan, scheduler
from rosa_bench.suite.clusters import Share
from rosa_bench.suite.gpus import Placement, visible_cards

GB = 2**30
UUIDS = [f"GPU-{digit * 8}-0000" for digit in "abcd"]


class Driver:
    """The answers of nvidia-smi and torch: cards of 80 GiB, and how much of each is used."""

    def __init__(self, monkeypatch, count: int) -> None:
        self.used = [0.0] * count
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(gpus, "REFRESH_S", 0.0)
        monkeypatch.setattr(gpus.subprocess, "run", self.run)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def run(self, command, **_):
        assert command[0] == "nvidia-smi"
        rows = [f"{i}, {UUIDS[i]}, {80 * 1024}, {int(used * 1024)}, {10 * i}" for i, used in enumerate(self.used)]
        return SimpleNamespace(stdout="\n".join([*rows, ""]))


@pytest.fixture
def driver(monkeypatch):
    return lambda count: Driver(monkeypatch, count)


def names(cards) -> list[str]:
    return [card.name for card in cards]


def test_only_visible_cards_are_used(driver, monkeypatch):
    driver(3)
    assert names(visible_cards()) == UUIDS[:3] and visible_cards()[1].reading.total_bytes == 80 * GB
    assert names(visible_cards("2,0,2")) == [UUIDS[2], UUIDS[0]]
    with pytest.raises(UsageError, match="no card 3; this machine has 0 to 2"):
        visible_cards("0,3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"2,{UUIDS[0]}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cards = visible_cards()
    assert names(cards) == ["2", UUIDS[0]] and [c.reading.uuid for c in cards] == [UUIDS[2], UUIDS[0]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1-2-3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert names(visible_cards()) == ["MIG-1-2-3"] and visible_cards()[0].reading is None


@pytest.mark.parametrize("error", [FileNotFoundError("nvidia-smi"), subprocess.TimeoutExpired("nvidia-smi", 20)])
def test_without_nvidia_smi_a_card_takes_one_job(driver, monkeypatch, error):
    driver(2)

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(gpus.subprocess, "run", fails)
    placement = Placement(visible_cards(), None, 8)
    assert [placement.place(cell, GB).name for cell in "ab"] == ["0", "1"] and placement.place("c", GB) is None
    assert str(placement) == "card 0: 1 job  card 1: 1 job"
    placement = Placement(visible_cards(), 2, 8)  # a number of jobs needs no memory
    assert [placement.place(cell, None).name for cell in "abcd"] == ["0", "1", "0", "1"] and placement.full


def test_jobs_of_unknown_size_run_alone_and_others_share(driver):
    driver(1)
    placement = Placement(visible_cards(), None, 16)
    assert placement.place("first", None) and placement.full and placement.place("second", GB) is None
    placement.release("first")
    need = int(18 * GB)  # 19.8 with the margin, 20.8 with the context: three fit into 80
    placed = [placement.place(cell, need) is not None for cell in "abcd"]
    assert placed == [True, True, True, False]
    assert placement.place("unknown", None) is None and placement.place("small", GB) is not None
    assert str(placement) == "card 0: 4 jobs, 0 % busy, 0.0 of 85.9 GB"


def test_memory_of_other_programs_is_not_available(driver):
    made = driver(2)
    made.used = [75.0, 0.0]
    placement = Placement(visible_cards(), None, 16)
    chosen = [placement.place(cell, 10 * GB) for cell in "abcd"]
    assert [card.position for card in chosen[:2]] == [1, 0]  # an empty card takes a job whatever others do
    assert [card.position for card in chosen[2:]] == [1, 1]
    assert "card 1: 3 jobs, 10 % busy" in str(placement)


def test_jobs_are_spread_and_limited_by_cores(driver):
    driver(2)
    placement = Placement(visible_cards(), 3, 5)
    chosen = [placement.place(str(i), None) for i in range(6)]
    assert [card and card.position for card in chosen] == [0, 1, 0, 1, 0, None] and placement.at_most(100) == 5
    assert Placement(visible_cards(), None, 64).at_most(100) == 64
    assert Placement(visible_cards(), 3, 64).at_most(100) == 6 and Placement(visible_cards(), 3, 64).at_most(4) == 4


@pytest.mark.parametrize("per_gpu", [None, 4])
def test_fewer_jobs_share_a_card_after_out_of_memory(driver, per_gpu):
    driver(1)
    placement = Placement(visible_cards(), per_gpu, 16)
    assert all(placement.place(cell, GB) for cell in "abcd")
    placement.release("a", out_of_memory=True)
    assert placement.full and placement.place("e", GB) is None
    for cell in "bcd":
        placement.release(cell)
    assert placement.place("a", GB, alone=True) and placement.place("e", GB) is None
    placement.release("a", out_of_memory=True)  # alone: no number of neighbors is to blame
    assert [placement.place(cell, GB) is not None for cell in "efgh"] == [True, True, True, False]


class Machine:
    """An executor whose jobs end when a test ends them; records the card of each."""

    cluster = "local"

    def __init__(self) -> None:
        self.parameters: dict = {}
        self.cards: list[tuple[str, str]] = []
        self.live: dict[str, SimpleNamespace] = {}

    def submit(self, cell):
        self.cards.append((cell.run.method.rank, self.parameters["visible_gpus"][0]))
        job = SimpleNamespace(ended=False, job_id="0", paths=SimpleNamespace(folder=Path("nowhere"), stderr="log"))
        job.done, job.result = lambda: job.ended, lambda: 0
        self.live[cell.id] = job
        return job


def record_of(cell, status: str, peak: float = 0.0) -> Record:
    cost = {"train_s": 1.0, "peak_device_bytes": int(peak * GB), "peak_reserved_bytes": int(peak * GB)}
    run = cell.run
    record = Record(cell.id, cell.key, run.task.name, run.model.name, "lora", 1, {}, status=status, cost=cost)
    record.started = record.finished = str(time.monotonic_ns())
    return record


@pytest.fixture
def board(driver, monkeypatch, tmp_path):
    """A board for cells of ranks 1 to n with handmade records."""

    def make(ranks: int, count: int, share: Share):
        made = driver(count)
        block = plan.Block(run={"task": "cola", "method": "lora", "method.rank": list(range(1, ranks + 1))})
        overrides = [*(o for o in SMALL if "device" not in o), f"output_dir={tmp_path}"]
        cells = plan.plan(plan.Suite(title="ranks", cells=[block]), overrides)
        records: dict[str, Record] = {}
        monkeypatch.setattr(plan.Cell, "record", property(lambda cell: records.get(cell.id)))
        monkeypatch.setattr(clusters, "processor_cores", lambda: 16)
        whole = share.board(cells, Machine(), share.placement(cells))

        def end(rank: int, status: str, peak: float = 0.0) -> None:
            (cell,) = (cell for cell in whole.cells if cell.run.method.rank == rank)
            records[cell.id] = record_of(cell, status, peak)
            whole.executor.live[cell.id].ended = True
            turn()

        def turn() -> list[int]:
            whole._collect()
            whole._start()
            return sorted(cell.run.method.rank for cell, _ in whole.running.values())

        return SimpleNamespace(whole=whole, end=end, turn=turn, driver=made, records=records)

    return make


def test_the_first_cell_runs_alone_then_as_many_as_fit(board, capsys):
    made = board(8, 1, Share(gpus="all"))
    assert made.turn() == [1] and made.turn() == [1]
    made.end(1, "done", peak=18)
    assert made.turn() == [2, 3, 4]
    made.end(3, "done", peak=40)  # which does not fit next to two of 18
    assert made.turn() == [2, 4] and made.whole.counts() == {
        **dict.fromkeys(("elsewhere", "failed", "waiting", "skipped"), 0),
        "done": 2,
        "running": 2,
        "pending": 4,
    }
    made.whole._show()
    assert "card 0: 2 jobs, 0 % busy, 0.0 of 85.9 GB" in capsys.readouterr().out
    assert {cell.run.train.threads for cell in made.whole.cells} == {2}  # 16 cores for at most 8 cells


def test_every_card_gets_a_first_cell(board):
    made = board(6, 2, Share(gpus="all"))
    assert made.turn() == [1, 2]
    made.end(2, "done", peak=30)
    assert made.turn() == [1, 3, 4]
    assert made.whole.executor.cards == [(1, UUIDS[0]), (2, UUIDS[1]), (3, UUIDS[1]), (4, UUIDS[1])]


def test_out_of_memory_is_repeated_once_alone(board, capsys):
    made = board(4, 1, Share(gpus="0", per_gpu=3))
    assert made.turn() == [1, 2, 3]
    made.end(2, "oom")
    assert made.turn() == [1, 3] and made.whole.states[made.whole.cells[1].id] == "failed"
    assert "repeated once" in capsys.readouterr().err
    made.end(1, "done")
    assert made.turn() == [3, 4]  # two at a time from now on; the one that failed waits for an empty card
    made.end(3, "done")
    made.end(4, "done")
    assert made.turn() == [2]
    made.end(2, "oom")
    assert made.turn() == [] and made.whole.counts()["failed"] == 1 and not made.whole.waiting


def test_a_cell_that_starts_from_another_waits_for_it_on_cards_too(board):
    made = board(2, 2, Share(gpus="all"))
    first, second = made.whole.cells
    made.whole.waiting = made.whole.cells = [first, dataclasses.replace(second, source=first)]
    made.whole.states = {cell.id: cell.state for cell in made.whole.cells}
    assert made.turn() == [1] and made.whole.counts()["waiting"] == 1


def test_without_gpus_given_jobs_are_spread_over_cards(board):
    made = board(5, 2, Share(jobs=3))
    assert made.turn() == [1, 2, 3]
    assert [card for _, card in made.whole.executor.cards] == [UUIDS[0], UUIDS[1], UUIDS[0]]


def test_a_failed_cell_of_another_process_is_not_run_again(board):
    made = board(2, 1, Share(jobs=1))
    failed = made.whole.cells[1]
    made.records[failed.id] = record_of(failed, "failed")
    assert made.turn() == [1]
    made.end(1, "done")
    assert made.turn() == [] and made.whole.executor.cards == [(1, UUIDS[0])]


def test_a_job_sees_only_its_card(tmp_path):
    executor = clusters.make_executor("local", tmp_path, "cards", {})
    board = scheduler.Board([], executor, 1)
    job = board._submit(functools.partial(os.getenv, "CUDA_VISIBLE_DEVICES"), gpus.Card(UUIDS[2], 2))
    assert job.result() == UUIDS[2]


def test_usage_of_cards(driver, capsys, tmp_path):
    wanted = ["smoke", *SMALL, f"output_dir={tmp_path}"]
    assert suite.main([*wanted, "--gpus", "all"]) == EXIT_USAGE and "train.device=cpu" in capsys.readouterr().err
    wanted = [o for o in wanted if "device" not in o]
    driver(0)
    assert suite.main([*wanted, "--gpus", "0"]) == EXIT_USAGE and "finds no GPU" in capsys.readouterr().err
    driver(2)
    assert suite.main([*wanted, "--gpus", "5"]) == EXIT_USAGE and "no card 5" in capsys.readouterr().err
    for arguments, message in [
        (["--gpus", "first"], "instead of first"),
        (["--gpus", "0,"], "instead of 0,"),
        (["--per-gpu", "2"], "needs --gpus"),
        (["--gpus", "all", "--per-gpu", "0"], "0 is less than 1"),
        (["--workers", "2"], "needs --cluster slurm"),
        (["--cluster", "slurm", "--gpus", "all"], "--workers"),
        (["--jobs", "0"], "0 is less than 1"),
    ]:
        with pytest.raises(SystemExit) as ended:
            suite.main([*wanted, *arguments])
        assert ended.value.code == EXIT_USAGE and message in capsys.readouterr().err


def test_other_messages_of_out_of_memory():
    for text in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"):
        assert status_of(RuntimeError(text)) == "oom"
    assert status_of(RuntimeError("CUDA error: an illegal memory access was encountered")) == "failed"
