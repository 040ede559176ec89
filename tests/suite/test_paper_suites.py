"""The suites of the papers' tables: settings as printed, and every row where the paper has it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import backbones
import pytest

from rosa_bench import config
from rosa_bench.modules.lowrank import attach_lowrank
from rosa_bench.records.best_epoch import chosen_by
from rosa_bench.records.labels import printed_name
from rosa_bench.suite import plan
from rosa_bench.suite.plan import Cell, Suite
from rosa_bench.tables import papers
from rosa_bench.tables.matching import targets

NAMES = [name for name in config.choices("suite") if plan.load(name).paper]
# Rows without a block: another backbone, a compression of the backbone, and rows that no run gives.
NOT_RUN = {
    "lora_table2": {"FT deberta-v2-xxlarge", "LoRA deberta-v2-xxlarge"},
    "dylora_table2": {"LoRA@best", "DyLoRA_frozen@best", "DyLoRA@best"},
    "dylora_table3": {"FLOP"},
}
# Printed counts that no setting of the method has, each with ours: the notes of the suites say so.
OTHER_COUNTS = {
    ("lora_table2", "AdapterP_3.0M_restricted"): 3_171_840,
    ("lora_table2", "AdapterH_6.0M_restricted"): 6_343_680,
    ("lora_table3", "AdapterH_11.09M"): 11_064_576,
    ("lora_table13", "FT_Top2"): 25_192_448,
    ("lora_table14", "FT_Top2"): 25_192_448,
}
COUNTED = ("Adapter", "BitFit", "TopLayers")  # methods whose counts are checked on models without weights


@functools.cache
def cells_of(name: str, published_code: bool = False) -> list[Cell]:
    return plan.plan(plan.load(name), (), published_code)


def planned(name: str) -> tuple[Suite, list[papers.Reported], list[Cell]]:
    suite = plan.load(name)
    assert suite.paper
    return suite, papers.reported(suite.paper, suite.table) if suite.table else [], cells_of(name)


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


@pytest.mark.parametrize(
    "name", ["lora_table3", "lora_table13", "lora_table14", "lora_table18", "dylora_table6", "dylora_table9"]
)
def test_data_to_text_of_lora_and_dylora_is_searched_and_trained_as_by_lora_s_code(name):
    cells = cells_of(name) + cells_of(name, True)
    assert {(cell.run.task.search, cell.run.model.dropout) for cell in cells} == {("lora", 0.0)}
    others = [other for other in config.choices("suite") if other.startswith("rosa_")]
    assert {getattr(cell.run.task, "search", None) for other in others for cell in cells_of(other)} <= {
        "transformers",
        None,
    }


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
    cells = cells_of(name, code)
    (match,) = [c for c in cells if c.run.seed == suite.seeds[0] and set(wanted) <= set(c.overrides)]
    return match


def train(planned_cell: Cell) -> tuple[object, ...]:
    t = planned_cell.run.train
    return (t.batch_size, t.epochs, t.lr, t.max_length, t.weight_decay)


def test_lora_s_glue_settings_are_those_of_its_table_9_or_of_its_scripts():
    base = ("model=roberta_base", "method=lora")
    assert train(cell("lora_table2", *base, "task=cola")) == (32, 80, 4e-4, 512, 0.1)
    assert train(cell("lora_table2", *base, "task=rte")) == (32, 80, 5e-4, 512, 0.1)
    assert cell("lora_table2", *base, "task=cola").run.method.alpha == 8
    code = cell("lora_table2", *base, "task=cola", code=True)
    assert train(code) == (64, 80, 4e-4, 512, 0.1) and code.run.method.alpha == 16
    large = ("model=roberta_large", "method=lora", "task=stsb")
    assert train(cell("lora_table2", *large, "train.epochs=30")) == (8, 30, 2e-4, 512, 0.1)
    assert train(cell("lora_table2", *large, code=True)) == (32, 10, 3e-4, 128, 0.1)


@pytest.mark.parametrize("name", ["lora_table2", "lora_table3", "lora_table13", "lora_table14"])
def test_baselines_train_as_many_parameters_as_the_paper_prints(name):
    """Without the head, as the paper counts, and to the decimals that it prints."""
    suite, rows, cells = planned(name)
    printed = {(row.method, row.model): row.trainable_params for row in rows}
    seen = {}
    for each in cells:
        method, model = each.run.method, each.run.model.name
        if type(method).__name__ in COUNTED and (method, model) not in seen:
            outline = backbones.outline(model)
            dataclasses.replace(method, train_head=False).attach(outline)
            seen[method, model] = sum(p.numel() for p in outline.parameters() if p.requires_grad)
            for row, backbone, _ in rows_of(each):
                number = printed[row, backbone].removesuffix("M")
                if (expected := OTHER_COUNTS.get((name, row))) is not None:
                    assert seen[method, model] == expected
                    assert any(f"{expected / 1e6:.{digits}f}M" in note for note in suite.notes for digits in (1, 2))
                else:
                    assert f"{seen[method, model] / 1e6:.{len(number.partition('.')[2])}f}" == number, row
    assert seen


def test_no_number_of_virtual_tokens_has_the_count_printed_for_prefixes():
    for width, layers, printed in ((1024, 24, 0.35), (1280, 36, 0.77)):
        assert printed not in {round(tokens * 2 * layers * width / 1e6, 2) for tokens in range(1, 100)}


def test_adapters_have_the_settings_of_lora_s_table_9_or_of_its_scripts():
    large = ("model=roberta_large", "method=adapter")
    p, h = ((*large, f"method.variant={variant}") for variant in ("pfeiffer", "houlsby"))
    assert train(cell("lora_table2", *p, "method.bottleneck=64", "task=sst2")) == (32, 20, 3e-5, 128, 0.0)
    assert train(cell("lora_table2", *p, "method.bottleneck=64", "task=qnli")) == (32, 10, 3e-4, 128, 0.0)
    assert train(cell("lora_table2", *p, "method.bottleneck=16", "task=mnli")) == (32, 5, 3e-4, 128, 0.0)
    assert train(cell("lora_table2", *h, "method.bottleneck=64", "task=mnli")) == (32, 10, 3e-5, 128, 0.0)
    assert train(cell("lora_table2", *h, "method.bottleneck=8", "task=qqp")) == (32, 20, 3e-4, 128, 0.0)
    code = cell("lora_table2", *h, code=True)
    assert train(code) == (256, 5, 3e-4, 128, 0.0) and code.run.train.warmup == 0.1 and code.run.task.name == "mnli"


def test_baselines_of_data_to_text_have_the_settings_of_the_paper_that_lora_s_refers_to():
    medium, large = ("model=gpt2_medium",), ("model=gpt2_large", "method=adapter")
    wanted = {
        "lora_table3": ((5, 10, 8e-5), (5, 5, 5e-5), (10, 5, 5e-5), (10, 5, 8e-5)),
        "lora_table13": ((5, 5, 8e-5), (5, 5, 5e-5), (5, 5, 5e-5), (5, 10, 5e-5)),
        "lora_table14": ((5, 10, 5e-5), (5, 5, 5e-5), (9, 10, 5e-5), (5, 5, 5e-5)),
    }
    for name, (few, many, top, prefix) in wanted.items():
        assert train(cell(name, *medium, "method.bottleneck=6"))[:3] == few
        assert train(cell(name, *medium, "method.bottleneck=224"))[:3] == many
        assert train(cell(name, *medium, "method=top_layers"))[:3] == top
        assert train(cell(name, *medium, "method=prefix_tuning"))[:3] == prefix
        assert {train(cell(name, *large, f"method.bottleneck={b}"))[1] for b in (8, 248)} == {5}


@pytest.mark.parametrize("name, top", [("dylora_table2", 8), ("dylora_table6", 4), ("dylora_table9", 4)])
def test_lora_is_trained_once_and_cut_to_every_rank(name, top):
    _, _, cells = planned(name)
    cut = [c for c in cells if "method=lora" in c.overrides]
    assert cut and all(c.run.method.variants() == [f"r{rank}" for rank in range(1, top + 1)] for c in cut)
    assert {(c.run.method.rank, c.run.method.score_scale) for c in cut} == {(top, "trained")}
    same_task = next(c for c in cells if "method=dylora" in c.overrides and c.run.task == cut[0].run.task)
    assert same_task.run.train == cut[0].run.train and same_task.run.method.alpha == cut[0].run.method.alpha


def test_a_run_that_two_rows_ask_for_stands_in_both():
    result = cell("lora_table2", "model=roberta_large", "method=lora", "task=sst2", "train.batch_size=4")
    assert {name for name, _, _ in rows_of(result)} == {"LoRA", "LoRA_restricted"}


def test_generation_settings_are_those_of_lora_s_table_11_or_of_its_readme():
    result = cell("lora_table3", "model=gpt2_medium", "method=lora")
    task, t = result.run.task, result.run.train
    assert (task.num_beams, task.no_repeat_ngram, task.length_penalty, task.scoring) == (10, 4, 0.9, "lora")
    assert (t.lr, t.batch_size, t.warmup, t.epochs, t.label_smoothing, t.weight_decay) == (2e-4, 8, 500, 5, 0.1, 0.01)
    code = cell("lora_table3", "model=gpt2_medium", code=True).run
    assert code.task.length_penalty == 0.8
    dart = cell("lora_table13", "model=gpt2_large", "method=lora").run
    assert (dart.train.weight_decay, dart.train.label_smoothing, dart.method.dropout) == (0, 0, 0)


def test_dylora_has_one_setting_for_all_tasks_and_its_script_one_for_each():
    cells = [c for c in cells_of("dylora_table2") if "method=dylora" in c.overrides]
    assert {train(c) for c in cells} == {(32, 30, 4e-4, 512, 0.1)} and len(cells) == 2 * 8 * 4
    code = cells_of("dylora_table2", True)
    assert len({train(c) for c in code}) == 8
    dylora, lora = ([c.run.method for c in code if f"method={name}" in c.overrides] for name in ("dylora", "lora"))
    assert len(dylora) == 2 * len(lora) == 64
    assert not any(m.exact_update for m in dylora) and {m.score_scale for m in lora} == {"rank"}


class Options(NamedTuple):
    """What the authors' command lines and the defaults of their programs give the optimizer, for every cell."""

    beta2: float
    epsilon: float
    clip: float
    decay: float
    warmup: float
    schedule: str = "linear"


