"""Tables from records made by hand: closed-form means, settings apart, the paper beside ours, broken files named."""

from __future__ import annotations

import copy
import csv
import dataclasses
import gzip
import json
import time
from pathlib import Path

import pytest

from rosa_bench import cli, key, paired, papers, plan, tables
from rosa_bench.errors import EXIT_DONE, EXIT_USAGE
from rosa_bench.record import Record, read_record
from rosa_bench.report import build as building
from rosa_bench.report.collect import collect
from rosa_bench.report.grid import Grid, Place, Printed
from rosa_bench.report.text import DASH, comma_separated, escaped, latex, long_csv, markdown, printed_text

RUNS: dict[tuple[str, ...], dict] = {}  # composed configurations by their overrides


def config(*overrides: str) -> dict:
    """The resolved configuration of a run, composed once."""
    if overrides not in RUNS:
        RUNS[overrides] = cli.compose(overrides).to_dict()
    return copy.deepcopy(RUNS[overrides])


def record(folder: Path, *overrides: str, seed: int = 1, last: float = 50.0, best: float | None = None, **more) -> Path:
    """Write one record of a run of CoLA; `more` replaces its top-level fields."""
    own = config(*overrides) | {"seed": seed}
    task, model = own["task"]["name"], own["model"]["name"]
    method = own["method"]["_target_"].rpartition(".")[2].lower()
    metric, split = own["task"]["primary"], own["task"].get("select_split", "test")
    values = {
        "run_id": f"{task}-{method}-s{seed}-{abs(hash((overrides, last))) % 10**8}",
        "key": f"{overrides} {seed}",
        "task": task,
        "model": model,
        "method": method,
        "seed": seed,
        "config": own,
        "status": "done",
        "variant_names": [""],
        "data": {"source": "embedded v1", "sha256": {}, "rows": {}},
        "scores": {split: {"": {metric: last}}},
        "primary": {"metric": metric, "split": split, "last": last} | ({} if best is None else {"best": best}),
        "params": {"trainable": 1000},
    } | more
    place = folder / values["run_id"]
    place.mkdir(parents=True)
    (place / "record.json").write_text(json.dumps(Record(**values).to_dict()))
    return place / "record.json"


def changed(path: Path, **fields) -> None:
    """Replace fields of a written record."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def built(folder: Path, *suites: plan.Suite, **options) -> list[Grid]:
    """The tables of a folder's records with these suites alone."""
    return building.build(collect([folder]), {suite.name: suite for suite in suites}, **options)


def cells(grid: Grid) -> list[list[str]]:
    """A table as its CSV shows it."""
    return list(csv.reader(comma_separated(grid).splitlines()))


def test_mean_and_standard_deviation_over_seeds(tmp_path):
    for seed, last in ((1, 50.0), (2, 52.0), (3, 57.0)):
        record(tmp_path, "method=lora", seed=seed, last=last)
    (grid,) = built(tmp_path)
    assert cells(grid) == [
        ["method", "trainable", "cola matthews"],
        ["lora r=8", "1,000", "53.00 ± 3.61 (n=3)"],
    ]


def test_one_seed_has_no_spread_and_a_missing_place_is_a_dash(tmp_path):
    record(tmp_path, "method=lora")
    record(tmp_path, "method=full", "task=sst2", last=80.0)
    (grid,) = built(tmp_path)
    assert cells(grid)[1:] == [["full", "1,000", DASH, "80.00 (n=1)"], ["lora r=8", "1,000", "50.00 (n=1)", DASH]]
    assert r"-- & 80.00 (n=1)" in latex(grid)


def test_embedded_and_real_rows_never_share_a_table(tmp_path):
    record(tmp_path, "method=lora")
    path = record(tmp_path, "method=lora", seed=2)
    changed(path, data={"source": "local", "sha256": {}, "rows": {}})
    assert {grid.title for grid in built(tmp_path)} == {"roberta_mini on embedded v1", "roberta_mini on local"}


def test_other_settings_are_rows_of_their_own(tmp_path):
    record(tmp_path, "method=lora")
    record(tmp_path, "method=lora", "train.lr=0.25", last=60.0)
    (grid,) = built(tmp_path)
    labels = {row[0]: row[2] for row in cells(grid)[1:]}
    assert labels == {"lora r=8, lr=0.003": "50.00 (n=1)", "lora r=8, lr=0.25": "60.00 (n=1)"} or set(
        labels.values()
    ) == {"50.00 (n=1)", "60.00 (n=1)"}
    assert all("lr=" in label for label in labels)


