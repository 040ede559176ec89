"""Renders the tables as a self-contained HTML file: sortable, with details of each cell, and the plots.

The page loads nothing: a content security policy forbids that and any script but its own. Without JavaScript it shows
static tables. Values from records are always text, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from rosa_bench.system.console import counted
from rosa_bench.tables.cells import Footnotes, digits, elsewhere_text, notes, printed_text, signed
from rosa_bench.tables.figures.figures import Plot
from rosa_bench.tables.grid import DASH, Column, Epoch, Grid, Place, Row, Score
from rosa_bench.tables.html.details import EPOCHS, Panels

SHOWN = 20  # most remarks on the page
CLASSES = {"matched": "matched", "off": "off", "not comparable": "other"}


def page(grids: Sequence[Grid], plots: Sequence[Plot] = (), remarks: Sequence[str] = ()) -> str:
    """Render the page. `remarks` are general notes, such as which records were omitted.

    Raises:
        OSError: if the PNG of a plot cannot be read.
    """
    panels = Panels()
    tables = [Table(grid, f"table-{i}", panels).html() for i, grid in enumerate(grids)]
    here = Path(__file__).parent
    style, script = (here.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    links = [(f"table-{i}", grid.title) for i, grid in enumerate(grids)]
    links += [("plots", "Plots")] if plots else []
    links += [("provenance", "Provenance")] if panels.environments else []
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "summary": _summary(grids, panels),
        "remarks": _remarks(remarks),
        "contents": "\n".join(f'<li><a href="#{target}">{escape(title)}</a></li>' for target, title in links),
        "tables": "\n".join(tables),
        "plots": _plots(plots),
        "provenance": _provenance(panels),
        "records": panels.json(),
    }
    skeleton = here.joinpath("page.html").read_text(encoding="utf-8")
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], skeleton)
    return text.encode("utf-8", "replace").decode("utf-8")  # UTF-8 cannot encode unpaired surrogates


def _hash(text: str) -> str:
    """The hash that identifies a style or script in the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _remarks(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines[:SHOWN])
    more = f"<li>and {len(lines) - SHOWN} more</li>" if len(lines) > SHOWN else ""
    return f'<ul class="note">{items}{more}</ul>' if items else ""


def _summary(grids: Sequence[Grid], panels: Panels) -> str:
    return f"{counted(len(grids), 'table')} from {counted(sum(panels.environments.values()), 'run')}."


def _plots(plots: Sequence[Plot]) -> str:
    if not plots:
        return ""
    return f'<section id="plots"><h2>Plots</h2>{"".join(map(_figure, plots))}</section>'


def _figure(plot: Plot) -> str:
    image = base64.b64encode(plot.png.read_bytes()).decode()
    source = f"data:image/png;base64,{image}"
    return (
        f'<figure><img src="{source}" alt="{escape(plot.alt)}"><figcaption>{escape(plot.caption)}</figcaption></figure>'
    )


def _provenance(panels: Panels) -> str:
    """Every dataset and environment, with its number of runs."""
    if not panels.environments:
        return ""
    sources, environments = [], []
    for (task, number), count in sorted(panels.sources.items()):
        data = panels.parts[number]
        sums = data.get("sha256") if isinstance(data.get("sha256"), Mapping) else {}
        lines = [f"{escape(str(split))} <code>{escape(str(value))}</code>" for split, value in sums.items()]
        sources.append((escape(task), escape(str(data.get("source", DASH))), f"{count:,}", "<br>".join(lines) or DASH))
    for number, count in panels.environments.most_common():
        env = panels.parts[number]
        packages = env.get("packages") if isinstance(env.get("packages"), Mapping) else {}
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        rest = ", ".join(f"{name} {value}" for name, value in env.items() if name != "packages")
        environments.append((f"{count:,}", escape(rest) or DASH, escape(versions) or DASH))
    data_table = _plain(("task", "source", "runs", "sha256 of each split"), sources)
    env_table = _plain(("runs", "environment", "packages"), environments)
    return (
        '<section id="provenance"><h2>Provenance</h2>'
        f"<details open><summary>Data</summary>{data_table}</details>"
        f"<details open><summary>Environments</summary>{env_table}</details></section>"
    )


