"""What a suite's learning-rate searches tried, what won and what they cost, from the records of their runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rosa_bench.records.labels import method_label
from rosa_bench.records.record import Record
from rosa_bench.suite.plan import duration
from rosa_bench.suite.rate_search import TAG, outcome
from rosa_bench.tables.matching import tags_of


def search_notes(records: Iterable[Record], suite: str, epoch: Literal["last", "best"]) -> list[str]:
    """One note per task: the rates of each search, the best one, and the time of all its runs.

    Args:
        records: finished and failed runs; runs of another suite's searches are ignored.

    Raises:
        UsageError: if a run has read a split that is not part of the training rows.
    """
    by_task: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in records:
        tags = tags_of(record)
        name = next((tag for tag in tags if tag.startswith(TAG)), None)
        if name is not None and f"suite:{suite}" in tags:
            by_task.setdefault((record.task, record.model), {}).setdefault(name, []).append(record)
    return [_note(task, list(searches.values()), epoch) for (task, _), searches in sorted(by_task.items())]


def _note(task: str, searches: list[list[Record]], epoch: Literal["last", "best"]) -> str:
    texts, spent, runs = [], 0.0, 0
    for records in sorted(searches, key=lambda records: records[0].method):
        rates: dict[float, list[Record | None]] = {}
        for record in records:
            rates.setdefault(record.config["train"]["lr"], []).append(record)
        found = outcome(rates, epoch)
        label = method_label(records[0].config, records[0].method)
        winner = "none has a score" if found.rate is None else f"{found.rate:g}{' (edge)' if found.at_edge else ''}"
        texts.append(f"{label} {winner} of {', '.join(f'{rate:g}' for rate in found.scores)}")
        spent, runs = spent + found.seconds, runs + len(records)
    share = searches[0][0].config["task"]["tune_share"]
    return (
        f"Learning rates searched on {share:.0%} of the training rows of {task}: {'; '.join(texts)} "
        f"({runs} runs, {duration(spent)})."
    )
