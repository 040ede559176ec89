"""What a suite's learning-rate searches tried, what won and what they cost, from the records of their runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Any, Literal

from rosa_bench.records.labels import method_label
from rosa_bench.records.record import Record
from rosa_bench.suite.plan import duration
from rosa_bench.suite.rate_search import TAG, outcome
from rosa_bench.system.console import counted
from rosa_bench.tables.matching import MODEL_OPTIONS, tags_of

Rows = tuple[str, str, str]  # task, model, and the backbone's options with the hash of the training rows


def search_notes(
    records: Iterable[Record], suite: str, epoch: Literal["last", "best"], finals: Iterable[Record] = ()
) -> list[str]:
    """One note per task: the rates of each search, the best one, and the time of all its runs.

    Args:
        records: finished and failed runs; runs of another suite's searches are ignored.
        finals: runs at the best rates; a search without any may be unfinished, and its note says "so far".

    Raises:
        UsageError: if a run has read a split that is not part of the training rows.
    """
    over = {(record.task, record.model, _tag(record, suite)) for record in finals}
    searches: dict[Rows, dict[str, list[Record]]] = {}
    for record in records:
        if (tag := _tag(record, suite)) is not None:
            options = [record.config.get("model", {}).get(name, usual) for name, usual in MODEL_OPTIONS.items()]
            rows = f"{options} {record.data.get('sha256', {}).get('train')}"
            searches.setdefault((record.task, record.model, rows), {}).setdefault(tag, []).append(record)
    tasks = Counter(task for task, _, _ in searches)
    return [
        _note(f"{task} ({model})" if tasks[task] > 1 else task, by_tag, epoch, over)
        for (task, model, _), by_tag in sorted(searches.items())
    ]


def _tag(record: Record, suite: str) -> str | None:
    """The search of a suite that a run belongs to; None if there is none."""
    tags = tags_of(record)
    return next((tag for tag in tags if tag.startswith(TAG)), None) if f"suite:{suite}" in tags else None


def _note(name: str, searches: Mapping[str, list[Record]], epoch: Literal["last", "best"], over: Container[Any]) -> str:
    texts, spent, runs = [], 0.0, 0
    for tag, records in sorted(searches.items(), key=lambda search: search[1][0].method):
        first = records[0]
        rates: dict[float, list[Record | None]] = {}
        for record in records:
            rates.setdefault(record.config["train"]["lr"], []).append(record)
        found = outcome(rates, epoch)
        winner = "none has a score" if found.rate is None else f"{found.rate:g}{' (edge)' if found.at_edge else ''}"
        if found.rate is not None and (first.task, first.model, tag) not in over:
            winner = f"{found.rate:g} so far"
        label = method_label(first.config, first.method)
        texts.append(f"{label} {winner} of {', '.join(f'{rate:g}' for rate in found.scores)}")
        spent, runs = spent + found.seconds, runs + len(records)
    share = next(iter(searches.values()))[0].config["task"]["tune_share"]
    return (
        f"Learning rates searched on {share:.0%} of the training rows of {name}: {'; '.join(texts)} "
        f"({counted(runs, 'run')}, {duration(spent)})."
    )
