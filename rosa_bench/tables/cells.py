"""The texts of a table, shared by all formats: scores, printed numbers, marks and notes."""

from __future__ import annotations

from collections.abc import Sequence

from rosa_bench.system.console import counted
from rosa_bench.tables.cell_scores import decimals as written
from rosa_bench.tables.costs import cost_notes
from rosa_bench.tables.grid import DASH, Column, Grid, Place, Printed
from rosa_bench.tables.layout import usual_n

IMPROVING = "↗"


def digits(grid: Grid, column: Column) -> int:
    """Decimals of a column: the paper's, or enough for three significant digits."""
    places = [row.places[column] for row in grid.rows if column in row.places]
    printed = [place.printed.decimals for place in places if place.printed]
    largest = max((abs(score.mean) for place in places for score in place.scores.values()), default=0.0)
    return max(printed, default=2 if largest >= 10 else 3)


def signed(value: float, decimals: int) -> str:
    """Format a difference with its sign, using a typographic minus."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def rounded(value: float, decimals: int) -> str:
    """Format a number with fixed decimals, or in scientific notation if it would round to zero."""
    text = f"{value:.{decimals}f}"
    return f"{value:.1e}" if value and not float(text) else text


def ours(place: Place, grid: Grid, decimals: int, usual: int | None) -> str:
    """Mean or median ± standard deviation, number of seeds unless it is the usual one, and runs without a result."""
    ended = ", ".join(f"{status} (n={count})" for status, count in place.unfinished.items())
    score = place.scores.get(grid.epoch)
    if score is None:
        return ended or DASH
    spread = "" if score.sd is None else f" ± {rounded(score.sd, decimals)}"
    n = "" if score.n == usual else f" (n={score.n})"
    text = f"{rounded(grid.center(score), decimals)}{spread}{n}".replace("-", "−")
    return f"{text}; {ended}" if ended else text


def printed_text(printed: Printed, decimals: int) -> str:
    """The paper's printed number."""
    spread = "" if printed.std is None else f" ± {printed.std:.{max(decimals, written(printed.std))}f}"
    return f"{printed.value:.{decimals}f}{spread}".replace("-", "−")


class Footnotes:
    """Distinct reasons, lettered in order of first use."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def mark(self, reasons: Sequence[str]) -> str:
        """The letters of `reasons`; new reasons are added."""
        self.reasons += [reason for reason in reasons if reason not in self.reasons]
        return ",".join(_letters(self.reasons.index(reason)) for reason in reasons)

    def lines(self) -> list[str]:
        """The text of each footnote."""
        return [f"[{_letters(i)}] {reason}" for i, reason in enumerate(self.reasons)]


def _letters(index: int) -> str:
    return (_letters(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def elsewhere_text(place: Place) -> str:
    """Results of other papers: value, spread and source of each; empty if there are none."""
    spreads = ("" if v.std is None else f" ± {v.std:g}" for v in place.elsewhere)
    return "; ".join(f"{v.value:g}{spread} {v.source}" for v, spread in zip(place.elsewhere, spreads, strict=True))


def emphasized(text: str, place: Place) -> str:
    """Mark a score that differs from the baseline's (bold if better, † if worse) or that still improves."""
    if place.against is not None and place.against.holds:
        text = f"**{text}**" if place.against.better else f"{text} †"
    return f"{text} {IMPROVING}" if place.improving else text


def notes(grid: Grid, footnotes: Footnotes) -> list[str]:
    """The notes below a table."""
    lines = [line for line in (_summary(grid), *grid.notes) if line]
    if any(place.against for place in grid.places):
        lines.append(
            f"Bold: better than {grid.baseline}; †: worse. Only differences are marked that hold for new examples "
            "(paired test on stored predictions, p < 0.05 after Holm's correction over the rows of a column) and for "
            "new seeds (95 % interval of the difference between seeds); see docs/background/statistics.md."
        )
    lines += [*_improving(grid), *cost_notes(grid), *_absent(grid)]
    lines += [f"{task} uses the scoring convention {scoring}." for task, scoring in sorted(_scoring(grid).items())]
    return lines + footnotes.lines()


def _summary(grid: Grid) -> str:
    """A sentence on what the scores are and their usual number of seeds; empty for a table without scores."""
    usual = usual_n(grid)
    if usual is None:
        return ""
    counts = {place.scores[grid.epoch].n for place in grid.places if grid.epoch in place.scores}
    center = {"mean": "Mean", "median": "Median"}[grid.aggregate] + " ± standard deviation over seeds"
    rule = {"last": "the last epoch", "best": "the best epoch of each run on the selection split"}[grid.epoch]
    others = "" if len(counts) == 1 else " unless a cell states another n"
    specified = "" if grid.seeds in (None, usual) else f"; the suite specifies {grid.seeds} seeds"
    return f"{center if counts != {1} else 'Score of one seed'} at {rule}, n={usual}{others}{specified}."


def _improving(grid: Grid) -> list[str]:
    """A note on the mark of cells that still improve; empty if no cell could be judged."""
    places = [place for place in grid.places if place.scores]
    judged = [place for place in places if place.gain is not None]
    marked = sum(place.improving for place in judged)
    if not judged:
        return []
    unknown = len(places) - len(judged)
    cells = f"{counted(unknown, 'cell')} cannot be judged: fewer than two seeds with a score at the last two epochs"
    more = f" {cells}." if unknown else ""
    return [
        f"{IMPROVING} still improving: the last epoch gained more than the standard deviation over seeds "
        f"({marked} of {counted(len(judged), 'cell')}).{more}"
    ]


def _absent(grid: Grid) -> list[str]:
    """The number of runs of a column without a value, by reason; a run in several rows counts once."""
    runs: dict[tuple[str, str], set[int]] = {}
    for row in grid.rows:
        for column, place in row.places.items():
            for record in place.records:
                reason = record.facts.get("absent_metrics", {}).get(column.metric)
                scored = record.scores.get(column.split, {}).get(place.variant, {})
                if reason is not None and column.metric not in scored:
                    runs.setdefault((grid.head(column), str(reason)), set()).add(id(record))
    return [f"{head} is absent in {counted(len(ids), 'run')}: {reason}." for (head, reason), ids in runs.items()]


def _scoring(grid: Grid) -> dict[str, str]:
    """The scoring conventions of all runs of a task."""
    used: dict[str, set[str]] = {}
    for column, place in ((column, place) for row in grid.rows for column, place in row.places.items()):
        conventions = {str(r.config["task"]["scoring"]) for r in place.records if "scoring" in r.config["task"]}
        used.setdefault(column.task, set()).update(conventions)
    return {task: " and ".join(sorted(conventions)) for task, conventions in used.items() if conventions}
