"""Tables of suites that reproduce a paper's: its value next to ours with a mark, or why they cannot be compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from recorded import built, cells, changed, record

from rosa_bench.errors import UsageError
from rosa_bench.suite import plan
from rosa_bench.tables import papers
from rosa_bench.tables.cells import printed_text
from rosa_bench.tables.formats import markdown
from rosa_bench.tables.grid import DASH, Printed

PAPER = {
    "paper": "lora",
    "table": "table2_glue",
    "epoch": "last",
    "columns": [plan.Column(task="cola", metric="matthews")],
}


def paper_suite(**more) -> plan.Suite:
    """One row of LoRA's table 2 on an embedded model, so that no weights have to be read."""
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


def test_the_papers_value_is_shown_next_to_ours_with_a_mark(tmp_path):
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
    ("source", "scores", "overrides", "message"),
    [
        ("embedded v1", [60.0, 61.0, 62.0], (), "other data"),
        ("hub", [60.0, 61.0], (), "fewer seeds (2 of 3)"),
        ("hub", [60.0, 61.0, 62.0], ("train.lr=0.5",), "train.lr=0.5"),
        ("hub", [60.0, 61.0, 62.0], ("train.limit_train=64",), "train.limit_train=64"),
    ],
)
def test_the_reason_is_given_where_values_cannot_be_compared(tmp_path, source, scores, overrides, message):
    like_the_paper(tmp_path, scores, source, *overrides)
    (grid,) = built(tmp_path, paper_suite())
    text = markdown(grid)
    assert "not comparable [a]" in text and message in text.partition("\n[a] ")[2].splitlines()[0]


def test_the_number_of_epochs_is_ignored_where_max_steps_ends_a_run(tmp_path):
    like_the_paper(tmp_path, [60.0, 61.0, 62.0], "hub", "train.max_steps=3", "train.limit_eval=32")
    message = markdown(built(tmp_path, paper_suite())[0]).partition("\n[a] ")[2].splitlines()[0]
    assert "train.max_steps=3, not null" in message and "limit_eval=32, not null" in message and "epochs" not in message


def test_published_code_without_runs_does_not_repeat_the_papers_values(tmp_path):
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
    assert printed_text(Printed(68.3, std, 1), 1).endswith(shown)


@pytest.mark.parametrize("source", ["local", "hub"])
def test_rows_that_differ_from_the_release_are_other_data(tmp_path, source):
    path = record(tmp_path, "method=lora", "model=roberta_base", "data=hub")
    changed(path, data={"source": source, "sha256": {}, "rows": {"train": 100, "validation": 1043}})
    assert "other data (train has 100 rows, 8551 in the release)" in markdown(built(tmp_path, paper_suite())[0])
    released = {"train": True, "validation": False}
    changed(path, data={"source": source, "sha256": {}, "rows": {"train": 8551}, "released": released})
    assert "other data (validation has other rows than the release)" in markdown(built(tmp_path, paper_suite())[0])


def test_a_column_of_a_task_that_no_cell_has_is_named(tmp_path):
    record(tmp_path, "method=lora")
    with pytest.raises(UsageError, match="suite paper: columns has the task cla, which no cell has; did you mean cola"):
        built(tmp_path, paper_suite(columns=[plan.Column(task="cla")]))


def test_scores_by_another_rule_are_not_comparable(tmp_path):
    like_the_paper(tmp_path, [60.0, 61.0, 62.0])
    (grid,) = built(tmp_path, paper_suite(epoch="best"), epoch="last")
    assert "other selection rule" in markdown(grid)


def test_a_run_started_for_a_suite_with_another_model_appears_in_its_table(tmp_path):
    suite = paper_suite()
    (cell, *_) = plan.plan(suite, ["model=roberta_mini", "data=embedded"])
    path = record(tmp_path, "method=lora")
    changed(path, config=cell.run.to_dict())
    (grid,) = built(tmp_path, suite)
    assert "other model size (roberta_mini, not roberta_base)" in markdown(grid)
    assert built(tmp_path)[0].name != suite.name  # and without its suite in a table of its own


def test_a_random_backbone_is_not_compared_with_the_paper(tmp_path):
    for seed in (1, 2, 3):
        path = record(tmp_path, "method=lora", "model=roberta_base", "data=hub", "model.random_init=true", seed=seed)
        changed(path, data={"source": "hub", "sha256": {}, "rows": {}})
    assert "other settings (model.random_init=True, not False)" in markdown(built(tmp_path, paper_suite())[0])


@pytest.mark.parametrize(
    ("total", "trainable", "message"), [(125.5e6, 1e6, False), (124.6e6, 124.6e6, False), (356e6, 1e6, True)]
)
def test_weights_of_another_size_are_not_compared_under_the_same_name(tmp_path, total, trainable, message):
    for seed in (1, 2, 3):
        path = record(tmp_path, "method=lora", "model=roberta_base", "data=hub", seed=seed, last=60.0 + seed)
        params = {"total": int(total), "trainable": int(trainable)}
        changed(path, data={"source": "hub", "sha256": {}, "rows": {}}, params=params)
    text = markdown(built(tmp_path, paper_suite())[0])
    assert ("other model size (355M parameters, roberta_base has 125M)" in text) is message


def test_seeds_are_counted_by_the_shown_score(tmp_path):
    like_the_paper(tmp_path, [60.0, 61.0, 62.0])
    path = next(tmp_path.glob("*-s2-*")) / "record.json"
    changed(path, scores={"validation": {"": {"accuracy": 80.0}}})
    (grid,) = built(tmp_path, paper_suite())
    assert "n=2; the suite specifies 3 seeds." in markdown(grid) and "fewer seeds (2 of 3)" in markdown(grid)


