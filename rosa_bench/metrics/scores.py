"""Metrics by name: a value, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable


class AbsentError(Exception):
    """A metric has no value; the text says why. It begins with `undefined` where the rows are the reason."""


class Scores(dict[str, float]):
    """Metrics by name. A metric without a value is in `absent` with the reason, and not among the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.absent: dict[str, str] = {}

    def enter(self, name: str, compute: Callable[[], float]) -> None:
        """Compute a metric, or note why it has no value."""
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