# Hugging Face's Trainer (LoRA's and DyLoRA's GLUE); src/optimizer.py and the README of LoRA's NLG; mlm.yaml, torch's
# AdamW and a script without clipping (ROSA); bert_glue.sh and run.sh (MEFT). Decay as printed where it is.
TRAINER = Options(0.999, 1e-8, 1.0, 0.1, 0.06)
NLG = Options(0.999, 1e-6, 0.0, 0.01, 500)
DYLORA_GLUE = [f"dylora_table{number}" for number in (1, 2, 3, 4, 5, 7)]
DATA2TEXT = ["lora_table3", "lora_table13", "lora_table14", "lora_table18", "dylora_table6", "dylora_table9"]
AUTHORS = {
    **dict.fromkeys(["lora_table2", *DYLORA_GLUE], TRAINER),
    **dict.fromkeys(DATA2TEXT, NLG),
    "lora_table13": NLG._replace(decay=0.0),
    "rosa_glue": Options(0.98, 1e-6, 0.0, 0.1, 0.06),
    "rosa_e2e": Options(0.999, 1e-8, 0.0, 0.01, 500),
    "rosa_workshop_e2e": Options(0.999, 1e-8, 0.0, 0.0, 500),
    "meft_glue": Options(0.98, 1e-6, 1.0, 0.1, 0.06),
    "meft_qa": Options(0.98, 1e-6, 1.0, 0.1, 0.06),
}
SEEDS = {  # of the suites not named here: 42 (ROSA), 3407 (MEFT)
    "lora_table2": [0, 1, 2, 3, 4],
    "lora_table3": [110, 111, 112],
    "lora_table13": [110, 111, 112],
    "lora_table14": [110, 111, 112],
    "lora_table18": [110],
    "dylora_table5": [10],
    "dylora_table6": [10, 42, 4242],
    "dylora_table9": [10, 42, 4242],
}
BORROWED = ("Full", "Adapter", "BitFit", "TopLayers", "Peft")  # rows of other papers, or not of the authors' trainer


