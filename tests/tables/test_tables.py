"""Tables from handmade records: closed-form means, settings kept apart, the paper next to ours, broken files named."""

from __future__ import annotations

import csv
import gzip
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from recorded import built, cells, changed, record

from rosa_bench.config.compose import compose
from rosa_bench.errors import EXIT_DONE, EXIT_USAGE
from rosa_bench.metrics import traits
from rosa_bench.records.collect import collect
from rosa_bench.records.labels import method_label
from rosa_bench.records.record import read_record
from rosa_bench.suite import plan
from rosa_bench.tables import __main__ as tables
from rosa_bench.tables.cells import rounded
from rosa_bench.tables.claims.judge import claims_of
from rosa_bench.tables.comparison_cache import load_tests
from rosa_bench.tables.formats import long_csv, markdown
from rosa_bench.tables.grid import DASH
from rosa_bench.tables.latex import escaped, latex
from rosa_bench.tables.suite_table import SuiteTable

TWO = {"cola": {}, "rte": {}}


def test_mean_and_standard_deviation_over_seeds(tmp_path):
    for seed, last in ((1, 50.0), (2, 52.0), (3, 57.0)):
        record(tmp_path, "method=lora", seed=seed, last=last)
    (grid,) = built(tmp_path)
    assert cells(grid) == [
        ["method", "trainable", "cola matthews"],
        ["lora r=8", "1,000", "53.00 ± 3.61 (n=3)"],
    ]


def test_a_value_that_would_round_to_zero_is_shown():
    assert [rounded(value, 3) for value in (0.0, 0.0004, -3.87e-6, 0.0006, 0.5)] == [
        "0.000", "4.0e-04", "-3.9e-06", "0.001", "0.500",
    ]  # fmt: skip


def test_one_seed_has_no_spread_and_a_missing_place_is_a_dash(tmp_path):
    record(tmp_path, "method=lora")
    record(tmp_path, "method=full", "task=sst2", last=80.0)
    (grid,) = built(tmp_path)
    assert cells(grid)[1:] == [["lora r=8", "1,000", "50.00 (n=1)", DASH], ["full", "1,000", DASH, "80.00 (n=1)"]]
    assert r"-- & 80.00 \\" in latex(grid) and "Score of one seed at the last epoch, n=1." in latex(grid)


def test_embedded_and_real_rows_never_share_a_table(tmp_path):
    record(tmp_path, "method=lora")
    path = record(tmp_path, "method=lora", seed=2)
    changed(path, data={"source": "local", "sha256": {}, "rows": {}})
    assert {grid.title for grid in built(tmp_path)} == {"roberta_mini on embedded v1", "roberta_mini on local"}


def test_other_settings_have_separate_rows(tmp_path):
    record(tmp_path, "method=lora")
    record(tmp_path, "method=lora", "train.lr=0.25", last=60.0)
    (grid,) = built(tmp_path)
    labels = {row[0]: row[2] for row in cells(grid)[1:]}
    assert labels == {"lora r=8, lr=0.003": "50.00 (n=1)", "lora r=8, lr=0.25": "60.00 (n=1)"} or set(
        labels.values()
    ) == {"50.00 (n=1)", "60.00 (n=1)"}
    assert all("lr=" in label for label in labels)


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        (("method.targets=[q,k,v,o,ffn_out]",), {}),
        ((), {"data": {"source": "embedded v1", "sha256": {"train": "a" * 64, "validation": "c" * 64}, "rows": {}}}),
        ((), {"facts": {"start": {"task": "mnli", "method": "lora"}}}),
    ],
)
def test_settings_with_long_or_rare_differences_have_separate_rows(overrides, fields, tmp_path):
    data = {"source": "embedded v1", "sha256": {"train": "a" * 64, "validation": "b" * 64}, "rows": {}}
    first = () if not overrides else ("method.targets=[q,k,v,o,ffn_in]",)
    record(tmp_path, "method=lora", *first, last=50.0, data=data)
    record(tmp_path, "method=lora", *overrides, last=60.0, **({"data": data, "key": "other"} | fields))
    (grid,) = built(tmp_path)
    assert sorted(row[2] for row in cells(grid)[1:]) == ["50.00 (n=1)", "60.00 (n=1)"]


