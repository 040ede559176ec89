"""GLUE's official metrics, in points (0 to 100; correlations -100 to 100), from scikit-learn and scipy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import stats
from sklearn import metrics as sk

Values = Sequence[float]


def _matthews(predictions: Values, labels: Values) -> float:
    """Matthews correlation; 0 where one side is constant, as the official script has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a single label in both
        return float(sk.matthews_corrcoef(labels, predictions))


def _correlation(kind: Callable[..., tuple[float, float]]) -> Callable[[Values, Values], float]:
    def correlation(predictions: Values, labels: Values) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant side: scipy warns and gives nan, which `scores` leaves out
            return float(kind(predictions, labels)[0])

    return correlation


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": lambda predictions, labels: float(sk.accuracy_score(labels, predictions)),
    "f1": lambda predictions, labels: float(sk.f1_score(labels, predictions, zero_division=0)),
    "matthews": _matthews,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}


def scores(names: Iterable[str], predictions: Values, labels: Values) -> dict[str, float]:
    """The named metrics of `predictions` against `labels`, in points. A metric that is undefined is absent.

    Raises:
        ValueError: if the lengths differ, there are no rows, or a value is not finite.
    """
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions but {len(labels)} labels")
    if not len(labels):
        raise ValueError("no rows to score")
    if not (np.isfinite(np.asarray(predictions, float)).all() and np.isfinite(np.asarray(labels, float)).all()):
        raise ValueError("a prediction or label is not a finite number")
    values = {name: 100.0 * METRICS[name](predictions, labels) for name in names}
    return {name: value for name, value in values.items() if np.isfinite(value)}
