"""Tables from records made by hand: closed-form means and spreads, embedded and real rows apart, broken files named."""

from __future__ import annotations

import csv
import json

from rosa_bench import tables
from rosa_bench.record import Record, read_record


def record(folder, *, task="cola", method="lora", rank=8, seed=1, last=50.0, source="embedded v1", model="m", **more):
    """Write one record; `more` replaces its top-level fields."""
    config = {
        "method": {"rank": rank, "_target_": method},
        "model": {"random_init": False},
        "task": {"name": task},
        "train": {"lr": 0.1, "device": "cpu"},
    }
    values = {
        "run_id": f"{task}-{method}-{rank}-{seed}-{source[:3]}",
        "key": "k",
        "task": task,
        "model": model,
        "method": method,
        "seed": seed,
        "config": config,
        "status": "done",
        "data": {"source": source, "sha256": {}},
        "primary": {"metric": "matthews", "last": last},
        "params": {"trainable": 1000},
    } | more
    place = folder / values["run_id"]
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(Record(**values).to_dict()))
    return place / "record.json"


def built(folder):
    return {table.title: table for table in tables.build(tables.records(folder)[0])}


def test_mean_and_standard_deviation_over_seeds(tmp_path):
    for seed, last in ((1, 50.0), (2, 52.0), (3, 57.0)):
        record(tmp_path, seed=seed, last=last)
    (table,) = built(tmp_path).values()
    assert table.rows == (("method", "trainable", "cola (matthews)"), ("lora r=8", "1,000", "53.00 ± 3.61 (n=3)"))


def test_one_seed_has_no_spread_and_a_missing_cell_is_a_dash(tmp_path):
    record(tmp_path, task="cola")
    record(tmp_path, task="sst2", method="rosa", primary={"metric": "accuracy", "last": 80.0})
    (table,) = built(tmp_path).values()
    assert table.rows[1][2:] == ("50.00 (n=1)", "–") and table.rows[2][2:] == ("–", "80.00 (n=1)")


def test_embedded_and_real_rows_never_share_a_table(tmp_path):
    record(tmp_path)
    record(tmp_path, source="local", seed=2)
    assert set(built(tmp_path)) == {"m on embedded v1", "m on local"}


def test_unfinished_and_broken_records_are_left_out(tmp_path):
    record(tmp_path)
    record(tmp_path, seed=2, status="failed", primary={})
    broken = record(tmp_path, seed=3)
    broken.write_text(broken.read_text()[:-20])
    foreign = record(tmp_path, seed=4)
    foreign.write_text(json.dumps(json.loads(foreign.read_text()) | {"schema": 99}))
    found, said = tables.records(tmp_path)
    assert len(found) == 1 and len(said) == 2
    assert str(broken) in said[0] + said[1] and str(foreign) in said[0] + said[1]


def test_other_settings_of_a_method_are_not_averaged(tmp_path):
    first = record(tmp_path, last=50.0)
    value = json.loads(first.read_text())
    value["config"]["train"]["lr"] = 0.2
    value["primary"]["last"], value["run_id"] = 60.0, "other"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "record.json").write_text(json.dumps(value))
    (table,) = built(tmp_path).values()
    assert table.rows[1][2] == "50.00 (n=1) / 60.00 (n=1)"


def test_written_files_hold_the_same_cells(tmp_path, capsys):
    record(tmp_path / "runs", method="lora_a", last=51.0)
    assert tables.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "m_on_embedded_v1.csv").open(encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[1] == ["lora_a r=8", "1,000", "51.00 (n=1)"]
    assert "| lora_a r=8 | 1,000 | 51.00 (n=1) |" in (tmp_path / "out" / "m_on_embedded_v1.md").read_text(
        encoding="utf-8"
    )
    tex = (tmp_path / "out" / "m_on_embedded_v1.tex").read_text(encoding="utf-8")
    assert r"lora\_a r=8 & 1,000 & 51.00 (n=1) \\" in tex and r"\toprule" in tex
    assert "tables of 1 records" in capsys.readouterr().out


def test_a_record_reads_back(tmp_path):
    path = record(tmp_path)
    assert read_record(path).to_dict() == json.loads(path.read_text())


def test_a_label_names_ranks_and_a_note_the_scoring(tmp_path):
    path = record(tmp_path, task="e2e", method="dylora")
    value = json.loads(path.read_text())
    value["config"]["method"] = {"rank_min": 1, "rank_max": 8}
    value["config"]["task"]["scoring"] = "official"
    path.write_text(json.dumps(value))
    (table,) = built(tmp_path).values()
    assert table.rows[1][0] == "dylora r=1-8" and "e2e is scored by the convention official" in table.note
