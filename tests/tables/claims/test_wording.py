"""Claims as text: the papers' numbers come from results/papers, and effects are printed in their units."""

from __future__ import annotations

import dataclasses

import made
import pytest
from keep_records import brief_table

from rosa_bench.errors import UsageError
from rosa_bench.stats.effects import Effect
from rosa_bench.suite import plan
from rosa_bench.suite.claims import Comparison
from rosa_bench.tables import papers
from rosa_bench.tables.claims.judge import Result, Verdict, claims_of, text
from rosa_bench.tables.claims.wording import measured, printed

CLAIMS = claims_of(plan.load("claims"))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_shipped_claim_names_its_paper_and_finds_its_numbers(claim):
    assert papers.document(claim.paper)
    assert "{" not in printed(claim)


def test_numbers_are_those_of_the_papers():
    by_id = {claim.id: printed(claim) for claim in CLAIMS}
    assert "at least 4 to 7 times" in by_id["dylora_cost"] and "3199.6 s" in by_id["dylora_cost"]
    assert by_id["meft_activations"] == "up to 84 % less"
    assert "20.7 to 30.3 % slower" in by_id["inference_latency"]
    assert "RTE 86.6 and 78.7" in by_id["lora_as_good_as_full"]


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"x": {"table": "table2_glue", "method": "LoRA"}}, "rows of reported.csv"),
        ({"x": "meft/abstract: seconds"}, "has no number"),
        ({"x": "lora/table2_glue: seconds"}, "has no number"),
        ({"x": "lora/table1_inference_latency: 0"}, "has no number"),
        ({"x": "meft/table9: seconds"}, "has no table"),
        ({"x": "meft"}, "has no table"),
        ({}, "not in numbers"),
    ],
)
def test_a_number_that_is_not_there_is_named(numbers, reason):
    claim = dataclasses.replace(CLAIMS[0], paper="lora", printed="{x} points", numbers=numbers)
    with pytest.raises(UsageError, match=reason):
        printed(claim)


@pytest.mark.parametrize("text", ["{x", "{x.y}", "}"])
def test_a_printed_text_that_is_no_format_is_named(text):
    numbers = {"x": {"paper": "lora", "table": "table2_glue", "model": "roberta-base", "method": "LoRA", "task": "rte"}}
    claim = dataclasses.replace(CLAIMS[0], printed=text, numbers=numbers)
    with pytest.raises(UsageError, match=f"claim {claim.id}: printed is not a valid format"):
        printed(claim)


def effect(value: float) -> Effect:
    return Effect(value, 0.0, 2)


def test_effects_are_points_ratios_or_values():
    lora, full = {"method": "lora"}, {"method": "full"}
    points = Result(Comparison(ours=lora, theirs=full, above=0), effect=effect(-1.234))
    ratio = Result(Comparison(ours=lora, theirs=full, measure="memory", below=1), effect=effect(0.0))
    value = Result(Comparison(ours=lora, measure="latency", below=1), rank=4, effect=effect(1.0567))
    assert measured(points) == "−1.23 points (−1.23 to −1.23)"
    assert measured(ratio) == "1.00 (1.00 to 1.00)"
    assert measured(value) == "rank 4: 1.06 (1.06 to 1.06)"
    assert measured(Result(points.comparison)) == "–"


def test_a_comparison_in_words():
    ours, theirs = {"method": "lora", "rank": [1, 2]}, {"method": "full"}
    assert text(Comparison(ours=ours, theirs=theirs, below=-2)) == "score of lora rank 1, 2 − full is below -2"


def test_the_brief_table_has_a_column_per_suite():
    points = Result(Comparison(ours={"method": "lora"}, theirs={"method": "full"}, above=0), effect=effect(1.5))
    points = dataclasses.replace(points, records=(made.record(),))
    decided = Verdict(1, CLAIMS[0], "holds", "", (points,), (), 0.01, 1.0)
    partial = Result(points.comparison, records=(made.record(),))
    open_yet = Verdict(1, CLAIMS[0], "undecided", "3 of 4 runs missing", (partial,), (), 1.0, 1.0)
    not_run = Verdict(1, CLAIMS[0], "undecided", "4 of 4 runs missing", (Result(points.comparison),), (), 1.0, 1.0)
    head, _, row = brief_table({"mini": [decided], "english": [open_yet], "other": [not_run]}).splitlines()
    assert head == "| # | claim | mini | english |"
    assert row == f"| 1 | {CLAIMS[0].claim} | **holds** +1.50 points (+1.50 to +1.50) | **undecided** |"
