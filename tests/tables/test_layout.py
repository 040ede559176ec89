"""Wide tables are split by kind of task and by width, with grouped rows; n and costs are stated once."""

from __future__ import annotations

import csv
import json
import re

import pytest
from made import grid, place, record
from recorded import built
from recorded import record as written
from support import METHODS

from rosa_bench.config.compose import compose
from rosa_bench.records.run_key import method_class
from rosa_bench.suite import plan
from rosa_bench.tables.costs import cost_columns, latency, pscp
from rosa_bench.tables.formats import long_csv, markdown
from rosa_bench.tables.grid import Column, Place, Row
from rosa_bench.tables.html.page import page
from rosa_bench.tables.latex import latex
from rosa_bench.tables.layout import WIDTH, headed, kinds, usual_n

HEADS, TEXTS = "Classification and regression", "Generation"
MANY = [Column(f"task{i}", "accuracy", "validation", kind=HEADS if i % 3 else TEXTS) for i in range(12)]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each Markdown table."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]


def wide(**more):
    rows = ("a method with a long name r=8", *(place(50.0 + i, 52.0) for i in range(12))), ("b", place(40.0, 41.0))
    return grid(*rows, columns=MANY, **more)


def test_lines_fit_a_page_and_every_score_is_kept():
    text = markdown(wide())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= WIDTH
    heads = [head for table in tables(text) for head in table[0]]
    assert sorted(head for head in heads if head.startswith("task")) == sorted(column.head for column in MANY)
    cells = [cell for table in tables(text) for row in table[2:] for cell in row]
    assert all(any(cell.startswith(f"{51 + i / 2:.2f}") for cell in cells) for i in range(12))
    assert all(
        len({len(line) for line in block.splitlines()}) == 1 for block in re.findall(r"(?:^\|.*\n)+", text, re.M)
    )


def test_each_kind_of_task_has_a_table_of_the_rows_with_runs():
    text = markdown(wide())
    start, end = text.index(f"### {TEXTS}"), text.index(f"### {HEADS}")
    first = tables(text[start:end])
    heads = {head for table in first for head in table[0] if head.startswith("task")}
    assert heads == {f"task{i} accuracy" for i in (0, 3, 6, 9)}
    assert [row[0] for row in first[0][2:]] == ["a method with a long name r=8", "b"]
    assert all(row[0] != "b" for table in tables(text[end:]) for row in table)
    assert "### " not in markdown(grid(("a", place(1.0))))
    assert latex(wide()).count(r"\begin{tabular}") == len(tables(text))


def test_tasks_most_methods_ran_come_first_unless_a_paper_orders_them():
    rows = [Row("a", group="other", places={MANY[1]: place(1.0), MANY[2]: place(1.0)})]
    rows += [Row("b", group="other", places={MANY[2]: place(2.0)})]
    made = grid(columns=MANY[1:3], rows=rows)
    assert kinds(made)[HEADS] == [MANY[2], MANY[1]]
    paper = grid(columns=MANY[1:3], rows=[Row(row.label, places=row.places) for row in rows])
    assert kinds(paper)[HEADS] == MANY[1:3]


def test_a_common_number_of_seeds_is_stated_once():
    same, other = ("a", place(1.0, 2.0)), ("b", place(1.0, 2.0, 3.0))
    text = markdown(grid(same, same))
    assert "(n=" not in text and "n=2." in text
    text = markdown(grid(same, same, other, seeds=3))
    assert text.count("(n=3)") == 1 and "n=2 unless a cell states another n; the suite specifies 3 seeds." in text
    assert usual_n(grid(same, other)) == 3 and usual_n(grid(("none",))) is None


