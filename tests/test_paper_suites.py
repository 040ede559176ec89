"""The suites of the papers' tables: settings as printed, and every row where the paper has it."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pytest

from rosa_bench import config, papers, plan
from rosa_bench.labels import printed_name
from rosa_bench.plan import Cell, Suite

NAMES = [name for name in config.choices("suite") if plan.load(name).paper]
# Rows without a block: methods of others, other backbones, and rows that no run gives.
NOT_RUN = {
    "lora_table2": {"BitFit", "AdapterD_0.3M", "AdapterD_0.9M", "AdapterP_3.0M_restricted", "AdapterP_0.8M_restricted",
                    "AdapterH_6.0M_restricted", "AdapterH_0.8M_restricted", "FT deberta-v2-xxlarge",
                    "LoRA deberta-v2-xxlarge"},
    "lora_table3": {"AdapterL_0.37M", "AdapterL_11.09M", "AdapterH_11.09M", "FT_Top2", "PrefixLayer", "AdapterL_0.88M",
                    "AdapterL_23.00M"},
    "lora_table13": {"AdapterL_0.37M", "AdapterL_11M", "FT_Top2", "PrefixLayer", "AdapterL_0.88M", "AdapterL_23M"},
    "lora_table14": {"AdapterL_0.37M", "AdapterL_11M", "FT_Top2", "Prefix", "AdapterL_0.88M", "AdapterL_23M"},
    "dylora_table2": {*(f"LoRA@r{rank}" for rank in range(1, 9)), "LoRA@best", "DyLoRA_frozen@best", "DyLoRA@best"},
    "dylora_table3": {"FLOP"},
    "dylora_table6": {f"LoRA@r{rank}" for rank in range(1, 5)},
    "dylora_table9": {f"LoRA@r{rank}" for rank in range(1, 5)},
}  # fmt: skip


@functools.lru_cache(maxsize=1)
def planned(name: str) -> tuple[Suite, list[papers.Reported], list[Cell]]:
    suite = plan.load(name)
    assert suite.paper
    return suite, papers.reported(suite.paper, suite.table) if suite.table else [], plan.plan(suite)


def rows_of(cell: Cell) -> set[tuple[str, str, str]]:
    """Rows, backbone and task that a cell stands for, as the paper calls them."""
    options, model = cell.run.to_dict()["method"], cell.run.model.name.replace("_", "-")
    task = cell.run.task.name
    named = [block.reported for block in (cell.block, *cell.also) if block.reported]
    variants = cell.run.method.variants()
    return {(printed_name(template, options, v), model, task) for template in named for v in variants}


def printed_rows(suite: Suite, rows: list[papers.Reported]) -> set[tuple[str, str, str]]:
    ours = {column.reported_task or column.task: column.task for column in suite.columns}
    return {(row.method, row.model, ours[row.task]) for row in rows if row.task in ours}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_that_a_suite_names_is_printed(name):
    suite, rows, cells = planned(name)
    printed = printed_rows(suite, rows)
    for cell in cells:
        if named := rows_of(cell):
            assert printed & named, (cell.overrides, named)
    assert rows or not any(block.reported for block in suite.cells)


@pytest.mark.parametrize("name", NAMES)
def test_every_printed_row_is_run_or_known_not_to_be(name):
    suite, rows, cells = planned(name)
    missing = printed_rows(suite, rows) - {row for cell in cells for row in rows_of(cell)}
    expected = NOT_RUN.get(name, set())
    assert {f"{m} {b}" if f"{m} {b}" in expected else m for m, b, _ in missing} == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_column_names_a_printed_metric(name):
    suite, rows, cells = planned(name)
    tasks = {cell.run.task.name: cell.run.task for cell in cells}
    for column in suite.columns:
        task = tasks[column.task]
        assert (column.split or task.select_split).partition("_")[0] in ("validation", "test")
        if rows:
            wanted = (column.reported_task or column.task, column.reported_metric or column.metric)
            assert wanted in {(row.task, row.metric) for row in rows}
    assert not rows or {c.reported_task or c.task for c in suite.columns} == {row.task for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_suite_says_of_its_paper_can_be_looked_up(name):
    suite, rows, _ = planned(name)
    assert suite.notes and all(len(note) > 20 for note in suite.notes)
    assert suite.table is None or papers.source(suite.paper, suite.table)["read_from"]
    assert suite.columns or name == "meft_memory" or not rows


def cell(name: str, *wanted: str, code: bool = False) -> Cell:
    """The one cell of a suite whose overrides hold all that is wanted, for its first seed."""
    suite = plan.load(name)
    cells = plan.plan(suite, (), code)
    (found,) = [c for c in cells if c.run.seed == suite.seeds[0] and set(wanted) <= set(c.overrides)]
    return found


def train(found: Cell) -> tuple[object, ...]:
    t = found.run.train
    return (t.batch_size, t.epochs, t.lr, t.max_length, t.weight_decay)


def test_lora_s_glue_settings_are_those_of_its_table_9_or_of_its_scripts():
    base = ("model=roberta_base", "method=lora")
    assert train(cell("lora_table2", *base, "task=cola")) == (32, 80, 4e-4, 512, 0.0)
    assert train(cell("lora_table2", *base, "task=rte")) == (32, 80, 5e-4, 512, 0.0)
    assert cell("lora_table2", *base, "task=cola").run.method.alpha == 8
    code = cell("lora_table2", *base, "task=cola", code=True)
    assert train(code) == (64, 80, 4e-4, 512, 0.1) and code.run.method.alpha == 16
    large = ("model=roberta_large", "method=lora", "task=stsb")
    assert train(cell("lora_table2", *large, "train.epochs=30")) == (8, 30, 2e-4, 512, 0.0)
    assert train(cell("lora_table2", *large, code=True)) == (32, 10, 3e-4, 128, 0.1)


def test_a_run_that_two_rows_ask_for_stands_in_both():
    found = cell("lora_table2", "model=roberta_large", "method=lora", "task=sst2", "train.batch_size=4")
    assert {name for name, _, _ in rows_of(found)} == {"LoRA", "LoRA_restricted"}


def test_generation_settings_are_those_of_lora_s_table_11_or_of_its_readme():
    found = cell("lora_table3", "model=gpt2_medium", "method=lora")
    task, t = found.run.task, found.run.train
    assert (task.num_beams, task.no_repeat_ngram, task.length_penalty, task.scoring) == (10, 4, 0.9, "lora")
    assert (t.lr, t.batch_size, t.warmup, t.epochs, t.label_smoothing, t.weight_decay) == (2e-4, 8, 500, 5, 0.1, 0.01)
    code = cell("lora_table3", "model=gpt2_medium", code=True).run
    assert (code.task.length_penalty, code.train.max_grad_norm) == (0.8, 0)
    dart = cell("lora_table13", "model=gpt2_large", "method=lora").run
    assert (dart.train.weight_decay, dart.train.label_smoothing, dart.method.dropout) == (0, 0, 0)


def test_dylora_has_one_setting_for_all_tasks_and_its_script_one_for_each():
    cells = [c for c in plan.plan(plan.load("dylora_table2")) if "method=dylora" in c.overrides]
    assert {train(c) for c in cells} == {(32, 30, 4e-4, 512, 0.1)} and len(cells) == 2 * 8 * 4
    code = plan.plan(plan.load("dylora_table2"), (), published_code=True)
    assert len({train(c) for c in code}) == 8 and not any(c.run.method.exact_update for c in code)


def test_rosa_s_published_code_is_expressed_by_options():
    code = cell("rosa_glue", "task=cola", "method.rank=8", "method.sample=window", code=True).run.method
    assert not code.train_head and code.every_epochs == 1
    lora = cell("rosa_glue", "task=cola", "method.rank=8", "method.variant=random_add", code=True).run
    assert lora.method.period(1) > lora.train.epochs and lora.method.targets == ["q", "k", "v", "o"]


def test_the_hours_of_the_docs_are_those_of_the_script():
    root = Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("hours", root / "scripts" / "hours.py")
    hours = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hours)
    text = (root / "docs" / "reproduce.md").read_text(encoding="utf-8")
    assert "\n".join(hours.lines()) in text
    assert all(f"`{name}`" in text for name in NAMES)
