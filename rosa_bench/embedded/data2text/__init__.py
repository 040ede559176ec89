"""The data-to-text half of the embedded world: rows like those of E2E, WebNLG and DART, and prose to pre-train on.

Only the notation and the field names are those of the real sets; every name, value and sentence is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rosa_bench.embedded.data2text import dart, restaurants, triples
from rosa_bench.embedded.data2text.documents import prose

if TYPE_CHECKING:
    from collections.abc import Mapping

SPLITS = ("train", "validation", "test")
TASKS = ("e2e", "web_nlg", "dart")
_WRITERS = {"e2e": restaurants.write_rows, "web_nlg": triples.write_rows, "dart": dart.write_rows}

__all__ = ["SPLITS", "TASKS", "input_string", "prose", "rows"]


def rows(task: str, split: str) -> list[dict[str, Any]]:
    """Write the rows of one split, with the fields of the real set and an ``id`` such as "e2e-test-17"."""
    if task not in TASKS or split not in SPLITS:
        raise ValueError(f"no rows for {task!r} {split!r}; choose from {', '.join(TASKS)} and {', '.join(SPLITS)}")
    return [{"id": f"{task}-{split}-{number}", **row} for number, row in enumerate(_WRITERS[task](split))]


def input_string(task: str, row: Mapping[str, Any]) -> str:
    """The string that stands for what a row says, in any order of its triples; it keeps the splits apart."""
    if task == "e2e":
        return str(row["meaning_representation"])
    return triples.key_of(row["triples"]) if task == "web_nlg" else dart.key_of(row["tripleset"])