def test_the_best_epoch_is_at_hand_too(tmp_path):
    record(tmp_path, "method=lora", last=50.0, best=55.0)
    (last,) = built(tmp_path)
    (best,) = built(tmp_path, epoch="best")
    assert cells(last)[1][2] == "50.00 (n=1)" and cells(best)[1][2] == "55.00 (n=1)"
    lines = list(csv.DictReader(long_csv(last).splitlines()))
    assert {line["epoch"]: float(line["mean"]) for line in lines} == {"last": 50.0, "best": 55.0}


def test_broken_and_foreign_records_are_named_and_left_out(tmp_path):
    record(tmp_path, "method=lora")
    paths = [record(tmp_path, "method=lora", seed=seed) for seed in range(2, 8)]
    paths[0].write_text(paths[0].read_text()[:-20])
    changed(paths[1], schema=99)
    changed(paths[2], config={"method": {}})
    changed(paths[3], scores={"validation": {"": {"matthews": "fifty"}}})
    changed(paths[4], params={})
    paths[5].write_bytes(b"\xff\xfe")
    found = collect([tmp_path])
    assert len(found.records) == 1 and len(found.broken) == 6
    assert all(any(str(path) in line for line in found.broken) for path in paths)


def test_a_run_without_a_result_is_told_and_not_averaged(tmp_path):
    record(tmp_path, "method=lora", seed=1)
    path = record(tmp_path, "method=lora", seed=2)
    changed(path, status="oom", scores={}, primary={}, error="out of memory")
    (grid,) = built(tmp_path)
    assert cells(grid)[1][2] == "50.00 (n=1); oom (n=1)"


def test_of_one_key_the_first_folder_is_taken(tmp_path):
    record(tmp_path / "a", "method=lora", last=50.0)
    record(tmp_path / "b", "method=lora", last=60.0)
    found = collect([tmp_path / "a", tmp_path / "b"])
    assert [r.primary["last"] for r in found.records] == [50.0]


PAPER = {
    "paper": "lora",
    "table": "table2_glue",
    "epoch": "last",
    "columns": [plan.Column(task="cola", metric="matthews")],
}


def paper_suite(**more) -> plan.Suite:
    """One row of LoRA's table 2, asked of an embedded model so that nothing has to be read."""
    block = plan.Block(run={"task": "cola", "method": "lora", "model": "roberta_base", "data": "hub"}, reported="LoRA")
    return plan.Suite(name="paper", title="A paper's", cells=[block], seeds=[1, 2, 3], **{**PAPER, **more})


def like_the_paper(folder: Path, scores: list[float], source: str = "hub", *overrides: str) -> None:
    """Runs of the suite's one cell, by seed."""
    for seed, last in enumerate(scores, start=1):
        path = record(folder, "method=lora", "model=roberta_base", "data=hub", *overrides, seed=seed, last=last)
        changed(path, data={"source": source, "sha256": {}, "rows": {"train": 8551, "validation": 1043}})


def printed() -> papers.Reported:
    wanted = ("roberta-base", "LoRA", "cola")
    return next(c for c in papers.reported("lora", "table2_glue") if (c.model, c.method, c.task) == wanted)


def test_the_papers_value_stands_beside_ours_with_a_mark(tmp_path):
    value = printed().value
    like_the_paper(tmp_path / "near", [value - 0.5, value, value + 0.4])
    like_the_paper(tmp_path / "far", [value - 9, value - 9.1, value - 9.2])
    (near,), (far,) = (built(tmp_path / name, paper_suite()) for name in ("near", "far"))
    row = next(line for line in cells(near) if line[0] == "LoRA, roberta-base")
    assert row[2].endswith("−0.0, matched") and f"paper {value:.1f}" in row[2]
    row = next(line for line in cells(far) if line[0] == "LoRA, roberta-base")
    assert row[2].endswith("−9.1, off")
    other = next(line for line in cells(near) if line[0] == "FT, roberta-base")
    assert other[2].startswith(f"{DASH}; paper ")  # a row of the paper's that was not measured


