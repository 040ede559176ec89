"""Archives of runs: read like a folder of runs; damage is reported."""

from __future__ import annotations

import pytest
from recorded import built, record

from rosa_bench.errors import UsageError
from rosa_bench.records.archive import is_archive, read_archive, write_archive
from rosa_bench.records.collect import collect
from rosa_bench.records.record import read_record
from rosa_bench.tables.formats import markdown


@pytest.fixture
def folder(tmp_path):
    for seed in (1, 2):
        record(tmp_path / "runs", "method=lora", seed=seed, last=50.0 + seed)
    return tmp_path / "runs"


def archived(folder, path, **events):
    records = [read_record(file) for file in folder.glob("*/record.json")]
    write_archive(path, records, events, {})
    return records


def test_tables_of_an_archive_equal_those_of_its_runs(folder, tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    archived(folder, path)
    assert is_archive(path) and not is_archive(folder)
    assert list(map(markdown, built(path))) == list(map(markdown, built(folder)))


def test_the_same_runs_give_the_same_bytes(folder, tmp_path):
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    archived(folder, first)
    archived(folder, second)
    assert first.read_bytes() == second.read_bytes()


def test_training_curves_are_archived_with_their_run(folder, tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    one = archived(folder, path)[0]
    curve = [{"step": 1, "loss": 0.5}]
    archived(folder, path, **{one.run_id: curve})
    collection = collect([path])
    assert [collection.events[id(r)] for r in collection.records if r.run_id == one.run_id] == [curve]


def test_a_run_in_two_places_is_read_from_the_first(folder, tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    archived(folder, path)
    collection = collect([folder, path])
    assert len(collection.records) == 2 and all(collection.folder(r).parent == folder for r in collection.records)


def test_the_curve_of_a_copy_that_is_not_read_is_dropped(folder, tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    one = archived(folder, path)[0]
    archived(folder, path, **{one.run_id: [{"step": 1, "loss": 0.5}]})
    collection = collect([folder, path])  # a later record may get the id of the copy
    assert collection.events == {} and collection.folders.keys() == {id(r) for r in collection.records}


def test_a_damaged_archive_is_named(folder, tmp_path):
    path = tmp_path / "runs.jsonl.gz"
    archived(folder, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"runs\.jsonl\.gz is damaged"):
        read_archive(path)


def test_a_missing_file_is_an_empty_archive(tmp_path):
    assert read_archive(tmp_path / "none.jsonl.gz").records == []
