"""Scores by metric name: a value, or the reason why it is absent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping


class AbsentError(Exception):
    """A metric has no value; the message says why. It starts with `undefined` if the rows are the reason."""


class Scores(dict[str, float]):
    """Scores by metric name. `absent` maps each metric without a value to the reason."""

    def __init__(self) -> None:
        super().__init__()
        self.absent: dict[str, str] = {}

    def enter(self, name: str, compute: Callable[[], float]) -> None:
        """Compute a metric and store its value, or the reason why it has none."""
        try:
            value = compute()
        except AbsentError as error:
            self.absent[name] = str(error)
        except ZeroDivisionError:
            self.absent[name] = "undefined: the official program divides by zero on these outputs"
        else:
            if math.isfinite(value):
                self[name] = value
            else:
                self.absent[name] = "undefined: the value is not a finite number"


def absences(parts: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, str]:
    """Why each metric has no value in some of the named parts; a reason that depends on the rows lists its parts."""
    parts_by_reason: dict[str, dict[str, list[str]]] = {}
    for part, scores in parts:
        for metric, reason in getattr(scores, "absent", {}).items():
            parts_by_reason.setdefault(metric, {}).setdefault(reason, []).append(part)
    return {
        metric: "; ".join(
            f"{reason} ({', '.join(names)})" if reason.startswith("undefined") else reason
            for reason, names in reasons.items()
        )
        for metric, reasons in parts_by_reason.items()
    }
