"""Which epoch of a run is its best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rosa_bench.core.task import Task


def chosen_by(task: Task) -> str:
    """The metric that chooses the best epoch: a generator's texts are too dear to decode at every one."""
    return "loss" if task.kind.decodes else task.primary


def best_epoch(task: Task, history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The evaluation of the best epoch on the selection split, the first among equals."""
    by = chosen_by(task)
    known = [entry for entry in history if by in entry["evaluation"].get(task.select_split, {})]
    better = min if by == "loss" or not task.higher_is_better else max
    return better(known, key=lambda entry: entry["evaluation"][task.select_split][by]) if known else None


def evaluations_since_best(task: Task, history: Sequence[Mapping[str, Any]]) -> int:
    """How many evaluations came after the best one; the first counts as the best while none has the metric."""
    best = best_epoch(task, history) or history[0]
    return len(history) - 1 - [entry["step"] for entry in history].index(best["step"])