@pytest.mark.parametrize(
    ("source", "scores", "overrides", "said"),
    [
        ("embedded v1", [60.0, 61.0, 62.0], (), "other data"),
        ("hub", [60.0, 61.0], (), "fewer seeds (2 of 3)"),
        ("hub", [60.0, 61.0, 62.0], ("train.lr=0.5",), "train.lr=0.5"),
        ("hub", [60.0, 61.0, 62.0], ("train.limit_train=64",), "train.limit_train=64"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path, source, scores, overrides, said):
    like_the_paper(tmp_path, scores, source, *overrides)
    (grid,) = built(tmp_path, paper_suite())
    text = markdown(grid)
    assert "not comparable [a]" in text and said in text.partition("\n[a] ")[2].splitlines()[0]


def test_the_number_of_epochs_is_no_setting_of_a_run_that_max_steps_ends(tmp_path):
    like_the_paper(tmp_path, [60.0, 61.0, 62.0], "hub", "train.max_steps=3", "train.limit_eval=32")
    said = markdown(built(tmp_path, paper_suite())[0]).partition("\n[a] ")[2].splitlines()[0]
    assert "train.max_steps=3, not null" in said and "limit_eval=32, not null" in said and "epochs" not in said


def test_published_code_without_runs_does_not_repeat_what_the_paper_prints(tmp_path):
    code = plan.Settings(run={"method.alpha": 8})
    (block,) = paper_suite().cells
    suite = dataclasses.replace(paper_suite(), cells=[dataclasses.replace(block, as_published_code=code)])
    like_the_paper(tmp_path, [60.0])
    assert not any("published code" in row[0] for row in cells(built(tmp_path, suite)[0]))
    like_the_paper(tmp_path, [60.0], "hub", "method.alpha=8")
    (row,) = [row for row in cells(built(tmp_path, suite)[0]) if "published code" in row[0]]
    assert row[2].startswith("60.0 (n=1); paper")


@pytest.mark.parametrize(("std", "shown"), [(0.0, "± 0.0"), (1.0, "± 1.0"), (0.25, "± 0.25"), (None, "68.3")])
def test_a_printed_spread_has_the_decimals_of_its_value(std, shown):
    assert printed_text(Place(printed=Printed(68.3, std, 1)), 1).endswith(shown)


def test_fewer_rows_than_the_release_are_other_data(tmp_path):
    path = record(tmp_path, "method=lora", "model=roberta_base", "data=hub")
    changed(path, data={"source": "local", "sha256": {}, "rows": {"train": 100, "validation": 1043}})
    assert "other data (train has 100 rows, 8551 in the release)" in markdown(built(tmp_path, paper_suite())[0])


def test_another_rule_than_the_papers_is_not_comparable(tmp_path):
    like_the_paper(tmp_path, [60.0, 61.0, 62.0])
    (grid,) = built(tmp_path, paper_suite(epoch="best"), epoch="last")
    assert "other selection rule" in markdown(grid)


def test_a_run_started_for_a_suite_with_another_model_stands_in_its_table(tmp_path):
    suite = paper_suite()
    (cell, *_) = plan.plan(suite, ["model=roberta_mini", "data=embedded"])
    path = record(tmp_path, "method=lora")
    changed(path, config=cell.run.to_dict())
    (grid,) = built(tmp_path, suite)
    assert "other model size (roberta_mini, not roberta_base)" in markdown(grid)
    assert built(tmp_path)[0].name != suite.name  # and without its suite in a table of its own


def test_without_a_paper_a_suites_table_holds_its_own_setting_alone(tmp_path):
    block = plan.Block(run={"method": ["lora", "full"], "train.max_steps": 9})
    suite = plan.Suite(name="own", title="own", cells=[block])
    record(tmp_path, "method=lora", "train.max_steps=9", last=41.0)
    record(tmp_path, "method=lora", last=60.0)
    (all_together,) = built(tmp_path, suite)  # one row is no table of its own
    assert {row[2] for row in cells(all_together)[1:]} == {"41.00 (n=1)", "60.00 (n=1)"}
    record(tmp_path, "method=full", "train.max_steps=9", last=43.0)
    own, other = built(tmp_path, suite)
    assert [row[2] for row in cells(own)[1:]] == ["41.00 (n=1)", "43.00 (n=1)"]
    assert [row[2] for row in cells(other)[1:]] == ["60.00 (n=1)"]


def with_predictions(path: Path, right: int, of: int = 400) -> None:
    """Predictions of a two-class task beside a record, the first `right` of them right."""
    rows = [{"id": str(i), "prediction": int(i < right), "label": 1} for i in range(of)]
    with gzip.open(path.parent / "predictions-validation.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def compared(folder: Path, out: Path, capsys) -> str:
    assert tables.main(["--runs", str(folder), "--out", str(out), "--baseline", "lora", "--no-plots"]) == EXIT_DONE
    return capsys.readouterr().out


def test_bold_only_where_a_difference_holds(tmp_path, capsys):
    runs = tmp_path / "runs"
    for seed in (1, 2, 3):
        for method, right in (("lora", 300), ("rosa", 340 + seed), ("full", 301 + seed), ("meft", 220 + seed)):
            path = record(runs, f"method={method}", "task=rte", seed=seed, last=100 * right / 400)
            with_predictions(path, right)
    text = compared(runs, tmp_path / "out", capsys)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "**85.50 ± 0.25 (n=3)**" in lines["rosa r=8"] and "†" in lines["meft"]
    assert "**" not in lines["full"] + lines["lora r=8"]
    for path in runs.glob("*/predictions*"):
        path.unlink()
    assert compared(runs, tmp_path / "out", capsys) == text  # comparisons are kept where predictions are not
    assert "**" not in compared(runs, tmp_path / "elsewhere", capsys)


def test_the_file_of_a_part_of_a_split_is_the_whole_splits():
    from rosa_bench.report.compare import file_split

    assert [file_split(s) for s in ("test_unseen", "test", "validation_matched")] == [
        "test",
        "test",
        "validation_matched",
    ]


def test_written_files_hold_the_same_places(tmp_path, capsys):
    record(tmp_path / "runs", "method=lora", last=51.0)
    assert tables.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-plots"]) == EXIT_DONE
    out = tmp_path / "out"
    name = "roberta_mini_on_embedded_v1"
    assert 'lora r=8,"1,000",51.00 (n=1)' in (out / f"{name}.csv").read_text(encoding="utf-8")
    assert "| lora r=8 | 1,000 | 51.00 (n=1) |" in (out / f"{name}.md").read_text(encoding="utf-8")
    assert r"lora r=8 & 1,000 & 51.00 (n=1) \\" in (out / f"{name}.tex").read_text(encoding="utf-8")
    assert "1 tables of 1 records" in capsys.readouterr().out


def test_without_records_it_says_what_to_do(tmp_path, capsys):
    assert tables.main(["--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == EXIT_USAGE
    assert "make one with: make run" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_latex_escapes_what_it_must():
    assert escaped(r"50 % a_b & c\d ± –") == r"50 \% a\_b \& c\textbackslash{}d $\pm$ --"


def test_a_record_reads_back(tmp_path):
    path = record(tmp_path, "method=lora")
    assert read_record(path).to_dict() == json.loads(path.read_text())


def test_a_label_names_ranks_and_a_note_the_scoring(tmp_path):
    record(tmp_path, "method=dylora", "task=e2e")
    (grid,) = built(tmp_path)
    assert grid.rows[0].label == "dylora r=1-8" and "e2e is scored by the convention official." in markdown(grid)


def test_the_rules_of_metrics_agree_with_the_tasks():
    for name in ("cola", "stsb", "rte", "e2e", "synthetic"):
        task = cli.compose([f"task={name}"]).task
        assert paired.rule(task.primary).higher_is_better == task.higher_is_better


def test_a_configuration_with_a_later_field_is_the_same_setting(monkeypatch):
    monkeypatch.setitem(key.LATER, ("train", "new"), 0)
    own = config("method=lora")
    later = copy.deepcopy(own)
    later["train"]["new"] = 0
    assert key.identity_parts(own) == key.identity_parts(later)
    later["train"]["new"] = 1
    assert key.identity_parts(own) != key.identity_parts(later)


@pytest.mark.slow
def test_many_records_are_rendered_in_time(tmp_path, capsys):
    text = record(tmp_path / "one", "method=lora").read_text()
    value = json.loads(text)
    for i in range(100_000):
        value["seed"], value["key"], value["run_id"] = i % 50, f"k{i}", f"r{i}"
        value["config"]["seed"] = i % 50
        value["config"]["train"]["lr"] = 1e-4 * (1 + i // 50 % 200)
        value["config"]["method"]["rank"] = 1 + i // 10_000
        (tmp_path / "runs" / f"r{i}").mkdir(parents=True)
        (tmp_path / "runs" / f"r{i}" / "record.json").write_text(json.dumps(value))
    start = time.perf_counter()
    assert tables.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == EXIT_DONE
    assert time.perf_counter() - start < 30
    assert "100000 records" in capsys.readouterr().out


def test_one_suites_table_alone(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    for rank in (1, 2):
        record(runs, "method=lora", f"method.rank={rank}")
    record(runs, "method=rosa")
    arguments = ["--runs", str(runs), "--out", str(out), "--no-plots", "--suite"]
    assert tables.main([*arguments, "dylora_cost"]) == EXIT_DONE
    assert {path.suffix for path in out.glob("dylora_cost*")} == {
        ".md",
        ".csv",
        ".tex",
    } and "rosa" not in capsys.readouterr().out
    assert tables.main([*arguments, "smoke"]) == EXIT_USAGE
    assert "python -m rosa_bench.suite smoke" in capsys.readouterr().err
    assert tables.main([*arguments, "smoek"]) == EXIT_USAGE and "did you mean smoke" in capsys.readouterr().err