def test_one_backbone_in_two_folders_has_two_rows(tmp_path):
    for seed, folder in ((1, "/a/m"), (2, "/b/m")):
        path = record(tmp_path, "method=lora", seed=seed, last=50.0 + seed)
        config = json.loads(path.read_text())["config"]
        changed(path, config=config | {"model": config["model"] | {"path": folder}})
    (grid,) = built(tmp_path)
    assert {row[0]: row[2] for row in cells(grid)[1:]} == {
        "lora r=8, path=/a/m": "51.00 (n=1)",
        "lora r=8, path=/b/m": "52.00 (n=1)",
    }


def test_the_best_epoch_is_available(tmp_path):
    record(tmp_path, "method=lora", last=50.0, best=55.0)
    (last,) = built(tmp_path)
    (best,) = built(tmp_path, epoch="best")
    assert cells(last)[1][2] == "50.00 (n=1)" and cells(best)[1][2] == "55.00 (n=1)"
    lines = list(csv.DictReader(long_csv(last).splitlines()))
    assert {line["epoch"]: float(line["mean"]) for line in lines} == {"last": 50.0, "best": 55.0}


def test_a_classifier_has_every_metric_at_its_best_epoch(tmp_path):
    columns = [plan.Column(task="mrpc", metric=metric) for metric in ("accuracy", "f1")]
    block = plan.Block(run={"method": ["lora", "full"], "task": "mrpc"})
    requested = plan.Suite(name="own", title="own", cells=[block], columns=columns, epoch="best")
    last, best = {"accuracy": 70.0, "f1": 80.0}, {"accuracy": 75.0, "f1": 79.0}
    primary = {"metric": "accuracy", "split": "validation", "last": 70.0, "best": 75.0}
    scored = {"scores": {"validation": {"": last}}}
    path, _ = (record(tmp_path, f"method={method}", "task=mrpc", last=70.0, **scored) for method in ("lora", "full"))
    changed(path, primary=primary | {"best_scores": {"validation": best}})
    (grid,) = built(tmp_path, requested)
    assert cells(grid)[1][2:] == ["75.00 (n=1)", "79.00 (n=1)"]
    changed(path, primary=primary)  # of an earlier version
    (grid,) = built(tmp_path, requested)
    assert cells(grid)[1][2:] == ["75.00 (n=1)", DASH]


def test_broken_and_unknown_records_are_named_and_skipped(tmp_path):
    record(tmp_path, "method=lora")
    paths = [record(tmp_path, "method=lora", seed=seed) for seed in range(2, 10)]
    paths[0].write_text(paths[0].read_text()[:-20])
    changed(paths[1], schema=99)
    changed(paths[2], config={"method": {}})
    changed(paths[3], scores={"validation": {"": {"matthews": "fifty"}}})
    changed(paths[4], params={})
    paths[5].write_bytes(b"\xff\xfe")
    changed(paths[6], cost={"train_s": "fast"})
    changed(paths[7], cost={"cpu_s": 1e300})
    collection = collect([tmp_path])
    assert len(collection.records) == 1 and len(collection.broken) == 8
    assert all(any(str(path) in line for line in collection.broken) for path in paths)


def test_a_run_without_a_result_is_reported_and_not_averaged(tmp_path):
    record(tmp_path, "method=lora", seed=1)
    path = record(tmp_path, "method=lora", seed=2)
    changed(path, status="oom", scores={}, primary={}, error="out of memory")
    (grid,) = built(tmp_path)
    assert cells(grid)[1][2] == "50.00 (n=1); oom (n=1)"


