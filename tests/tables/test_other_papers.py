"""Values reported by other papers: complete, with sources, shown next to the runs they belong to."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from pathlib import Path

import pytest
from recorded import built, cells, changed, record

from rosa_bench.config import papers_dir
from rosa_bench.suite import plan
from rosa_bench.tables import papers
from rosa_bench.tables.formats import long_csv, markdown
from rosa_bench.tables.grid import Column
from rosa_bench.tables.html.page import page
from rosa_bench.tables.latex import latex
from rosa_bench.tables.other_papers import Described, reported

COLA, RTE = Column("cola", "matthews", "validation"), Column("rte", "accuracy", "validation")
BLEU = Column("e2e", "bleu", "test")
TABLES = {
    ("adalora", "table1_glue"): 132,
    ("c3a", "table2_glue"): 128,
    ("compact", "table4_glue"): 23,
    ("fourierft", "table2_glue"): 105,
    ("fourierft", "table3_e2e"): 55,
    ("galore", "table4_glue"): 50,
    ("road", "table2_glue_heldout"): 180,
    ("vblora", "table1_glue"): 105,
    ("vblora", "table2_e2e"): 40,
}


def related() -> tuple[papers.Reported, ...]:
    return papers.read(papers_dir() / "related.csv")


def values(run: Described, column: Column) -> dict[str, float]:
    return {result.source: result.value for result in reported(run, column)}


def lora(rank: int, model: str = "roberta_base", variant: str = "") -> Described:
    return Described("lora", {"rank": rank}, model, variant)


def test_every_cell_and_its_source():
    assert Counter((row.paper, row.table) for row in related()) == TABLES and sum(TABLES.values()) == 818
    named = ("paper", "table", "model", "method", "rank", "trainable_params", "task", "metric")
    assert len({tuple(getattr(row, name) for name in named) for row in related()}) == 818
    assert not [row for row in related() if not row.value]
    for paper, table in TABLES:
        methods = {row.method for row in related() if (row.paper, row.table) == (paper, table)}
        source = papers.source(paper, table)
        assert source["read_from"].startswith(paper) and papers.document(paper)
        assert set(source.get("rows", {})) <= methods and all(
            "method" in row for row in source.get("rows", {}).values()
        )


def test_printed_averages_are_those_of_the_cells():
    rows: dict[tuple, dict[str, float]] = {}
    for row in related():
        tasks = rows.setdefault((row.paper, row.model, row.method, row.rank, row.trainable_params), {})
        tasks[f"{row.task} {row.metric}"] = row.value
    checked = 0
    for (paper, *_), tasks in rows.items():
        average = tasks.pop("avg average", None)
        scores = [value for name, value in tasks.items() if "memory" not in name]
        if average is None or paper == "adalora":  # which averages its pairs of MNLI and QQP first
            continue
        assert statistics.fmean(scores) == pytest.approx(average, abs=0.11)
        checked += 1
    assert checked > 60


def test_values_are_matched_by_method_size_backbone_and_metric():
    rte = {"road (quoted)": 75.3, "c3a": 76.68, "vblora (quoted)": 86.6, "fourierft": 78.4, "galore": 79.06}
    assert values(lora(8), RTE) == rte
    assert values(lora(4), RTE) == {"galore": 78.7} and values(lora(3), RTE) == {}
    assert values(lora(8, variant="r4"), RTE) == {} and values(lora(8, variant="r8"), RTE) == values(lora(8), RTE)
    assert values(lora(8, "roberta_mini"), RTE) == {}
    assert values(lora(4, "gpt2_medium"), BLEU) == {"vblora": 68.9, "fourierft": 68.9}
    assert values(Described("dylora", {"rank_max": 8}, "roberta_base", "r8"), COLA).keys() == {"fourierft"}
    assert values(Described("dylora", {"rank_max": 8}, "roberta_base", "r7"), COLA) == {}
    assert values(Described("ia3", {}, "roberta_base", ""), COLA) == {"road": 60.4, "c3a": 60.49}
    adalora = Described("adalora", {}, "deberta-v3-base", "")
    assert values(adalora, COLA) == {"adalora AdaLoRA_1.27M": 71.45, "adalora AdaLoRA_0.32M": 70.04}
    mismatched = Column("mnli", "accuracy", "validation_mismatched")
    assert set(values(adalora, mismatched).values()) == {90.79, 90.70}
    bottleneck = {"bottleneck": 48, "skip_layers": 8}
    assert values(Described("adapter_pfeiffer", bottleneck, "roberta_base", ""), COLA).keys() == {"fourierft"}
    assert values(Described("adapter_pfeiffer", {"bottleneck": 9}, "roberta_base", ""), COLA) == {}


def suite() -> plan.Suite:
    common = {"task": "cola", "model": "roberta_base", "data": "hub"}
    blocks = [plan.Block(run=common | {"method": m}, reported=r) for m, r in (("lora", "LoRA"), ("bitfit", "BitFit"))]
    more = {"paper": "lora", "table": "table2_glue", "columns": [plan.Column(task="cola", metric="matthews")]}
    return plan.Suite(name="paper", title="A paper's", cells=blocks, seeds=[1], **more)


def table(folder: Path, **options):
    path = record(folder, "method=lora", "model=roberta_base", "data=hub", last=62.0)
    changed(path, data={"source": "hub", "sha256": {}, "rows": {}})
    return built(folder, suite(), **options)[0]


def test_every_format_has_a_separate_column_on_request(tmp_path):
    plain, grid = table(tmp_path / "a"), table(tmp_path / "b", elsewhere=True)
    assert "elsewhere" not in markdown(plain) and "elsewhere" not in latex(plain)
    head, *rows = cells(grid)
    assert head[2:] == ["cola matthews", "reported elsewhere"]
    by_row = {row[0]: row[3] for row in rows}
    assert "60.95 ± 1.57 c3a" in by_row["LoRA, roberta-base"] and "61.83 galore" in by_row["LoRA, roberta-base"]
    assert "59.21 ± 1.74 c3a" in by_row["BitFit, roberta-base"]  # which has no run
    assert by_row["FT, roberta-base"] == "–"  # nor is one asked for
    assert "Reported elsewhere, galore: galore, table 4; arXiv 2403.03507; GLUE validation" in markdown(grid)
    assert "reported elsewhere" in latex(grid) and "61.83 galore" in latex(grid)
    lines = list(csv.DictReader(long_csv(grid).splitlines()))
    assert any("61.83 galore" in line["elsewhere"] for line in lines)
    assert "elsewhere 59.7 road (quoted)" in page([grid]) and "elsewhere" not in page([plain])


def test_tables_of_a_backbone_have_the_column_too(tmp_path):
    path = record(tmp_path, "method=lora", "model=roberta_base", "data=hub", "task=rte", last=70.0)
    changed(path, data={"source": "hub", "sha256": {}, "rows": {}})
    (grid,) = built(tmp_path, elsewhere=True)
    assert grid.title == "roberta_base on hub" and "76.68 ± 1.42 c3a" in markdown(grid)
