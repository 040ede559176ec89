"""The embedded tasks: small, seeded stand-ins for GLUE, E2E, WebNLG, DART and five question sets, without download.

A grammar writes the rows of every task and the prose that the mini backbones are pre-trained on. The field names are
those of the real sets, plus a unique ``id``. Nothing here imports torch or transformers, and every version of Python
writes the same rows.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from rosa_bench.embedded.reserve import reserved

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "v1"
GLUE_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
DATA_TO_TEXT_TASKS = ("e2e", "web_nlg", "dart")
CHOICE_TASKS = ("openbookqa", "piqa", "arc_easy", "arc_challenge", "sciq")
TASKS = GLUE_TASKS + DATA_TO_TEXT_TASKS + CHOICE_TASKS

__all__ = [
    "CHOICE_TASKS",
    "DATA_TO_TEXT_TASKS",
    "GLUE_TASKS",
    "TASKS",
    "VERSION",
    "prose",
    "reserved",
    "rows",
    "splits",
]


def splits(task: str) -> tuple[str, ...]:
    """The splits of a task, ``train`` first, then the scored ones."""
    if task not in TASKS:
        raise ValueError(f"unknown embedded task {task!r}; choose from {', '.join(TASKS)}")
    if task == "mnli":
        return ("train", "validation_matched", "validation_mismatched")
    if task in DATA_TO_TEXT_TASKS:
        return ("train", "validation", "test")
    if task in CHOICE_TASKS:
        from rosa_bench.embedded import choices

        return choices.splits(task)
    return ("train", "validation")


@cache
def rows(task: str, split: str) -> list[dict[str, Any]]:
    """The rows of one split of a task. The list is cached, so callers must not change it."""
    if split not in splits(task):
        raise ValueError(f"task {task!r} has no split {split!r}; choose from {', '.join(splits(task))}")
    if task in DATA_TO_TEXT_TASKS:
        from rosa_bench.embedded import data2text

        return data2text.rows(task, split)
    if task in CHOICE_TASKS:
        from rosa_bench.embedded import choices

        return choices.rows(task, split)
    from rosa_bench.embedded import glue

    return glue.rows(task, split)


def prose(kind: str, seed: int) -> Iterator[str]:
    """Yield documents for pre-training without end: ``encoder`` is plain prose, ``decoder`` adds data-to-text."""
    from rosa_bench.embedded.documents import documents

    return documents(kind, seed)
