"""Compares the score in a table cell with the number that the paper prints."""

from __future__ import annotations

from collections.abc import Sequence

from rosa_bench.stats.summary import student
from rosa_bench.tables.grid import Grid, Place, Printed, Verdict


def verdict(own: Place, printed: Printed, grid: Grid, reasons: Sequence[str], seeds: int) -> Verdict | None:
    """Compare our score with the paper's: matched if both intervals overlap.

    The paper's interval comes from its standard deviation, or from rounding if it prints none.
    """
    own_score = own.scores.get(grid.epoch)
    if own_score is None:
        return None
    difference = grid.center(own_score) - printed.value
    if reasons:
        return Verdict(difference, "not comparable", tuple(reasons))
    if own_score.low is None or own_score.high is None:
        return Verdict(difference, "not comparable", ("a single value, or equal values, have no interval",))
    width = 0.5 * 10**-printed.decimals
    if printed.std is not None:
        width = max(width, student(max(1, seeds - 1)) * printed.std / seeds**0.5)
    inside = own_score.low - width <= printed.value <= own_score.high + width
    return Verdict(difference, "matched" if inside else "off")
