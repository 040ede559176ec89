"""`scripts/keep_records.py` archives intact records and skips damaged ones."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import migrate_records
import pytest

from rosa_bench.records.archive import read_archive, write_archive
from rosa_bench.records.record import COPY, Record, write_record
from rosa_bench.suite import plan

ARCHIVE = Path("results/small.jsonl.gz")


@pytest.fixture
def keep(monkeypatch, tmp_path):
    """The script in its own working directory, without plots."""
    path = Path(__file__).parent.parent.parent / "scripts" / "keep_records.py"
    spec = importlib.util.spec_from_file_location("keep_records", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / "README.md").write_text("<!-- small: begin -->\n<!-- small: end -->\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rosa_bench.tables.__main__.draw", lambda *_: ([], []))
    return script.main


@pytest.fixture
def cells(monkeypatch) -> list[plan.Cell]:
    """The finished cells of a suite of two methods and two seeds."""
    block = plan.Block(run={"method": ["lora", "full"]})
    suite = plan.Suite(title="small", name="small", cells=[block], seeds=[1, 2])
    monkeypatch.setattr(plan, "load", lambda name: suite)
    planned = plan.plan(suite)
    for cell in planned:
        finish(cell, 50.0 + cell.run.seed)
    return planned


def finish(cell: plan.Cell, score: float, status: str = "done") -> None:
    """Write a record for a cell."""
    run, split = cell.run, cell.run.task.judged_split
    own = Record(cell.folder.name, cell.key, "cola", "roberta_mini", run.method.name, run.seed, run.to_dict())
    own.status, own.variant_names, own.scores = status, [""], {split: {"": {"matthews": score}}}
    own.primary = {"metric": "matthews", "split": split, "last": score}
    if status != "done":
        own.scores, own.primary = {}, {}
    own.params, own.data = {"trainable": 1000}, {"source": "embedded v1", "sha256": {}, "rows": {}}
    cell.folder.mkdir(parents=True)
    write_record(cell.folder, own)


def damaged(path: Path) -> bytes:
    """Change the score to another plausible value."""
    content = path.read_bytes().replace(b'"matthews": 5', b'"matthews": 6').replace(b'"last": 5', b'"last": 6')
    assert content != path.read_bytes()
    path.write_bytes(content)
    return content


def test_intact_records_are_archived_unchanged(keep, cells, capsys):
    assert keep("small", []) == 0
    archived = {record.key: record for record in read_archive(ARCHIVE).records}
    assert archived == {cell.key: cell.record for cell in cells}
    assert "4 records of small" in capsys.readouterr().out and "51.50 ± 0.71 |" in Path("README.md").read_text()


def test_archived_records_name_no_folders_of_the_machine(keep, cells):
    first = cells[0]
    config = {**first.record.config, "data": {**first.record.config["data"], "dir": "/home/me/rows"}}
    write_record(first.folder, dataclasses.replace(first.record, config={**config, "output_dir": "/home/me/runs"}))
    assert keep("small", []) == 0
    (archived,) = (record for record in read_archive(ARCHIVE).records if record.key == first.key)
    assert (archived.config["data"]["dir"], archived.config["output_dir"]) == ("rows", "results/runs")
    assert archived.scores == first.record.scores and "/home" not in str(archived.to_dict())


def test_the_intact_copy_of_a_damaged_record_is_archived(keep, cells, capsys):
    first, whole = cells[0].folder / "record.json", cells[0].record
    damaged(first)
    assert keep("small", []) == 0
    assert whole in read_archive(ARCHIVE).records
    assert str(first) in capsys.readouterr().err


def test_a_damaged_record_without_an_intact_copy_is_skipped_with_a_message(keep, cells, capsys):
    first = cells[0].folder / "record.json"
    content = damaged(first)
    (cells[0].folder / COPY).write_bytes(content)
    assert keep("small", []) == 0
    output = capsys.readouterr()
    assert f"skipped: {first} is not a record" in output.err and "3 records of small" in output.out
    assert cells[0].key not in {record.key for record in read_archive(ARCHIVE).records}
    assert "52.00 (n=1) |" in Path("README.md").read_text()


def test_without_an_intact_record_nothing_is_archived(keep, cells, capsys):
    for cell in cells:
        damaged(cell.folder / "record.json")
        (cell.folder / COPY).unlink()
    assert keep("small", []) == 2 and not ARCHIVE.exists()
    output = capsys.readouterr().err
    assert output.count("skipped: ") == 4 and "no cell of small is done" in output


def test_migrated_records_keep_curves_and_resampled_scores_but_no_unknown_key(
    keep, cells, tmp_path, monkeypatch, capsys
):
    plain, started, full, _ = (cell.record for cell in cells)
    started.facts["start"] = {"sha256": "0" * 64}
    curve, scores = [{"step": 1, "loss": 0.5}], {"": [50.0, 52.0]}
    old, new = tmp_path / "old.jsonl.gz", tmp_path / "new.jsonl.gz"
    write_archive(old, [plain, started, full], {plain.run_id: curve}, {}, {full.run_id: scores})
    monkeypatch.setattr(migrate_records, "rekeyed", lambda *_: ())
    monkeypatch.setattr("sys.argv", ["migrate_records", str(old), str(new)])
    assert migrate_records.main() == 0
    output = capsys.readouterr()
    assert started.run_id in output.err and "2 unchanged" in output.out
    migrated = read_archive(new)
    assert {record.key for record in migrated.records} == {plain.key, full.key}
    assert migrated.events == {plain.run_id: curve} and migrated.resampled == {full.run_id: scores}


def test_a_failed_run_of_a_search_is_archived_and_restored(keep, tmp_path, monkeypatch):
    """In a folder for each rate, so that the runs are in several folders."""
    block = plan.Block(run={"method": ["lora", "full"]}, search=[1e-4, 1e-3, 1e-2])
    suite = plan.Suite(title="small", name="small", cells=[block], seeds=[1])
    monkeypatch.setattr(plan, "load", lambda name: suite)
    where, scores = ["output_dir='runs/${train.lr}'"], {1e-4: 50.0, 1e-3: 60.0, 1e-2: 0.0}
    planned = plan.plan(suite, where)
    for cell in (cell for cell in planned if cell.is_tuning and cell.search is None):
        finish(cell, scores[cell.run.train.lr], "failed" if cell.run.train.lr == 1e-2 else "done")
    for cell in (cell for cell in planned if not cell.is_tuning):
        finish(cell, 55.0)
    ARCHIVE.parent.mkdir()
    assert keep("small", where) == 0
    assert "lora r=8 0.001 of 0.0001, 0.001, 0.01 (6 runs" in Path("README.md").read_text()
    shutil.rmtree("runs")
    assert keep.__globals__["restore"]("small", []) == 0
    states = [(cell.run.train.lr, cell.state) for cell in plan.plan(suite) if cell.is_tuning and cell.search is None]
    assert sorted(states) == [(1e-4, "done")] * 2 + [(1e-3, "done")] * 2 + [(1e-2, "failed")] * 2


def test_a_suite_continues_from_restored_records(keep, cells, capsys):
    assert keep("small", []) == 0
    expected = {cell.key: cell.record for cell in cells}
    for cell in cells:
        shutil.rmtree(cell.folder)
    assert {cell.state for cell in cells} == {"pending"}
    restore = keep.__globals__["restore"]
    assert restore("small", []) == 0 and "4 of 4 records" in capsys.readouterr().out
    assert {cell.key: cell.record for cell in cells} == expected and {cell.state for cell in cells} == {"done"}
    assert restore("small", []) == 0 and "0 of 4 records" in capsys.readouterr().out