def test_a_lone_run_without_a_result_has_a_row(tmp_path):
    path = record(tmp_path, "method=lora")
    changed(path, status="oom", scores={}, primary={}, params={}, error="out of memory")
    (grid,) = built(tmp_path)
    assert cells(grid) == [["method", "trainable", "cola matthews"], ["lora r=8", DASH, "oom (n=1)"]]
    assert [r.error for row in grid.rows for place in row.places.values() for r in place.ended] == ["out of memory"]


def test_the_last_finished_record_of_a_run_is_used_and_the_others_named(tmp_path):
    for name, finished, last in (("a", "2026-02", 50.0), ("b", "2026-03", 60.0), ("c", "2026-01", 70.0)):
        changed(record(tmp_path, "method=lora", last=last, run_id=name), finished=finished)
    changed(record(tmp_path, "method=lora", last=80.0, run_id="d"), finished="2026-04", key="another")
    collection = collect([tmp_path])
    assert [r.primary["last"] for r in collection.records] == [80.0]
    assert {line.split(": ")[1] for line in collection.broken} == {str(tmp_path / name) for name in "abc"}


def test_the_first_folder_of_a_key_is_used(tmp_path):
    record(tmp_path / "a", "method=lora", last=50.0)
    record(tmp_path / "b", "method=lora", last=60.0)
    collection = collect([tmp_path / "a", tmp_path / "b"])
    assert [r.primary["last"] for r in collection.records] == [50.0]


def test_a_suites_table_without_a_paper_holds_only_its_setting(tmp_path):
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


def test_a_task_without_runs_has_a_note_instead_of_a_column(tmp_path):
    suite = plan.Suite(name="own", title="own", cells=[plan.Block(run={"method": ["lora", "full"]}, tasks=TWO)])
    for method in ("lora", "full"):
        record(tmp_path, f"method={method}")
    (grid,) = built(tmp_path, suite)
    assert cells(grid)[0][2:] == ["cola matthews"] and "No runs yet: rte." in markdown(grid)