def test_rows_are_grouped_by_method(tmp_path):
    for method in ("full", "lora", "relora"):
        written(tmp_path, f"method={method}")
    (made,) = built(tmp_path)
    assert [(row.label, row.group) for row in made.rows] == [
        ("lora r=8", "paper"),
        ("full", "baseline"),
        ("relora r=8", "other"),
    ]
    (table,) = tables(markdown(made))
    assert [row[0] for row in table[2:]] == [
        "*Methods of the papers*", "lora r=8", "*Baselines*", "full", "*Other methods*", "relora r=8"
    ]  # fmt: skip
    assert r"\multicolumn{2}{l}{\textit{Baselines}} \\" in latex(made)
    assert [line["group"] for line in csv.DictReader(long_csv(made).splitlines())] == ["paper", "baseline", "other"]
    assert headed(made.rows[:1]) == [("", [made.rows[0]])]


def test_every_method_has_a_group():
    groups = {name: compose([f"method={name}", "tracker=none"]).method.group for name in METHODS}
    assert {name for name, group in groups.items() if group == "paper"} == {"lora", "rosa", "dylora", "meft"}
    assert set(groups.values()) == {"paper", "baseline", "other"}
    assert method_class({"_target_": "nobody.knows.This"}).group == "other"


def costly(seed=1, task="cola", **more):
    """A record with every cost."""
    inference = {"batch_1": {"ratio": 1.04}, "batch_eval": {"ratio": 1.25}}
    cost = {"memory": {"weights": 4e6, "gradients": 1e6, "optimizer": 2e6, "activations": 3e6}, "inference": inference}
    params = {"trainable": 1000, "trainable_percent": 0.123}
    return record(task, seed=seed, **({"cost": cost | {"cpu_s": 10.0 + seed}, "params": params} | more))


def test_costs_are_shown_next_to_scores():
    columns = MANY[1:3]
    first = place(50.0, 51.0, records=(costly(1), costly(2)))
    other = costly(task="task2", params={"trainable": 2000, "trainable_percent": 2.0}, cost={"cpu_s": 60.0})
    made = grid(("a", first, place(60.0, records=(other,))), ("b", place(1.0, records=())), columns=columns)
    table = tables(markdown(made))[0]
    assert table[0][1:5] == ["trainable, %", "memory, MB", "time, s", "latency, ×"]
    assert table[2][1:5] == ["0.12–2.0", "10", "12–60", "1.04"]  # means over seeds, a range over tasks
    assert table[3][1:5] == ["–"] * 4
    text = markdown(made)
    assert "CPU seconds of a run, training and evaluation, on cpu (made)" in text and "plain backbone" in text
    line = next(csv.DictReader(long_csv(made).splitlines()))
    assert [line[name] for name in ("memory_bytes", "seconds", "latency_batch_1", "latency_batch_eval")] == [
        "10000000.0", "11.5", "1.04", "1.25"
    ]  # fmt: skip


def test_processor_and_clock_seconds_are_not_averaged():
    wall = {"train_s": 1.0, "method_s": 0.0, "eval_s": 1.0}
    records = (costly(1), costly(2, cost=wall, env={"device": "cuda (card)"}))
    made = grid(("a", place(50.0, 51.0, records=records)))
    assert "time" not in [cost.measure.name for cost in cost_columns(made, made.columns)]
    assert next(csv.DictReader(long_csv(made).splitlines()))["seconds"] == ""


def test_a_cost_without_values_has_no_column():
    made = grid(("a", place(50.0, records=(record(cost={}, params={"trainable": 5}),))))
    assert cost_columns(made, made.columns) == [] and markdown(made).splitlines()[2].count("|") == 3


@pytest.mark.parametrize("inference", [None, [], {}, {"batch_1": 3}, {"batch_1": {"ratio": "fast"}}])
def test_an_unmeasured_latency_is_absent(inference):
    assert latency(record(cost={"inference": inference})) is None


@pytest.mark.parametrize(
    ("score", "parameters", "inference", "memory", "printed"),
    [
        (74.7, 196_608, 8.69, 28.41, 55.62),  # IA3
        (50.0, 409_600, 10.05, 42.47, 29.49),  # prompt tuning
        (45.9, 34_177_536, 8.39, 27.61, 33.18),  # prefix tuning
        (51.7, 53_130_752, 10.06, 34.53, 29.26),  # P-tuning
        (80.1, 14_680_064, 8.38, 27.75, 60.08),  # LoRA
        (77.8, 266_240, 8.38, 27.43, 60.19),  # LN tuning
    ],
)
def test_pscp_is_that_of_peft_bench(score, parameters, inference, memory, printed):
    """Table 3 of arXiv 2511.21285, with the costs in the authors' repository: TFLOPs (8.38 of the backbone) and GB."""
    constants = plan.Pscp(latency=10, memory=94)
    assert round(pscp(score, parameters, inference - 8.38, memory, constants), 2) == printed