def test_a_paper_may_summarize_by_another_rule_than_the_table(tmp_path):
    like_the_paper(tmp_path, [60.0, 61.0, 62.0])
    suite = paper_suite(printed_epoch="best")
    assert "other selection rule (the last epoch, not the best)" in markdown(built(tmp_path, suite)[0])
    code = dataclasses.replace(suite.cells[0], as_published_code=plan.Settings(run={"method.alpha": 8}))
    like_the_paper(tmp_path, [60.0, 61.0, 62.0], "hub", "method.alpha=8")
    rows = {row[0]: row[2] for row in cells(built(tmp_path, dataclasses.replace(suite, cells=[code]))[0])}
    assert "not comparable" in rows["LoRA, roberta-base"]
    assert "not comparable" not in rows["LoRA, roberta-base, published code"]


def test_only_shown_runs_are_left_out_of_other_tables(tmp_path):
    like_the_paper(tmp_path, [60.0, 61.0, 62.0])
    like_the_paper(tmp_path, [40.0], "hub", "train.lr=0.5")
    paper, other = built(tmp_path, paper_suite())
    assert "61.0 ± 1.0;" in markdown(paper) and " 40.00 |" in markdown(other)


def test_a_run_started_for_a_cell_with_another_task_appears_under_its_task(tmp_path):
    tasks = {"mrpc": {}, "rte": {}}
    suite = plan.Suite(name="own", title="Own", cells=[plan.Block(run={"method": ["lora", "full"]}, tasks=tasks)])
    for cell in plan.plan(suite, ["task=rte"]):
        options = cell.run.to_dict()
        method = options["method"]["_target_"].rpartition(".")[2].lower()
        changed(record(tmp_path, f"method={method}", "task=rte", last=66.0), config=options)
    (grid,) = built(tmp_path, suite)
    assert cells(grid)[0][2:] == ["rte accuracy"]
    assert {row[0]: row[2] for row in cells(grid)[1:]} == {"lora r=8": "66.00 (n=1)", "full": "66.00 (n=1)"}


def test_each_rate_of_a_grid_has_its_row(tmp_path):
    rates = plan.Block(run={"task": "cola", "method": ["lora", "full"], "train.lr": [0.1, 0.2], "train.max_steps": 9})
    suite = plan.Suite(name="grid", title="Grid", cells=[rates])
    for method, rate, last in (("lora", 0.1, 41.0), ("lora", 0.2, 42.0), ("full", 0.2, 43.0), ("lora", 0.3, 44.0)):
        record(tmp_path, f"method={method}", f"train.lr={rate}", "train.max_steps=9", last=last)
    own, other = built(tmp_path, suite)
    assert [[row[0], row[2]] for row in cells(own)[1:]] == [
        ["lora r=8, lr=0.1", "41.00 (n=1)"],
        ["lora r=8, lr=0.2", "42.00 (n=1)"],
        ["full, lr=0.2", "43.00 (n=1)"],
    ]
    assert [row[2] for row in cells(other)[1:]] == ["44.00 (n=1)"]


def test_a_suites_runs_under_other_settings_are_reported(tmp_path):
    suite = plan.Suite(name="own", title="Own", cells=[plan.Block(run={"task": "cola", "method": ["lora", "full"]})])
    for cell in plan.plan(suite, ["train.max_steps=5"]):
        method = cell.run.to_dict()["method"]["_target_"].rpartition(".")[2].lower()
        changed(record(tmp_path, f"method={method}", "train.max_steps=5"), config=cell.run.to_dict())
    assert "differ from the suite's settings: train.max_steps=5, not null." in markdown(built(tmp_path, suite)[0])


def test_a_run_without_a_value_counts_once_though_its_variants_have_rows(tmp_path):
    block = plan.Block(run={"task": "cola", "method": "dylora", "method.rank_max": 2}, reported="DyLoRA@{variant}")
    suite = plan.Suite(name="own", title="Own", paper="dylora", cells=[block])
    facts = {"absent_metrics": {"matthews": "undefined: every prediction is 1 (validation r1, validation r2)"}}
    scores = {"validation": {"r1": {}, "r2": {}}}
    record(tmp_path, "method=dylora", "method.rank_max=2", variant_names=["r1", "r2"], scores=scores, facts=facts)
    (grid,) = built(tmp_path, suite)
    assert [row.label for row in grid.rows] == ["DyLoRA@r1", "DyLoRA@r2"]
    assert "cola matthews is absent in 1 run: undefined" in markdown(grid)


def test_other_settings_are_reported_where_a_paper_prints_no_number(tmp_path):
    block = plan.Block(run={"task": "cola", "method": "ia3", "model": "roberta_base", "data": "hub"})
    suite = dataclasses.replace(paper_suite(), cells=[block])
    record(tmp_path, "method=ia3", "model=roberta_base", "data=hub", "train.max_steps=5")
    differing = "differ from the suite's settings: other data (embedded rows); train.max_steps=5, not null."
    assert differing in markdown(built(tmp_path, suite)[0])


def test_runs_on_real_rows_are_not_in_the_table_of_an_embedded_suite(tmp_path):
    block = plan.Block(run={"task": "cola", "method": ["full", "lora", "rosa"]})
    suite = plan.Suite(name="own", title="Own", cells=[block])
    for method, source in (("full", "embedded v1"), ("lora", "embedded v1"), ("rosa", "local")):
        record(tmp_path, f"method={method}", data={"source": source, "sha256": {}, "rows": {}})
    own, other = built(tmp_path, suite)
    assert [row[0] for row in cells(own)[1:]] == ["lora r=8", "full"]
    assert [row[0] for row in cells(other)[1:]] == ["rosa r=8"]