def _plain(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    table = f'<table class="plain"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>'


class Table:
    """A grid as a section of the page."""

    def __init__(self, grid: Grid, identity: str, panels: Panels) -> None:
        self.grid, self.identity, self.panels = grid, identity, panels
        self.footnotes = Footnotes()
        self.decimals = {column: digits(grid, column) for column in grid.columns}
        self.styles = {column: self._style(column) for column in grid.columns}

    def _style(self, column: Column) -> str:
        """Number format of a column: as in the other formats, or scientific if values are below 0.01."""
        places = [row.places[column] for row in self.grid.rows if column in row.places]
        largest = max((abs(score.mean) for place in places for score in place.scores.values()), default=1.0)
        return ".2e" if 0 < largest < 0.01 else f".{self.decimals[column]}f"

    def html(self) -> str:
        """Render the section: title, table and legend."""
        grid = self.grid
        rows = "\n".join(map(self._row, grid.rows))  # first, as it collects the footnotes
        return (
            f'<section id="{self.identity}" data-own="{grid.epoch}" data-epoch="{grid.epoch}">\n'
            f'<h2>{escape(grid.title)}</h2>\n<div class="scroll" role="region" tabindex="0" '
            f'aria-label="{escape(grid.title)}">\n<table>\n<thead><tr>{self._heads()}</tr></thead>\n'
            f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n{self._legend()}\n</section>"
        )

    def _heads(self) -> str:
        fixed = [(f"{name}</button>", name, "ascending") for name in ("method", "trainable")]
        measured = [
            (
                f"{escape(c.head)}</button><br><small>{escape(c.split)}</small>",
                self.grid.head(c),
                "descending" if c.higher_is_better else "ascending",
            )
            for c in self.grid.columns
        ]
        return "".join(
            f'<th scope="col" aria-sort="none" data-first="{first}" data-name="{escape(name)}">'
            f'<button type="button" class="sort">{shown}</th>'
            for shown, name, first in [*fixed, *measured]
        )

    def _row(self, row: Row) -> str:
        sizes = " / ".join(f"{size:,}" for size in row.trainable) or DASH
        value = f' data-value="{min(row.trainable)}"' if row.trainable else ""
        paper = f'<span class="paper">paper {escape(row.printed_trainable)}</span>' if row.printed_trainable else ""
        cells = "".join(self._cell(row.places.get(column), column) for column in self.grid.columns)
        label = escape(row.label)
        return f'<tr><th scope="row" data-text="{label}">{label}</th><td{value}>{sizes}{paper}</td>{cells}</tr>'

    def _cell(self, place: Place | None, column: Column) -> str:
        if place is None:
            return f'<td class="dash">{DASH}</td>'
        values = "".join(f' data-{epoch}="{self._centre(score)!r}"' for epoch, score in place.scores.items())
        shown = "".join(f'<span class="at-{epoch}">{self._score(place, column, epoch)}</span>' for epoch in EPOCHS)
        if place.records or place.ended or place.scores or (place.printed is not None and place.printed.note):
            number = self.panels.add(place, self._lines(place, column))
            shown = f'<button type="button" class="place" aria-haspopup="dialog" data-place="{number}">{shown}</button>'
        ended = "".join(
            f'<span class="paper">{escape(status)} (n={n})</span>' for status, n in place.unfinished.items()
        )
        return f"<td{values}>{shown}{ended}{self._paper(place, column)}{_elsewhere(place)}</td>"

    def _centre(self, score: Score) -> float:
        return score.median if self.grid.aggregate == "median" else score.mean

    def _score(self, place: Place, column: Column, epoch: Epoch) -> str:
        score = place.scores.get(epoch)
        if score is None:
            return f'<span class="dash">{DASH}</span>'
        value = number(self._centre(score), self.styles[column])
        against = place.against if epoch == self.grid.epoch else None
        if against is not None and against.holds:
            value = f"<strong>{value}</strong>" if against.better else f"{value} †"
        spread = "" if score.sd is None else f' <span class="sd">± {number(score.sd, self.styles[column])}</span>'
        tip = interval(score, self.styles[column])
        tip = f'<span class="tip">{tip}</span>' if tip else ""
        return f'{value}{spread} <span class="n">(n={score.n})</span>{tip}'

    def _paper(self, place: Place, column: Column) -> str:
        """The printed number, and at the table's own epoch the verdict."""
        if place.printed is None:
            return ""
        text = f"paper {printed_text(place, self.decimals[column])}"
        if (verdict := place.verdict) is not None:
            letters = self.footnotes.mark(verdict.reasons)
            links = ",".join(f'<a href="#{self.identity}-{x}">{x}</a>' for x in letters.split(",") if x)
            mark = f'<span class="{CLASSES[verdict.mark]}">{verdict.mark}</span>' + (f" [{links}]" if links else "")
            text += f'<span class="own">{signed(verdict.difference, self.decimals[column])} {mark}</span>'
        return f'<span class="paper">{text}</span>'

    def _lines(self, place: Place, column: Column) -> list[str]:
        """The first lines of a cell's panel."""
        style, decimals, lines = self.styles[column], self.decimals[column], []
        for epoch, score in ((epoch, place.scores.get(epoch)) for epoch in EPOCHS):
            if score is not None:
                spread = "" if score.sd is None else f" ± {number(score.sd, style)}"
                parts = [f"{self.grid.aggregate} {number(self._centre(score), style)}{spread}", f"n = {score.n}"]
                lines.append(
                    f"{epoch.capitalize()} epoch: {', '.join(filter(None, [*parts, interval(score, style)]))}."
                )
        if place.printed is not None:
            note = f" ({place.printed.note})" if place.printed.note else ""
            lines.append(f"Paper: {printed_text(place, decimals)}{note}.")
        if (verdict := place.verdict) is not None:
            reasons = f": {'; '.join(verdict.reasons)}" if verdict.reasons else ""
            gap = signed(verdict.difference, decimals)
            lines.append(f"Ours minus the paper’s, {self.grid.epoch} epoch: {gap}, {verdict.mark}{reasons}.")
        if (against := place.against) is not None:
            p = "" if against.p is None else f", p = {against.p:.3g} after Holm’s correction"
            holds = "holds" if against.holds else "does not hold"
            gap = signed(against.difference, decimals)
            lines.append(f"Against {against.baseline}: {gap}, {against.test}{p}; the difference {holds}.")
        lines += [f"Runs that ended with status {status}: {count}." for status, count in place.unfinished.items()]
        if place.other_settings:
            lines.append(f"Runs with other settings, not included: {place.other_settings}.")
        return lines

    def _legend(self) -> str:
        lines = "".join(f"<li>{escape(line)}</li>" for line in notes(self.grid, Footnotes()))
        for line in self.footnotes.lines():
            lines += f'<li id="{self.identity}-{line[1 : line.index("]")]}">{escape(line)}</li>'
        return f'<ul class="note">{lines}</ul>' if lines else ""


def _elsewhere(place: Place) -> str:
    """Results that other papers report."""
    text = elsewhere_text(place)
    return f'<span class="paper">elsewhere {escape(text)}</span>' if text else ""


def number(value: float, style: str) -> str:
    """Format a number with a typographic minus."""
    return f"{value:{style}}".replace("-", "−")


def interval(score: Score, style: str) -> str:
    """The 95 % interval as text; empty if there is none."""
    if score.low is None or score.high is None:
        return ""
    return f"95 % interval {number(score.low, style)} to {number(score.high, style)}"
