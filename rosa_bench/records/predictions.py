"""A run's stored predictions: one JSON object per example, in the order of the split."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from rosa_bench.core.task import Prediction, Task
from rosa_bench.data.source import json_lines
from rosa_bench.errors import UsageError
from rosa_bench.stats.bootstrap import Statistic
from rosa_bench.system.strict_json import is_number


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """The row of a prediction in a file of predictions."""
    row: dict[str, Any] = {"id": prediction.id, "prediction": prediction.value}
    if prediction.references:
        row["references"] = list(prediction.references)
    if prediction.label is not None:
        row["label"] = prediction.label
    if prediction.subset:
        row["subset"] = prediction.subset
    if prediction.logits:
        row["logits"] = list(prediction.logits)
    if prediction.lengths:
        row["lengths"] = list(prediction.lengths)
    return row


@dataclass(frozen=True)
class Predictions:
    """One run's predictions of a split or one of its subsets, in the order of the split."""

    path: Path
    seed: int
    rows: tuple[Prediction, ...]
    _statistics: dict[tuple[str, str], Statistic] = field(default_factory=dict, repr=False, compare=False)

    def statistic(self, task: Task, metric: str) -> Statistic:
        """The metric as a statistic of these predictions, cached."""
        key = metric, repr(task)
        if key not in self._statistics:
            self._statistics[key] = task.statistic(metric, self.rows)
        return self._statistics[key]


def read_predictions(path: Path, seed: int, subset: str = "") -> Predictions:
    """Read a run's predictions of a split or of one of its subsets.

    Raises:
        UsageError: if the file cannot be read, a row is not a prediction, or the subset has no rows; names file and
            line.
    """
    rows = [_prediction(row, where) for row, where in json_lines(path)]
    selected = tuple(row for row in rows if not subset or row.subset == subset)
    if not selected:
        raise UsageError(f"{path} has no predictions" + (f" of the subset {subset}" if rows else ""))
    return Predictions(path, seed, selected)


def _prediction(row: Any, where: str) -> Prediction:
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or row.get("prediction") is None:
        raise UsageError(f"{where}: a prediction needs an id (a string) and a prediction")
    value, label, references = row["prediction"], row.get("label"), row.get("references")
    if isinstance(value, str):
        if not isinstance(references, list) or not references or not all(isinstance(text, str) for text in references):
            raise UsageError(f"{where}: a predicted text needs references, a list of strings")
        return Prediction(row["id"], value, references=tuple(references), subset=str(row.get("subset", "")))
    if not _numeric(value) or not _numeric(label) or np.size(value) != np.size(label):
        raise UsageError(f"{where}: a prediction and its label must be numbers, or lists of numbers of equal length")
    logits, lengths = ([*values] if isinstance(values := row.get(name), list) else [] for name in ("logits", "lengths"))
    if lengths and (len(logits) != len(lengths) or not all(map(is_number, [*logits, *lengths])) or min(lengths) <= 0):
        raise UsageError(f"{where}: a choice needs as many log-likelihoods as lengths, all of them numbers")
    scores = {"logits": tuple(logits), "lengths": tuple(lengths)} if lengths else {}
    return Prediction(row["id"], value, label, subset=str(row.get("subset", "")), **scores)


def _numeric(value: Any) -> TypeGuard[float | list[float]]:
    values = value if isinstance(value, list) and value else [value]
    return all(map(is_number, values))
