"""GLUE's official metrics, in points (0 to 100; correlations -100 to 100), from scikit-learn and scipy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from rosa_bench.metrics.scores import AbsentError, Scores

Values = Sequence[float]


def _differ(predictions: Values, labels: Values) -> None:
    """Raise AbsentError if all predictions or all labels are equal: a correlation divides by the spread of both."""
    for values, name in ((predictions, "prediction"), (labels, "label")):
        if min(values) == max(values):
            raise AbsentError(f"undefined: every {name} is {values[0]:g}")


def _f1(predictions: Values, labels: Values) -> float:
    """F1 of class 1. Undefined without a positive prediction or label, where scikit-learn gives `zero_division`."""
    if 1 not in predictions and 1 not in labels:
        raise AbsentError("undefined: no prediction and no label is positive")
    return float(sk.f1_score(labels, predictions, zero_division=0))


def _matthews(predictions: Values, labels: Values) -> float:
    """Matthews correlation. Undefined where one side has one class only, where scikit-learn gives 0."""
    _differ(predictions, labels)
    return float(sk.matthews_corrcoef(labels, predictions))


def _correlation(kind: Callable[..., tuple[float, float]]) -> Callable[[Values, Values], float]:
    def correlation(predictions: Values, labels: Values) -> float:
        _differ(predictions, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that are nearly equal
            return float(kind(predictions, labels)[0])

    return correlation


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": lambda predictions, labels: float(sk.accuracy_score(labels, predictions)),
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}


def scores(names: Iterable[str], predictions: Values, labels: Values) -> Scores:
    """The named metrics of `predictions` against `labels`, in points. A metric that is undefined is in `absent`.

    Raises:
        ValueError: if the lengths differ, there are no rows, or a value is not finite.
    """
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions but {len(labels)} labels")
    if not len(labels):
        raise ValueError("no rows to score")
    if not (np.isfinite(np.asarray(predictions, float)).all() and np.isfinite(np.asarray(labels, float)).all()):
        raise ValueError("a prediction or label is not a finite number")
    found = Scores()
    for name in names:
        found.enter(name, lambda name=name: 100.0 * METRICS[name](predictions, labels))  # type: ignore[misc]
    return found