def test_the_column_pscp_penalizes_scores_by_the_constants_of_the_suite():
    columns = MANY[1:3]
    constants = plan.Pscp(parameters=1000, latency=0.02, memory=1e7, beta_latency=2)
    cells = [place(50.0, 54.0, records=(costly(1), costly(2))), place(26.0, records=(costly(),))]
    free = place(30.0, records=(costly(cost={"cpu_s": 1.0}),))
    made = grid(("a", *cells), ("b", cells[0], free), ("c", place(50.0), cells[1]), columns=columns, pscp=constants)
    table = tables(markdown(made))[0]
    assert table[0].index("PSCP") == 5
    values = [row[5] for row in table[2:]]
    assert values == [f"{(52 + 26) / 2 / 2 / 3**2 / 2:.2f}", "–", "–"]  # a latency of 1.04: 0.02 * 2 of extra time
    assert "(1 + additional latency / 0.02)^−2" in markdown(made) and "PSCP" in latex(made)
    assert 'data-first="descending" data-name="PSCP"' in page([made])
    assert "PSCP" not in markdown(grid(("a", *cells), columns=columns))


def test_the_note_on_pscp_is_there_if_no_row_has_every_kind_of_task():
    rows = ("a", place(50.0, records=(costly(),))), ("b", Place(), place(40.0, records=(costly(),)))
    text = markdown(grid(*rows, columns=MANY[:2], pscp=plan.Pscp()))
    assert all("PSCP" in table[0] for table in tables(text)) and "PSCP: the score of PEFT-Bench" in text


@pytest.mark.parametrize("score", [-5.0, None])
def test_a_score_that_penalties_would_improve_has_no_pscp(score):
    column = Column("cola", "matthews", "validation", higher_is_better=score is not None)
    made = grid(("a", place(score or 50.0, records=(costly(),))), columns=[column], pscp=plan.Pscp())
    assert "PSCP" not in markdown(made)


def test_sizes_have_a_fitting_unit():
    big = {"weights": 2e10, "gradients": 0, "optimizer": 0, "activations": 0}
    made = grid(("a", place(1.0, records=(record(cost={"memory": big, "cpu_s": 90_000.0}),))))
    assert [(cost.head, cost.cell(made.rows[0])) for cost in cost_columns(made, made.columns)] == [
        ("memory, GB", "20"), ("time, h", "25")
    ]  # fmt: skip


def test_the_papers_number_of_parameters_is_shown_next_to_ours():
    rows = [Row("a", (294_912, 300_000), "0.3M", places={MANY[1]: place(1.0, records=(costly(),))})]
    rows += [Row("b", (), "5.0M", places={MANY[1]: Place()})]
    made = grid(columns=MANY[1:2], rows=rows)
    (share, *_) = cost_columns(made, made.columns)
    assert [share.cell(row) for row in rows] == ["0.12 (0.29M–0.30M; paper 0.3M)", "– (paper 5.0M)"]


def test_runs_of_a_search_are_left_out_of_tables(tmp_path):
    for seed, share in ((1, None), (2, 0.1)):
        for method in ("lora", "full"):
            path = written(tmp_path, f"method={method}", seed=seed, last=50.0 + seed)
            options = json.loads(path.read_text())
            options["config"]["task"]["tune_share"] = share
            path.write_text(json.dumps(options))
    suite = plan.Suite(name="own", title="Own", cells=[plan.Block(run={"method": ["lora", "full"], "task": "cola"})])
    for made in (built(tmp_path), built(tmp_path, suite)):
        (only,) = made
        assert {seed for row in only.rows for p in row.places.values() for seed in p.scores["last"].by_seed} == {1}
