"""Selection of a run's best epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rosa_bench.core.task import Task


def chosen_by(task: Task) -> str:
    """The metric that selects the best epoch: the loss for generation, since decoding every epoch is too expensive."""
    return "loss" if task.kind.decodes else task.primary


def best_epoch(task: Task, history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The evaluation of the best epoch on the selection split, the first of equals; None if none has the metric."""
    metric = chosen_by(task)
    candidates = [entry for entry in history if metric in entry["evaluation"].get(task.select_split, {})]
    better = min if metric == "loss" or not task.higher_is_better else max
    return better(candidates, key=lambda entry: entry["evaluation"][task.select_split][metric]) if candidates else None


def evaluations_since_best(task: Task, history: Sequence[Mapping[str, Any]]) -> int:
    """Number of evaluations after the best one, or after the first if none has the metric."""
    best = best_epoch(task, history) or history[0]
    return len(history) - 1 - [entry["step"] for entry in history].index(best["step"])