@pytest.mark.parametrize("name", AUTHORS)
def test_every_run_has_the_optimizer_of_the_authors_command_lines(name):
    authors = {"dylora": [10, 42, 4242, 1010], "rosa": [42], "meft": [3407]}
    assert plan.load(name).seeds == SEEDS.get(name, authors.get(name.partition("_")[0]))
    for code in (False, True):
        runs = [c.run for c in cells_of(name, code) if type(c.run.method).__name__ not in BORROWED]
        assert runs or code
        for run in runs:
            t = run.train
            options = Options(t.beta2, t.adam_epsilon, t.max_grad_norm, t.weight_decay, t.warmup, t.schedule)
            assert options == AUTHORS[name] and t.beta1 == 0.9
            assert run.model.dropout == (0 if name in DATA2TEXT else None)
            assert name not in DATA2TEXT or run.task.search == "lora"


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_shuffled_uniformly_but_for_meft_s_which_are_grouped_by_length(name):
    bucket = {c.run.train.bucket for code in (False, True) for c in cells_of(name, code)}
    assert bucket == {name in ("meft_glue", "meft_qa")}


@pytest.mark.parametrize("name", [name for name in config.choices("suite") if name.startswith("dylora")])
def test_dylora_s_published_code_lets_the_optimizer_move_every_direction(name):
    cells, started = ([c for c in cells_of(name, code) if "method=dylora" in c.overrides] for code in (False, True))
    printed, code = ([c.run.method for c in group] for group in (cells, started))
    tasks = {c.run.task.name for c in cells}
    rows = [c for c in started if c.run.task.name in tasks]  # the others are what MRPC, RTE and STS-B start from
    assert len(rows) == len(printed) and bool(code) == (name != "dylora_table1")
    assert {c.run.task.name for c in started} - tasks <= {"mnli"}
    assert all(m.exact_update for m in printed) and not any(m.exact_update for m in code)