def with_predictions(path: Path, right: int, of: int = 400) -> None:
    """Predictions of a two-class task next to a record, the first `right` of them right."""
    rows = [{"id": str(i), "prediction": int(i < right), "label": 1} for i in range(of)]
    with gzip.open(path.parent / "predictions-validation.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def compared(folder: Path, out: Path, capsys) -> str:
    assert tables.main(["--runs", str(folder), "--out", str(out), "--baseline", "lora", "--no-plots"]) == EXIT_DONE
    return capsys.readouterr().out


def test_bold_only_for_significant_differences(tmp_path, capsys):
    runs = tmp_path / "runs"
    for seed in (1, 2, 3):
        for method, right in (("lora", 300), ("rosa", 340 + seed), ("full", 301 + seed), ("meft", 220 + seed)):
            path = record(runs, f"method={method}", "task=rte", seed=seed, last=100 * right / 400)
            with_predictions(path, right)
    text = compared(runs, tmp_path / "out", capsys)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "**85.50 ± 0.25**" in lines["rosa r=8"] and "†" in lines["meft b=8"]
    assert "**" not in lines["full"] + lines["lora r=8"]
    for path in runs.glob("*/predictions*"):
        path.unlink()
    assert compared(runs, tmp_path / "out", capsys) == text  # comparisons are kept where predictions are not
    assert "**" not in compared(runs, tmp_path / "elsewhere", capsys)


def test_a_comparison_of_other_scores_is_ignored(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    for seed in (1, 2, 3):
        for method, right in (("lora", 20), ("rosa", 34 + seed)):
            path = record(runs, f"method={method}", "task=rte", seed=seed, last=100 * right / 40)
            with_predictions(path, right, of=40)
    assert "**90.00" in compared(runs, out, capsys)
    for path in runs.glob("*lora*/record.json"):
        value = json.loads(path.read_text())
        changed(path, scores={"validation": {"": {"accuracy": 99.0}}}, primary=value["primary"] | {"last": 99.0})
    for message in ("the predictions do not give the scores", "the cached comparison does not match"):
        assert tables.main(["--runs", str(runs), "--out", str(out), "--baseline", "lora", "--no-plots"]) == EXIT_DONE
        output = capsys.readouterr()
        assert "**" not in output.out and message in output.err
        for path in runs.glob("*/predictions*"):
            path.unlink()
    path = next(runs.glob("*rosa*/record.json"))
    with_predictions(path, 1)
    assert tables.main(["--runs", str(runs), "--out", str(out / "b"), "--baseline", "lora", "--no-plots"]) == EXIT_DONE
    assert "predictions-validation.jsonl.gz is missing" in capsys.readouterr().err


def test_runs_that_start_from_different_settings_of_one_method_are_two_rows(tmp_path):
    for settings, last in (("aaaa1111", 50.0), ("bbbb2222", 60.0)):
        for seed in (1, 2):
            start = {"run_id": f"{settings}-s{seed}", "task": "mnli", "method": "lora", "settings": settings}
            more = {"key": f"{settings} {seed}", "facts": {"start": start}}
            record(tmp_path, "method=lora", seed=seed, last=last + seed, **more)
    (grid,) = built(tmp_path)
    assert {row[0].rpartition(", ")[2]: row[-1] for row in cells(grid)[1:]} == {
        "settings_of_start=aaaa1111": "51.50 ± 0.71 (n=2)",
        "settings_of_start=bbbb2222": "61.50 ± 0.71 (n=2)",
    }
    assert collect([tmp_path]).broken == []


def test_a_comparison_of_new_predictions_replaces_the_cached_one(tmp_path, capsys):
    stored = []
    for right in (250, 300):  # the same runs with force=true
        paths = [
            record(tmp_path / f"{right}", f"method={method}", "task=rte", last=score, run_id=method)
            for method, score in (("lora", 50.0), ("rosa", right / 4))
        ]
        for path, correct in zip(paths, (200, right), strict=True):
            with_predictions(path, correct)
        compared(tmp_path / f"{right}", tmp_path / "out", capsys)
        stored.append(load_tests(tmp_path / "out"))
    assert [[test.comparison.difference for test in tests.values()] for tests in stored] == [[12.5], [25.0]]


def test_a_part_of_a_split_uses_the_file_of_the_split():
    from rosa_bench.tables.against_baseline import file_split, subset_of

    def files(splits, *rows):
        run = SimpleNamespace(data={"rows": dict.fromkeys(rows, 1)})
        return [(file_split(split, run), subset_of(split, run)) for split in splits]

    names = ("test_unseen", "test", "validation_matched")
    assert files(names) == [("test", "unseen"), ("test", ""), ("validation_matched", "")]
    assert files(names, "train", "validation_matched", "test") == files(names)
    assert files(("test_hard", "test_hard_long"), "train", "test", "test_hard") == [
        ("test_hard", ""),
        ("test_hard", "long"),
    ]


def test_written_files_hold_the_same_places(tmp_path, capsys):
    record(tmp_path / "runs", "method=lora", last=51.0)
    assert tables.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-plots"]) == EXIT_DONE
    out = tmp_path / "out"
    name = "roberta_mini_on_embedded_v1"
    assert 'lora r=8,"1,000",51.00 (n=1)' in (out / f"{name}.csv").read_text(encoding="utf-8")
    assert "| lora r=8 |         51.00 |" in (out / f"{name}.md").read_text(encoding="utf-8")
    assert r"lora r=8 & 51.00 \\" in (out / f"{name}.tex").read_text(encoding="utf-8")
    assert "1 table of 1 record" in capsys.readouterr().out


def test_without_records_a_hint_is_printed(tmp_path, capsys):
    assert tables.main(["--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == EXIT_USAGE
    assert "create one with: make run" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_rows_are_ordered_by_rank(tmp_path):
    for rank in (2, 16, 128):
        record(tmp_path, "method=lora", f"method.rank={rank}")
    assert [row.label for row in built(tmp_path)[0].rows] == ["lora r=2", "lora r=16", "lora r=128"]


def test_one_of_several_baselines_can_be_named(tmp_path, capsys):
    runs = tmp_path / "runs"
    for rank, right in ((1, 20), (4, 21)):
        path = record(runs, "method=lora", f"method.rank={rank}", "task=rte", last=100 * right / 40)
        with_predictions(path, right, of=40)
    assert "Bold: better than lora r=1; " in compared(runs, tmp_path / "out", capsys)


def test_an_unknown_baseline_is_a_usage_error(tmp_path, capsys):
    record(tmp_path / "runs", "method=lora", best=55.0)
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-plots", "--baseline"]
    assert tables.main([*arguments, "lroa"]) == EXIT_USAGE and "did you mean lora" in capsys.readouterr().err
    assert tables.main([*arguments, "lora", "--epoch", "best"]) == EXIT_DONE
    assert "reports the best epoch" in capsys.readouterr().err


def test_latex_special_characters_are_escaped():
    assert escaped("[x]*") == "{[}x]{*}"  # at the start of a row they would be read with the line break before it
    assert escaped(r"50 % a_b & c\d ± –") == r"50 \% a\_b \& c\textbackslash{}d $\pm$ --"


def test_a_record_reads_back(tmp_path):
    path = record(tmp_path, "method=lora")
    assert read_record(path).to_dict() == json.loads(path.read_text())


def test_a_label_names_ranks_and_a_note_the_scoring(tmp_path):
    record(tmp_path, "method=dylora", "task=e2e")
    (grid,) = built(tmp_path)
    assert grid.rows[0].label == "dylora r=1-8" and "e2e uses the scoring convention official." in markdown(grid)
    record(tmp_path, "method=full", "task=e2e", "task.scoring=lora")
    (grid,) = built(tmp_path)
    assert "e2e uses the scoring convention lora and official." in markdown(grid)


def test_metric_rules_agree_with_the_tasks():
    for name in ("cola", "stsb", "rte", "e2e", "synthetic"):
        task = compose([f"task={name}"]).task
        assert traits(task.primary)[1] == task.higher_is_better == (name != "synthetic")


@pytest.mark.parametrize(
    ("suite", "metric"), [("lora_table18", "loss"), ("rosa_workshop_e2e", "perplexity"), ("lora_table13", "ter")]
)
def test_a_lower_loss_is_better(suite, metric):
    columns = SuiteTable(plan.load(suite), "last").columns
    assert [column.higher_is_better for column in columns if column.metric == metric] == [False]


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
    assert "100,000 records" in capsys.readouterr().out


def test_only_the_table_of_one_suite(tmp_path, capsys):
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


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (("method=adapter", "method.bottleneck=4"), "adapter_houlsby b=4"),
        (("method=top_layers", "method.layers=1"), "top_layers k=1"),
        (("method=dora", "method.config.r=2"), "dora r=2"),
        (("method=adalora",), "adalora r=8"),
        (("method=p_tuning",), "p_tuning 20 tokens"),
        (("method=lora", "method.rank=2", "model.random_init=true"), "lora r=2 (random backbone)"),
        (("method=bitfit",), "bitfit"),
    ],
)
def test_a_label_names_the_settings_of_size(overrides, label):
    run = compose([*overrides, "tracker=none"])
    assert method_label(run.to_dict(), run.method.name) == label


def test_the_page_opens_with_verdicts_where_a_suite_has_claims_and_runs(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    suite = plan.load("embedded")
    for cell in plan.plan(suite):
        options = cell.run.to_dict()
        if (method := options["choices"]["method"]) in ("full", "head"):
            changed(record(runs, f"method={method}", seed=cell.run.seed), config=options)
    assert tables.main(["--runs", str(runs), "--out", str(out), "--suite", "embedded", "--no-plots"]) == EXIT_DONE
    text = (out / "index.html").read_text(encoding="utf-8")
    assert text.index('id="claims"') < text.index('id="table-0"')
    assert text.count('data-text="claim ') == len(claims_of(suite)) and "runs missing" in text
