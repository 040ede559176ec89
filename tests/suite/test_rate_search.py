"""Learning-rate searches of a suite: comparison, choice, and the rows they never read."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from types import SimpleNamespace

import pytest
from made import record
from small_suites import Pretend
from support import SMALL, composed, interrupt, without_cost

from rosa_bench.core.task import Task
from rosa_bench.data.source import load_split
from rosa_bench.errors import EXIT_DONE, UsageError
from rosa_bench.records.record import read_record, write_record
from rosa_bench.records.recorder import now
from rosa_bench.run import run
from rosa_bench.suite import __main__ as suite_command
from rosa_bench.suite import plan
from rosa_bench.suite.gpus import Card, Placement
from rosa_bench.suite.rate_search import beyond, outcome
from rosa_bench.suite.scheduler import Board, failed_so_far

TINY = [*SMALL, "train.max_steps=3", "train.threads=1"]
WORLD = ["task.inputs=16", "task.outputs=8", "task.perturbation=4", "task.train_rows=200", "task.validation_rows=40"]


def tuned(last=50.0, **more):
    """A finished run of a search."""
    rows = {"train": 90, "tune": 10}
    return record(last=last, **({"data": {"rows": rows, "sha256": {}}, "scores": {"tune": {}}} | more))


def small(**more):
    """A suite that searches two rates for two methods at two ranks."""
    block = plan.Block(run={"method": ["lora", "rosa"], "method.rank": [2, 4], "task": "cola"}, search=[1e-3, 3e-3])
    values = {"title": "small", "name": "small", "seeds": [1, 2], "cells": [block]}
    return plan.Suite(**(values | {"tuning": plan.Tuning(at={"method.rank": 4})} | more))


def synthetic():
    """A suite on a regression whose error the rate decides, with a grid that is far too low."""
    block = plan.Block(run={"method": "full", "task": "synthetic"}, search=[1e-6, 1e-4])
    return plan.Suite(title="small", name="small", seeds=[1, 2], cells=[block])


def test_the_best_mean_wins_and_the_lower_rate_of_equals():
    runs = {1e-3: [tuned(40.0), tuned(50.0)], 3e-3: [tuned(46.0), tuned(46.0)], 1e-2: [tuned(46.0), tuned(46.0)]}
    result = outcome(runs)
    assert result.scores == {1e-3: 45.0, 3e-3: 46.0, 1e-2: 46.0} and result.rate == 3e-3 and not result.at_edge
    assert outcome({1e-3: runs[1e-3], 3e-3: runs[3e-3]}).at_edge
    assert not outcome({1e-3: runs[1e-3]}).at_edge  # a single rate has no edge
    assert result.seconds == pytest.approx(
        6 * sum(runs[1e-3][0].cost[name] for name in ("train_s", "method_s", "eval_s"))
    )


def test_lower_is_better_where_the_metric_says_so():
    def mse(last):
        return tuned(primary={"metric": "mse", "higher_is_better": False, "last": last, "best": last})

    assert outcome({1e-3: [mse(2.0)], 3e-3: [mse(1.0)], 1e-2: [mse(5.0)]}).rate == 3e-3


def test_a_rate_with_a_failed_or_undefined_run_cannot_win():
    undefined = tuned(primary={"metric": "matthews", "higher_is_better": True})
    result = outcome({1e-3: [tuned(10.0), tuned(12.0)], 3e-3: [tuned(90.0), None], 1e-2: [tuned(90.0), undefined]})
    assert result.scores == {1e-3: 11.0, 3e-3: None, 1e-2: None} and result.rate == 1e-3
    assert outcome({1e-3: [None], 3e-3: [undefined]}).rate is None


def test_the_grid_grows_by_its_own_step():
    assert beyond([1e-3, 3e-3, 1e-2]) == (3.33e-4, 3.33e-2)
    assert beyond([1e-3]) is None


def test_ranks_share_a_search_and_seeds_share_its_result():
    cells = plan.plan(small(), TINY)
    tuning = [cell for cell in cells if cell.is_tuning]
    assert len(tuning) == 2 * (2 + 2) and len(cells) - len(tuning) == 2 * 2 * 2
    assert {cell.run.method.rank for cell in tuning} == {4} and {cell.run.seed for cell in tuning} == {101}
    assert all(cell.run.task.scored_splits == ["tune"] == [cell.run.task.select_split] for cell in tuning)
    assert [cell.state for cell in tuning[:4]] == ["pending", "pending", "waiting", "waiting"]
    apart = plan.plan(small(tuning=plan.Tuning(seeds=[7, 8])), TINY)
    assert len([cell for cell in apart if cell.is_tuning]) == 2 * 2 * 2 * (2 + 2)


def test_cells_on_other_backbones_or_rows_have_their_own_search():
    run = {"method": "lora", "task": "cola", "model": "roberta_mini", "model.dropout": [0.0, 0.1]}
    blocks = [plan.Block(run={**run, "data": data}, search=[1e-3, 3e-3]) for data in ("embedded", "hub")]
    cells = [cell for cell in plan.plan(small(cells=blocks, seeds=[1]), TINY) if not cell.is_tuning]
    assert len({id(cell.search) for cell in cells}) == len(cells) == 4
    for cell in cells:
        for runs in cell.search.grid.values():
            assert all((run.run.model, run.run.data) == (cell.run.model, cell.run.data) for run in runs)


@pytest.mark.parametrize(
    ("override", "message"),
    [("seed=101", "seed=101 is a seed of the learning-rate search"), ("task.tune_share=0.2", "set tuning.tune_share")],
)
def test_what_would_mix_search_and_final_runs_is_refused(override, message):
    with pytest.raises(UsageError, match=message):
        plan.plan(small(), [*TINY, override])


@pytest.mark.parametrize("prefix", ["", "++"])
def test_a_rate_on_the_command_line_replaces_the_search(prefix):
    cells = plan.plan(small(), [*TINY, f"{prefix}train.lr=0.01"])
    assert len(cells) == 8 and not any(cell.is_tuning for cell in cells) and {c.state for c in cells} == {"pending"}


def test_a_search_with_a_start_is_refused():
    block = plan.Block(run={"method": "lora", "task": "rte", "start": {"task": "mnli"}}, search=[1e-3, 3e-3])
    suite = small(cells=[block, plan.Block(run={"method": "lora", "task": "mnli"})])
    with pytest.raises(UsageError, match="search is not supported with start"):
        plan.plan(suite, TINY)


def test_a_cell_can_start_from_one_with_a_search(tmp_path):
    started = plan.Block(run={"method": "lora", "task": "rte", "start": {"task": "mnli"}})
    suite = small(cells=[started, plan.Block(run={"method": "lora", "task": "mnli"}, search=[1e-3, 3e-3])], seeds=[1])
    *tuning, cell, source = plan.plan(suite, [*TINY, f"output_dir={tmp_path}"])
    assert cell.source is source and source.search is not None and source.run.save == "adapter"
    assert cell.unsettled == [source] and source.unsettled == tuning[:2]
    args = suite_command.parsed(["small", *TINY, f"output_dir={tmp_path}", "--only", "*task=rte*"])
    assert {other.id for other in suite_command.planned(suite, args)} == {c.id for c in [*tuning, cell, source]}


def test_a_search_waits_for_failed_runs_that_are_repeated(tmp_path):
    block = plan.Block(run={"method": "lora", "task": "cola"}, search=[1e-3, 3e-3, 1e-2])
    cells = plan.plan(small(cells=[block], seeds=[1]), [*TINY, f"output_dir={tmp_path}"])
    *tuning, final = cells

    def ended(cell, **more):
        cell.folder.mkdir(exist_ok=True)
        write_record(cell.folder, tuned(run_id=cell.folder.name, key=cell.key, **more))
        final.search._read = 0.0  # otherwise states are up to a second old

    for cell, last in zip(tuning[1:3], (50.0, 40.0), strict=True):
        ended(cell, last=last)
    ended(tuning[0], status="failed", started="first")
    assert final.state == "pending" and final.resolved.train.lr == 3e-3
    board = Board(cells, Pretend(), 1, again=failed_so_far(cells))
    assert board.states[final.id] == "waiting" and final.unsettled == [tuning[0]]
    ended(tuning[0], status="failed", started="second")
    assert final.state == "pending" and final.resolved.train.lr == 3e-3
    Board(cells, Pretend(), 1, again=failed_so_far(cells))
    ended(tuning[0], last=60.0)
    ended(tuning[3], last=10.0)  # the rate below the new winner
    assert final.state == "pending" and final.resolved.train.lr == 1e-3


def test_a_search_waits_for_a_run_that_is_repeated_because_memory_ran_out(tmp_path):
    block = plan.Block(run={"method": "lora", "task": "cola"}, search=[1e-3, 3e-3, 1e-2])
    cells = plan.plan(small(cells=[block], seeds=[1]), [*TINY, f"output_dir={tmp_path}"])
    *tuning, final = cells
    paths = SimpleNamespace(folder=tmp_path / "nowhere", stderr="log")
    jobs = {}

    def submit(cell):
        pickle.dumps(cell)
        jobs[cell.id] = SimpleNamespace(ended=False, job_id="0", paths=paths, result=lambda: 1)
        jobs[cell.id].done = lambda job=jobs[cell.id]: job.ended
        return jobs[cell.id]

    executor = SimpleNamespace(cluster="local", parameters={}, submit=submit)
    board = Board(cells, executor, 3, placement=Placement([Card("0", 0)], 3, 3))
    board._start()
    assert [cell for cell, _ in board.running.values()] == tuning[:3]
    for cell, ended in zip(
        tuning, ({"status": "oom", "started": "first"}, {"last": 50.0}, {"last": 40.0}), strict=False
    ):
        cell.folder.mkdir()
        write_record(cell.folder, tuned(run_id=cell.folder.name, key=cell.key, **ended))
    final.search._read = 0.0
    board._start()  # the processes have written their records but not ended
    assert board.states[final.id] == "waiting" and final.search.outcome() is None
    for job in jobs.values():
        job.ended = True
    final.search._read = 0.0
    board._collect()
    assert tuning[0] in board.waiting and final.state == "waiting" and final.unsettled == [tuning[0]]
    (*_, elsewhere) = plan.plan(small(cells=[block], seeds=[1]), [*TINY, f"output_dir={tmp_path}"])
    assert elsewhere.state == "waiting" and elsewhere.search.outcome() is None  # also in another process


def test_a_search_waits_until_a_board_could_repeat_a_run_that_just_ran_out_of_memory(tmp_path):
    block = plan.Block(run={"method": "lora", "task": "cola"}, search=[1e-3, 3e-3, 1e-2])
    *tuning, final = plan.plan(small(cells=[block], seeds=[1]), [*TINY, f"output_dir={tmp_path}"])
    ended = ({"status": "oom", "finished": now()}, {"last": 50.0}, {"last": 40.0})
    for cell, values in zip(tuning, ended, strict=False):
        cell.folder.mkdir()
        write_record(cell.folder, tuned(run_id=cell.folder.name, key=cell.key, **values))
    assert final.unsettled == [tuning[0]] and final.search.outcome() is None
    assert Board([*tuning, final], Pretend(), 1)._comes(final)  # so the final run is not given up
    write_record(tuning[0].folder, dataclasses.replace(tuning[0].record, finished="2026-01-01T00:00:00+00:00"))
    final.search._read = 0.0
    assert final.state == "pending" and final.resolved.train.lr == 3e-3


def test_the_winner_at_the_edge_extends_the_grid_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite_command, "load", lambda _: synthetic())
    monkeypatch.setattr(suite_command, "make_executor", lambda *_: Pretend())
    options = ["tracker=none", "train.max_steps=40", "train.threads=1", "train.device=cpu", f"output_dir={tmp_path}"]
    assert suite_command.main(["small", *options, *WORLD]) == EXIT_DONE
    assert "2 done" in capsys.readouterr().out
    records = [read_record(path) for path in tmp_path.glob("*/record.json")]
    tuning = {r.config["train"]["lr"]: r for r in records if r.config["task"]["tune_share"] is not None}
    final = [r for r in records if r.config["task"]["tune_share"] is None]
    assert sorted(tuning) == [1e-6, 1e-4, 1e-2]  # none below, where no edge was reached
    best = min(tuning, key=lambda rate: tuning[rate].primary["last"])
    assert {r.config["train"]["lr"] for r in final} == {best} == {1e-2}
    assert {r.seed for r in final} == {1, 2} and all(set(r.data["rows"]) == {"train", "validation"} for r in final)
    tags = [[tag for tag in r.config["tracker"]["tags"] if tag.startswith("search:")] for r in records]
    assert all(len(names) == 1 for names in tags) and len({names[0] for names in tags}) == 1
    assert suite_command.main(["small", *options, *WORLD]) == EXIT_DONE  # nothing is left to do
    assert len(list(tmp_path.glob("*/record.json"))) == len(records)


def test_stopping_at_any_stage_does_not_change_the_result(tmp_path):
    def cells(name):
        return plan.plan(synthetic(), ["tracker=none", "train.max_steps=8", f"output_dir={tmp_path / name}", *WORLD])

    whole, parts = cells("whole"), cells("parts")
    Board(whole, Pretend(), 1).run()
    first = parts[0]
    interrupt(first.run, 3)
    assert first.state == "pending" and parts[-1].state == "waiting"
    Board([cell for cell in parts if cell.is_tuning], Pretend(), 1).run()  # the suite is killed between the stages
    again = cells("parts")
    interrupt(again[-1].resolved, 3)
    Board(again, Pretend(), 1).run()
    finished = [cell for cell in whole if cell.state == "done"]
    assert len(finished) == len([cell for cell in again if cell.state == "done"]) == 5
    for one, other in zip(whole, again, strict=True):
        assert one.state == other.state in ("done", "skipped")
        if one.state == "done":
            assert without_cost(one.record) == without_cost(other.record)


def written(folder, labels):
    """Local CoLA with training rows that never change and these validation labels."""
    target = folder / "glue" / "cola"
    target.mkdir(parents=True)
    train = load_split(cola().task, cola().data, "train")
    rows = [{"idx": i, "sentence": e.texts[0], "label": e.label} for i, e in enumerate(train.examples[:300])]
    (target / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if labels is not None:
        rows = [{"idx": i, "sentence": f"{row['sentence']} Yes.", "label": labels(row)} for i, row in enumerate(rows)]
        (target / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:40]))
    return folder


def cola(*more):
    """A run on embedded CoLA, with overrides."""
    return composed("task=cola", *TINY, *more)


def test_a_search_reads_no_evaluation_row(tmp_path):
    with_rows = {"true": lambda row: row["label"], "turned": lambda row: 1 - row["label"], "none": None}
    records = {}
    for name, labels in with_rows.items():
        data = written(tmp_path / name, labels)
        options = ["data=local", f"data.dir={data}", f"output_dir={tmp_path / 'runs' / name}", "task.tune_share=0.3"]
        records[name] = run(cola(*options))
    same = [without_cost(record) for record in records.values()]
    assert same[0] == same[1] == same[2] and set(records["none"].data["rows"]) == {"train", "tune"}
    assert outcome({1e-3: records.values()}).scores


def test_a_planted_leak_is_detected(tmp_path, monkeypatch):
    monkeypatch.setattr(Task, "in_tuning", lambda self: self)  # the run is scored on its evaluation split
    leaking = run(cola(f"output_dir={tmp_path}", "task.tune_share=0.3"))
    with pytest.raises(UsageError, match="has read the split validation"):
        outcome({1e-3: [leaking]})
    cells = plan.plan(small(seeds=[1]), [*TINY, f"output_dir={tmp_path}"])
    with pytest.raises(UsageError, match="has read the split validation"):
        Board(cells, Pretend(), 1).run()


@pytest.mark.parametrize("name", ["cola", "stsb", "sciq", "e2e", "webnlg", "dart", "synthetic"])
def test_the_parts_are_disjoint_and_whole(name):
    chosen = cola(f"task={name}")
    tuning = dataclasses.replace(chosen.task, tune_share=0.2).in_tuning()
    train, tune = (load_split(tuning, chosen.data, split) for split in ("train", "tune"))
    whole = load_split(chosen.task, chosen.data, "train")
    assert train.rows + tune.rows == whole.rows and 0.1 < tune.rows / whole.rows < 0.3
    assert not {e.texts for e in train.examples} & {e.texts for e in tune.examples}
    assert {e.texts for e in train.examples} | {e.texts for e in tune.examples} == {e.texts for e in whole.examples}
    if chosen.task.kind.decodes:  # one example per input, with the references of all its training rows
        expected: dict = {}
        for example in whole.examples:
            expected.setdefault(example.texts, dict.fromkeys([])).update(dict.fromkeys(example.references))
        assert len({e.texts for e in tune.examples}) == len(tune.examples)
        assert all(list(e.references) == list(expected[e.texts]) for e in tune.examples)


def test_the_hash_of_texts_decides_not_the_order(tmp_path):
    chosen = cola("task.tune_share=0.3", "data=local", f"data.dir={written(tmp_path / 'a', None)}")
    lines = (tmp_path / "a" / "glue" / "cola" / "train.jsonl").read_text().splitlines(keepends=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "glue" / "cola" / "train.jsonl").write_text("".join(reversed(lines)))
    other = dataclasses.replace(chosen.data, dir=str(tmp_path / "b"))
    first, second = ({e.texts for e in load_split(chosen.task, data, "tune").examples} for data in (chosen.data, other))
    assert first == second