@pytest.mark.parametrize("name", ["dylora_table2", "dylora_table3", "dylora_table4", "dylora_table5"])
def test_dylora_s_published_code_starts_small_tasks_from_mnli(name):
    cells = [c for c in cells_of(name, True) if "method=dylora" in c.overrides]
    assert {c.run.task.name for c in cells if c.source is not None} == {c.run.task.name for c in cells} & {
        "mrpc",
        "rte",
        "stsb",
    }


def test_full_fine_tuning_of_roberta_has_the_points_of_its_own_code():
    points = {"rte": (2e-5, 16), "stsb": (2e-5, 16), "mrpc": (1e-5, 16), "cola": (1e-5, 16)}
    for name in ("lora_table2", "dylora_table2", "dylora_table3"):
        runs = [c.run for c in cells_of(name) if "method=full" in c.overrides]
        assert runs
        for run in runs:
            t = run.train
            assert (t.lr, t.batch_size) == points.get(run.task.name, (1e-5, 32))
            assert (t.beta2, t.adam_epsilon, t.max_grad_norm, t.weight_decay) == (0.98, 1e-6, 0, 0.1)


def test_lora_s_adapters_have_the_activation_and_the_start_of_its_code():
    methods = [c.run.method for c in cells_of("lora_table2") if "model=roberta_large" in c.overrides]
    adapters = {(m.variant, m.activation, m.init) for m in methods if type(m).__name__ == "Adapter"}
    assert adapters == {("houlsby", "silu", "normal"), ("pfeiffer", None, "normal")}


def test_rosa_chooses_the_epoch_of_sts_b_by_spearman():
    chosen = {c.run.task.name: chosen_by(c.run.task) for c in cells_of("rosa_glue")}
    accuracy = dict.fromkeys(["mrpc", "rte", "sst2", "qnli", "mnli", "qqp"], "accuracy")
    assert chosen == {**accuracy, "cola": "matthews", "stsb": "spearman"}


def test_rosa_s_gpt2_suites_adapt_c_attn_as_one_matrix_and_have_the_printed_counts():
    for name in ("rosa_e2e", "rosa_ablations"):
        methods = [c.run.method for c in cells_of(name) if "task=e2e" in c.overrides]
        assert all(m.fused and m.bias == "adapted" for m in methods if hasattr(m, "fused"))
    cells = [c for c in cells_of("rosa_workshop_e2e") if c.block.reported not in (None, "FT")]
    assert len(cells) == 24 and all(c.run.method.fused and c.run.train.optimizer == "sgd" for c in cells)
    for c in cells:
        outline, method = backbones.outline(c.run.model.name), c.run.method
        attach_lowrank(outline, method, method.rank, fused=True, scale=1.0, dropout=0.0)
        count = sum(p.numel() for p in outline.parameters() if p.requires_grad)
        assert f"{count / 1e6:.1f}M" == c.block.reported.partition("_")[2], c.overrides


