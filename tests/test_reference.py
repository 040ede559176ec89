"""The reference pages match the code: keys, commands, and fields of a record."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import reference
from support import small

from rosa_bench.run import run as run_experiment

ROOT = Path(__file__).parent.parent
RECORD = (ROOT / "docs" / "reference" / "records.md").read_text(encoding="utf-8")
SECTIONS = ("data", "primary", "params", "cost", "facts", "env")


@pytest.mark.parametrize("page", reference.BLOCKS)
def test_generated_blocks_are_current(page):
    written = (reference.PAGES / page).read_text(encoding="utf-8")
    assert written == reference.renewed(page), "run python scripts/reference.py"


def documented(section: str) -> set[str]:
    """The keys in the first column of a section's table."""
    text = RECORD.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return {key for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    "overrides",
    [
        ("task=cola", "method=rosa", "save=merged"),
        ("task=stsb", "method=lora", "save=peft"),
        ("task=e2e", "method=dylora", "task.max_new_tokens=4", "method.score_ranks=[8]", "save=adapter"),
        ("task=sciq", "method=meft"),
    ],
)
def test_every_key_of_a_record_is_documented(tmp_path, overrides):
    record = run_experiment(small(tmp_path, *overrides, "train.max_steps=2")).to_dict()
    assert record["status"] == "done"
    for section in SECTIONS:
        assert not set(record[section]) - documented(section), section


def test_every_documented_key_is_one_that_the_code_writes():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "rosa_bench").rglob("*.py"))
    for section in SECTIONS:
        keys = documented(section)
        assert keys
        assert not {key for key in keys if not re.search(rf"[\"']{key}[\"']|\b{key}[=:]", source)}, section
