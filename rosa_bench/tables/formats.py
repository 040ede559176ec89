"""Renders a grid as Markdown, CSV and LaTeX. An absent number is an en dash."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from rosa_bench.tables.grid import DASH, Column, Grid, Place, Row, Score
from rosa_bench.tables.place_scores import decimals as written

LONG = [
    *(
        "table",
        "row",
        "task",
        "metric",
        "split",
        "variant",
        "epoch",
        "n",
        "seeds",
        "mean",
        "median",
        "sd",
        "low",
        "high",
    ),
    *("trainable", "printed", "printed_sd", "difference", "mark", "reasons"),
    *(
        "baseline",
        "baseline_difference",
        "p_holm",
        "holds",
        "test",
        "unfinished",
        "other_settings",
        "runs",
        "elsewhere",
    ),
]
MARKS = {"matched": "=", "off": r"\neq", "not comparable": "*"}  # in LaTeX


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


def score_text(score: Score | None, grid: Grid, decimals: int) -> str:
    """Mean or median ± standard deviation and the number of seeds. A single seed has no spread."""
    if score is None:
        return DASH
    centre = score.mean if grid.aggregate == "mean" else score.median
    spread = "" if score.sd is None else f" ± {rounded(score.sd, decimals)}"
    return f"{rounded(centre, decimals)}{spread} (n={score.n})".replace("-", "−")


def ours(place: Place | None, grid: Grid, decimals: int) -> str:
    """The measured score, or the status of runs without a result."""
    if place is None:
        return DASH
    ended = ", ".join(f"{status} (n={count})" for status, count in place.unfinished.items())
    score = place.scores.get(grid.epoch)
    return ended if score is None and ended else "; ".join(filter(None, [score_text(score, grid, decimals), ended]))


def printed_text(place: Place | None, decimals: int) -> str:
    """The paper's printed number."""
    if place is None or place.printed is None:
        return DASH
    std = place.printed.std
    spread = "" if std is None else f" ± {std:.{max(decimals, written(std))}f}"
    return f"{place.printed.value:.{decimals}f}{spread}".replace("-", "−")


def sizes(row: Row) -> str:
    """Trainable parameters, ours and the paper's."""
    own = " / ".join(f"{size:,}" for size in row.trainable) or DASH
    return f"{own} (paper {row.printed_trainable})" if row.printed_trainable else own


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


def rows(grid: Grid, footnotes: Footnotes) -> Iterator[list[str]]:
    """Yield the head, then a line per row: label, parameters, and per column our score, the paper's and the verdict."""
    related = with_related(grid)
    yield ["method", "trainable", *_interleaved(grid, related, grid.head, lambda column: "reported elsewhere")]
    decimals = {column: digits(grid, column) for column in grid.columns}
    for row in grid.rows:
        values = {column: _cell(row.places.get(column), grid, decimals[column], footnotes) for column in grid.columns}
        elsewhere = {column: elsewhere_text(row.places.get(column)) or DASH for column in related}
        yield [row.label, sizes(row), *_interleaved(grid, related, values.__getitem__, elsewhere.__getitem__)]


def with_related(grid: Grid) -> set[Column]:
    """The columns in which other papers report results."""
    return {column for row in grid.rows for column, place in row.places.items() if place.elsewhere}


def _interleaved(
    grid: Grid, related: set[Column], ours_of: Callable[[Column], str], elsewhere_of: Callable[[Column], str]
) -> Iterator[str]:
    """Yield a text per column, followed by a second one for columns with related results."""
    for column in grid.columns:
        yield ours_of(column)
        if column in related:
            yield elsewhere_of(column)


def elsewhere_text(place: Place | None) -> str:
    """Results of other papers: value, spread and source of each; empty if there are none."""
    values = () if place is None else place.elsewhere
    spreads = ("" if v.std is None else f" ± {v.std:g}" for v in values)
    return "; ".join(f"{v.value:g}{spread} {v.source}" for v, spread in zip(values, spreads, strict=True))


def _cell(place: Place | None, grid: Grid, decimals: int, footnotes: Footnotes) -> str:
    text = emphasised(ours(place, grid, decimals), place)
    if place is None or place.printed is None:
        return text
    text += f"; paper {printed_text(place, decimals)}"
    if place.verdict is not None:
        marks = f" [{footnotes.mark(place.verdict.reasons)}]" if place.verdict.reasons else ""
        text += f"; {signed(place.verdict.difference, decimals)}, {place.verdict.mark}{marks}"
    return text


def emphasised(text: str, place: Place | None) -> str:
    """Mark a score whose difference to the baseline holds: bold if better, a dagger if worse."""
    if place is None or place.against is None or not place.against.holds:
        return text
    return f"**{text}**" if place.against.better else f"{text} †"


def notes(grid: Grid, footnotes: Footnotes) -> list[str]:
    """The notes below a table."""
    lines = list(grid.notes)
    if any(place.against for row in grid.rows for place in row.places.values()):
        lines.append(
            f"Bold: better than {grid.baseline}; †: worse. Only differences are marked that hold for new examples "
            "(paired test on stored predictions, p < 0.05 after Holm's correction over the rows of a column) and for "
            "new seeds (95 % interval of the difference between seeds); see docs/background/statistics.md."
        )
    lines += _absent(grid)
    used = {c.task: scoring for row in grid.rows for c, p in row.places.items() if (scoring := _scoring(p))}
    lines += [f"{task} uses the scoring convention {scoring}." for task, scoring in sorted(used.items())]
    return lines + footnotes.lines()