def test_meft_stops_after_five_epochs_as_printed_and_after_eight_in_its_code():
    patience = [{c.run.train.patience for c in cells_of("meft_glue", code)} for code in (False, True)]
    assert patience == [{5}, {8}]
    qa = [c.run.train for c in cells_of("meft_qa", True)]
    assert {(t.patience, t.precision) for t in qa} == {(8, "fp16")}


def test_the_docs_compare_every_suite_of_a_paper_with_the_authors_command_lines():
    text = (Path(__file__).parent.parent.parent / "docs" / "background" / "papers.md").read_text(encoding="utf-8")
    table = text.partition("## Settings against")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    assert all(len(row) == 5 and all(row[1:]) for row in rows)
    named = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in rows[1:])))
    for first, last in re.findall(r"`dylora_table(\d)` to `dylora_table(\d)`", table):
        named |= {f"dylora_table{number}" for number in range(int(first), int(last))}
    assert set(NAMES) <= named


def test_rosa_s_published_code_is_expressed_by_options():
    code = cell("rosa_glue", "task=cola", "method.rank=8", "method.sample=window", code=True).run.method
    assert not code.train_head and code.every_epochs == 1
    lora = cell("rosa_glue", "task=cola", "method.rank=8", "method.variant=random_add", code=True).run
    ia3 = cell("rosa_glue", "task=cola", "method=ia3", code=True).run.method
    assert not ia3.train_head and ia3.config["target_modules"] == ia3.config["feedforward_modules"]
    assert lora.method.period(1) > lora.train.epochs and lora.method.targets == ["q", "k", "v", "o"]


def hours_script():
    spec = importlib.util.spec_from_file_location("hours", Path(__file__).parents[2] / "scripts" / "hours.py")
    hours = importlib.util.module_from_spec(spec)
    sys.modules["hours"] = hours
    spec.loader.exec_module(hours)
    return hours


def test_hours_follow_from_measured_steps(tmp_path):
    hours = hours_script()
    parts = {
        "short": {"size": "base", "ms": {"lora": [7.0, 6.0, 8.0]}},
        "long": {"size": "large", "length": 512, "batch": 32, "ms": {"lora": [100.0]}},
        "decoding": {"inputs": 128, "layers": 24, "seconds": {"ours": [4.8]}},
    }
    path = tmp_path / "card.json"
    path.write_text(json.dumps({name: {"numbers": numbers} for name, numbers in parts.items()}))
    speed = hours.measured(path)
    assert speed.layer_s == pytest.approx(7e-3 / 12) and speed.token_s == pytest.approx(4.8 / (2 * 64 * 24))
    assert speed.flops == pytest.approx(4 * 303e6 * 512 * 32 / 0.1)
    run = next(c.run for c in cells_of("rosa_glue") if c.run.task.name == "cola")
    assert 0 < hours.hours(run, speed) < hours.hours(run)
    path.write_text(json.dumps({"short": {}}))
    with pytest.raises(ValueError, match="no part long"):
        hours.measured(path)


def test_the_hours_of_the_docs_are_those_of_the_script():
    root, hours = Path(__file__).parents[2], hours_script()
    text = (root / "docs" / "howto" / "reproduce.md").read_text(encoding="utf-8")
    assert "\n".join(hours.lines()) in text
    assert all(f"`{name}`" in text for name in NAMES)


@pytest.mark.parametrize("name", config.choices("suite"))
def test_no_two_cells_of_a_suite_share_a_place_of_its_table(name):
    places: dict[tuple[str, str, str], set[str]] = {}
    for target in targets(plan.load(name)):
        places.setdefault((target.row, target.where[0], target.variant), set()).add(target.name)
    assert [place for place, cells in places.items() if len(cells) > 1] == []


def test_rows_of_a_grid_say_what_tells_them_apart():
    assert {"meft b=8, variant=meft1", "full"} < {t.row for t in targets(plan.load("meft_glue"))}
    assert "lora r=1, lr=0.0002" in {t.row for t in targets(plan.load("rosa_e2e"))}


def test_the_synthetic_experiment_has_the_settings_of_its_published_commands():
    for cell in cells_of("synthetic", True):
        run = cell.run
        assert (run.seed, run.train.lr, run.train.batch_size) == (42, 1e-3, 64)
        assert run.train.epochs == {1: 500, 2: 1000}[run.task.layers]
        if getattr(run.method, "variant", None) == "equal":
            assert run.method.every_epochs == run.train.epochs // run.task.perturbation
            assert run.method.rank in (1, 2, 4, 6, 8)
