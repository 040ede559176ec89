"""Renders a grid as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rosa_bench.tables.cells import IMPROVING, Footnotes, digits, elsewhere_text, notes, ours, printed_text
from rosa_bench.tables.grid import DASH, Column, Grid, Place, Printed, Verdict
from rosa_bench.tables.layout import Part, headed, parts, usual_n, width

MARKS = {"matched": "=", "off": r"\neq", "not comparable": "*"}
ESCAPES: dict[str, str | int | None] = {c: "\\" + c for c in "_%&#{}"}
ESCAPES |= {"$": r"\$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ESCAPES |= {"[": "{[}", "*": "{*}"}  # LaTeX reads them as options of a preceding line break
ESCAPES |= {"±": r"$\pm$", "–": "--", "−": "$-$", "†": r"$\dagger$", "<": "$<$", ">": "$>$"}
ESCAPES |= {"×": r"$\times$", IMPROVING: r"$\nearrow$"}
Texts = tuple[str, str, str]  # our score, the paper's value and other papers' values; empty if absent


def latex(grid: Grid) -> str:
    """Tabulars for booktabs, split like the Markdown; the paper's values follow ours on a separate line."""
    footnotes, usual = Footnotes(), usual_n(grid)
    decimals = {column: digits(grid, column) for column in grid.columns}
    cells: dict[tuple[str, Column], Texts] = {}
    widths = {}
    for row in grid.rows:
        for column in grid.columns:
            cells[row.label, column] = _texts(row.place(column), grid, decimals[column], usual, footnotes)
    for column in grid.columns:
        texts = [ours(row.place(column), grid, decimals[column], usual) for row in grid.rows]
        widths[column] = width([[grid.head(column)], *([text] for text in texts)])
    tables = [line for part in parts(grid, widths) for line in _tabular(grid, part, cells)]
    comments = [f"% {' '.join(line.split())}" for line in [grid.title, *notes(grid, footnotes)]]
    return "\n".join([*comments, *tables, ""])


def _tabular(grid: Grid, part: Part, cells: Mapping[tuple[str, Column], Texts]) -> Iterator[str]:
    """The lines of a part."""
    head = ["method", *(cost.head for cost in part.costs), *map(grid.head, part.columns)]
    if part.title:
        yield f"% {part.title}"
    yield rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}"
    yield r"\toprule"
    yield _line(map(escaped, head))
    for heading, rows in headed(part.rows):
        yield r"\midrule"
        if heading:
            yield _line([rf"\multicolumn{{{len(head)}}}{{l}}{{\textit{{{escaped(heading)}}}}}"])
        for row in rows:
            own, printed, related = zip(*(cells[row.label, column] for column in part.columns), strict=True)
            yield _line([escaped(row.label), *(escaped(cost.cell(row)) for cost in part.costs), *own])
            for name, texts in (("printed", printed), ("reported elsewhere", related)):
                if any(texts):
                    yield _line(
                        [rf"\quad {name}", *("" for _ in part.costs), *(text or escaped(DASH) for text in texts)]
                    )
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _texts(place: Place, grid: Grid, decimals: int, usual: int | None, footnotes: Footnotes) -> Texts:
    printed = _printed(place.printed, place.verdict, decimals, footnotes) if place.printed is not None else ""
    return _ours(place, grid, decimals, usual), printed, escaped(elsewhere_text(place))


def _ours(place: Place, grid: Grid, decimals: int, usual: int | None) -> str:
    text = escaped(ours(place, grid, decimals, usual))
    if place.against is not None and place.against.holds:
        text = rf"\textbf{{{text}}}" if place.against.better else rf"{text}$^\dagger$"
    return rf"{text} $\nearrow$" if place.improving else text


def _printed(printed: Printed, verdict: Verdict | None, decimals: int, footnotes: Footnotes) -> str:
    text = escaped(printed_text(printed, decimals))
    if verdict is None:
        return text
    return f"{text}$^{{{MARKS[verdict.mark]}{footnotes.mark(verdict.reasons)}}}$"


def escaped(text: str) -> str:
    return text.translate(str.maketrans(ESCAPES))
