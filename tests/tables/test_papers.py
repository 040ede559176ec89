"""The papers' numbers: complete, consistent with the printed averages, absent where a paper gives none."""

from __future__ import annotations

import statistics
from collections import Counter

import pytest

from rosa_bench.errors import UsageError
from rosa_bench.tables import papers

GLUE = ["mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb"]
# The last column of the tables, which is no score of a task and so not in reported.csv.
AVERAGES = {
    ("lora", "table2_glue", "roberta-base"): {
        "FT": 86.4, "BitFit": 85.2, "AdapterD_0.3M": 84.4, "AdapterD_0.9M": 85.4, "LoRA": 87.2,
    },
    ("lora", "table2_glue", "roberta-large"): {"FT": 88.9, "LoRA": 89.0, "LoRA_restricted": 88.6},
}  # fmt: skip
HEAD = ",".join(papers.COLUMNS)
ROW = "lora,t,gpt2,LoRA,4,e2e_nlg,bleu,70.4,0.1,0.35M,,,"


def values(rows: list[papers.Reported], method: str) -> dict[tuple[str, str], float | None]:
    return {(row.task, row.metric): row.value for row in rows if row.method == method}


def average(rows: list[papers.Reported], method: str) -> float:
    result = [row.value for row in rows if row.method == method and row.task in GLUE and row.value is not None]
    assert len(result) == len(GLUE)
    return statistics.fmean(result)


def test_every_table_has_its_cells():
    rows = [row for paper in ("lora", "dylora", "rosa", "meft") for row in papers.reported(paper)]
    assert len(rows) == 847
    assert Counter((row.paper, row.table) for row in rows) == {
        ("lora", "table2_glue"): 112,
        ("lora", "table3_e2e"): 60,
        ("lora", "table13_dart"): 33,
        ("lora", "table14_webnlg"): 99,
        ("lora", "table18_e2e_rank_sweep"): 66,
        ("lora", "readme_table_nlu"): 10,
        ("dylora", "table1_lora_rank_effect"): 24,
        ("dylora", "table2_glue_per_rank"): 224,
        ("dylora", "table3_vs_compression"): 20,
        ("dylora", "table4_ablation_distribution"): 48,
        ("dylora", "table6_e2e"): 65,
        ("dylora", "table9_dart_webnlg"): 50,
        ("rosa", "workshop_table2_e2e_ppl"): 27,
        ("rosa", "workshop_table3_eli5_ppl"): 9,
    }
    cells = Counter((row.paper, row.table, row.model, row.method, row.task, row.metric) for row in rows)
    assert set(cells.values()) == {1}


def test_a_sample_of_cells_matches_the_print():
    lora = [row for row in papers.reported("lora", "table2_glue") if row.model == "roberta-base"]
    assert values(lora, "LoRA")["cola", "matthews"] == 63.4 and values(lora, "LoRA")["rte", "accuracy"] == 86.6
    dylora = papers.reported("dylora", "table2_glue_per_rank")
    (cell,) = [r for r in dylora if r.method == "DyLoRA@r8" and r.task == "mrpc"]
    assert (cell.value, cell.std, cell.metric, cell.rank) == (91.38, 0.83, "f1", 8)
    (cell,) = [r for r in papers.reported("lora", "table3_e2e") if r.model == "gpt2-large" and r.method == "LoRA"][:1]
    assert (cell.metric, cell.value, cell.std, cell.trainable_params) == ("bleu", 70.4, 0.1, "0.77M")


def test_values_a_paper_omits_are_none_instead_of_zero():
    rows = papers.reported("lora") + papers.reported("dylora") + papers.reported("rosa")
    (full,) = [r for r in papers.reported("lora", "table2_glue") if (r.model, r.method, r.task) == ("roberta-base", "FT", "mnli")]  # fmt: skip # noqa: E501
    assert full.std is None and full.rank is None and full.note is None
    assert not [row for row in rows if row.value == 0 or row.rank == 0]
    assert papers.reported("meft") == [] and papers.reported("dylora", "table5_search_cost") == []
    assert {(r.method, r.task) for r in rows if r.std == 0 and r.metric in ("accuracy", "matthews", "f1")} == {
        ("AdapterD_0.3M", "mnli"), ("AdapterD_0.3M", "qqp"), ("AdapterD_0.9M", "qqp"), ("DyLoRA_frozen@r3", "qqp"),
    }  # fmt: skip


@pytest.mark.parametrize("table", AVERAGES, ids=" ".join)
def test_printed_averages_of_lora_match_the_cells(table):
    rows = [row for row in papers.reported(*table[:2]) if row.model == table[2]]
    for method, printed in AVERAGES[table].items():
        assert average(rows, method) == pytest.approx(printed, abs=0.0501), method


def test_two_printed_averages_of_dylora_differ_from_the_cells():
    rows = papers.reported("dylora", "table2_glue_per_rank")
    noted = papers.source("dylora", "table2_glue_per_rank")["numbers"]["averages"]
    assert [entry["row"] for entry in noted] == ["LoRA@r1", "DyLoRA@r4"]
    for entry in noted:
        assert average(rows, entry["row"]) == pytest.approx(entry["of_the_cells"], abs=0.0005)
        assert abs(average(rows, entry["row"]) - entry["printed"]) > 0.02


def test_every_table_has_a_source():
    for paper in ("lora", "dylora", "rosa"):
        for table in {row.table for row in papers.reported(paper)}:
            assert papers.source(paper, table)["read_from"]
    assert papers.source("dylora", "appendix_a_time")["numbers"]["LoRA_8_ranks"] == 3199.6
    assert papers.source("meft", "abstract")["numbers"]["activation_memory_less_than_full_by_percent"] == {"up_to": 84}
    with pytest.raises(UsageError, match="did you mean lora/table2_glue"):
        papers.source("lora", "table2_gleu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}\n{ROW}\n{ROW.replace('70.4', '70,4')}\n", r"f\.csv:3: expected 13 cells"),
        (f"{HEAD}\n{ROW.replace('70.4', 'high')}\n", r"f\.csv:2: column value is 'high', not a number"),
        (f"{HEAD}\n{ROW.replace('70.4', 'nan')}\n", r"f\.csv:2: column value is 'nan', not a number"),
        (f"{HEAD}\n{ROW.replace(',4,', ',4.5,')}\n", r"f\.csv:2: column rank is '4\.5'"),
        (f"{HEAD}\n{ROW.replace('LoRA', '')}\n", r"f\.csv:2: column method is empty"),
        (f"{HEAD}\nlora,t\n", r"f\.csv:2: expected 13 cells"),
        ("paper,table\n", r"f\.csv:1: the columns are"),
    ],
)
def test_a_malformed_cell_is_named_with_file_and_line(text, message, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        papers.read(path)


def test_an_absent_cell_stays_absent(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(f"{HEAD}\n{ROW.replace('70.4,0.1,0.35M', ',,')}\n", encoding="utf-8")
    (row,) = papers.read(path)
    assert row.value is None and row.std is None and row.trainable_params is None and row.rank == 4