def _absent(grid: Grid) -> list[str]:
    """The number of runs of a column without a value, by reason."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in grid.rows:
        for column, place in row.places.items():
            for record in place.records:
                reason = record.facts.get("absent_metrics", {}).get(column.metric)
                scored = record.scores.get(column.split, {}).get(place.variant, {})
                if reason is not None and column.metric not in scored:
                    counts[grid.head(column), str(reason)] += 1
    return [f"{head} is absent in {n} {'run' if n == 1 else 'runs'}: {why}." for (head, why), n in counts.items()]


def _scoring(place: Place) -> str:
    return " and ".join(
        sorted({str(r.config["task"]["scoring"]) for r in place.records if "scoring" in r.config["task"]})
    )


def markdown(grid: Grid) -> str:
    """GitHub Markdown."""
    footnotes = Footnotes()
    head, *body = ([_in_markdown(text) for text in row] for row in rows(grid, footnotes))
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body]]
    return "\n".join([f"## {grid.title}", "", *lines, "", *(f"{note}  " for note in notes(grid, footnotes)), ""])


def _in_markdown(text: str) -> str:
    """Text of a Markdown cell: one line, with pipes and HTML tags escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def comma_separated(grid: Grid) -> str:
    """CSV of the table as shown, with a header row."""
    return _csv(rows(grid, Footnotes()))


def long_csv(grid: Grid) -> str:
    """CSV with one line per cell and epoch and one column per value; absent values are empty."""
    return _csv([LONG, *([str(line.get(name, "")) for name in LONG] for line in _long(grid))])


def _csv(lines: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _long(grid: Grid) -> Iterator[dict[str, object]]:
    for row in grid.rows:
        for column, place in row.places.items():
            for epoch in place.scores or (grid.epoch,):
                yield _long_line(grid, row, column, place, epoch)


def _long_line(grid: Grid, row: Row, column: Column, place: Place, epoch: str) -> dict[str, object]:
    line: dict[str, object] = {"table": grid.name, "row": row.label, "task": column.task, "metric": column.metric}
    line |= {"split": column.split, "variant": place.variant, "epoch": epoch}
    score = next((score for name, score in place.scores.items() if name == epoch), None)
    if score is not None:
        line |= {"n": score.n, "seeds": " ".join(map(str, score.by_seed)), "mean": score.mean, "median": score.median}
        line |= {"sd": score.sd, "low": score.low, "high": score.high}
    line |= {"trainable": " ".join(map(str, row.trainable)), "runs": " ".join(r.run_id for r in place.records)}
    line |= {"unfinished": " ".join(f"{status}:{count}" for status, count in place.unfinished.items())}
    line |= {"other_settings": place.other_settings or "", "elsewhere": elsewhere_text(place)}
    if place.printed is not None:
        line |= {"printed": place.printed.value, "printed_sd": place.printed.std}
    if epoch == grid.epoch and (verdict := place.verdict) is not None:
        line |= {"difference": verdict.difference, "mark": verdict.mark, "reasons": "; ".join(verdict.reasons)}
    if epoch == "last" and (against := place.against) is not None:
        line |= {"baseline": against.baseline, "baseline_difference": against.difference, "p_holm": against.p}
        line |= {"holds": str(against.holds).lower(), "test": against.test}
    return {name: "" if value is None else value for name, value in line.items()}


def latex(grid: Grid) -> str:
    """A LaTeX tabular for booktabs; the paper's values follow ours on a separate line."""
    footnotes, lines = Footnotes(), []
    decimals = {column: digits(grid, column) for column in grid.columns}
    for row in grid.rows:
        places = [(row.places.get(column), decimals[column]) for column in grid.columns]
        lines.append([escaped(row.label), escaped(sizes(row)), *(_latex_ours(p, grid, d) for p, d in places)])
        if any(place is not None and place.printed is not None for place, _ in places):
            lines.append([r"\quad printed", "", *(_latex_printed(place, d, footnotes) for place, d in places)])
        if any(place is not None and place.elsewhere for place, _ in places):
            related = [escaped(elsewhere_text(place) or DASH) for place, _ in places]
            lines.append([r"\quad reported elsewhere", "", *related])
    head = ["method", "trainable", *map(grid.head, grid.columns)]
    comments = [f"% {' '.join(line.split())}" for line in [grid.title, *notes(grid, footnotes)]]
    return "\n".join(
        [
            *comments,
            rf"\begin{{tabular}}{{ll{'r' * len(grid.columns)}}}",
            r"\toprule",
            " & ".join(map(escaped, head)) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _latex_ours(place: Place | None, grid: Grid, decimals: int) -> str:
    text = escaped(ours(place, grid, decimals))
    if place is None or place.against is None or not place.against.holds:
        return text
    return rf"\textbf{{{text}}}" if place.against.better else rf"{text}$^\dagger$"


def _latex_printed(place: Place | None, decimals: int, footnotes: Footnotes) -> str:
    text = escaped(printed_text(place, decimals))
    if place is None or place.verdict is None:
        return text
    letters = footnotes.mark(place.verdict.reasons)
    return f"{text}$^{{{MARKS[place.verdict.mark]}{letters}}}$"


ESCAPES: dict[str, str | int | None] = {c: "\\" + c for c in "_%&#{}"}
ESCAPES |= {"$": r"\$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
ESCAPES |= {"[": "{[}", "*": "{*}"}  # LaTeX reads them as options of a preceding line break
ESCAPES |= {"^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "−": "$-$", "†": r"$\dagger$", "<": "$<$", ">": "$>$"}


def escaped(text: str) -> str:
    """Escape text for LaTeX."""
    return text.translate(str.maketrans(ESCAPES))
