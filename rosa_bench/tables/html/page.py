"""Renders the tables as a self-contained HTML file: sortable, with the runs of each cell next to it, and the plots.

The page loads nothing: a content security policy forbids that and any script but its own. Without JavaScript it shows
static tables. Values from records are always text, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rosa_bench.records.record import Record
from rosa_bench.system.console import counted
from rosa_bench.tables.against_baseline import is_baseline
from rosa_bench.tables.cells import IMPROVING, Footnotes, digits, elsewhere_text, notes, printed_text, signed
from rosa_bench.tables.costs import CostColumn, cost_columns
from rosa_bench.tables.figures.figures import Plot
from rosa_bench.tables.grid import DASH, Column, Epoch, Grid, Place, Row, Score
from rosa_bench.tables.html.details import EPOCHS, Panels
from rosa_bench.tables.layout import headed, kinds, rows_with, usual_n

SHOWN = 20  # most remarks on the page
CLASSES = {"matched": "matched", "off": "off", "not comparable": "other"}


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and what the runs say about it, as text."""

    number: int
    sentence: str
    paper: str  # its numbers, and where they are printed
    ours: str  # the effect that decides, with its interval
    verdict: str
    word: str  # of the verdict, without its reason
    lines: Sequence[str]  # every comparison
    records: Sequence[Record]


WORDS = {"holds": "matched", "does not hold": "off"}  # classes of verdicts


def page(
    grids: Sequence[Grid],
    plots: Sequence[Plot] = (),
    remarks: Sequence[str] = (),
    claims: Mapping[str, Sequence[Claim]] | None = None,
    claim_notes: Sequence[str] = (),
) -> str:
    """Render the page. `remarks` are general notes, such as which records were omitted.

    `claims` maps the title of a suite to its verdicts; the page opens with them and with `claim_notes`.

    Raises:
        OSError: if the PNG of a plot cannot be read.
    """
    panels = Panels()
    opening = _claims(claims or {}, claim_notes, panels)
    tables = [Table(grid, f"table-{i}", panels).html() for i, grid in enumerate(grids)]
    here = Path(__file__).parent
    style, script = (here.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    links = [("claims", "Claims")] if opening else []
    links += [(f"table-{i}", grid.title) for i, grid in enumerate(grids)]
    links += [("plots", "Plots")] if plots else []
    links += [("provenance", "Provenance")] if panels.environments else []
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "summary": f"{counted(len(grids), 'table')} from {counted(sum(panels.environments.values()), 'run')}.",
        "remarks": _remarks(remarks),
        "contents": "\n".join(f'<li><a href="#{target}">{escape(title)}</a></li>' for target, title in links),
        "claims": opening,
        "tables": "\n".join(tables),
        "plots": f'<section id="plots"><h2>Plots</h2>{"".join(map(_figure, plots))}</section>' if plots else "",
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


def _claims(claims: Mapping[str, Sequence[Claim]], notes: Sequence[str], panels: Panels) -> str:
    """The verdicts of each suite, linked to the runs behind them."""
    tables = []
    heads = "".join(f'<th scope="col" data-name="{name}">{name}</th>' for name in ("claim", "paper", "ours", "verdict"))
    for title, judged in claims.items():
        rows = []
        for claim in judged:
            number = panels.add_runs(claim.records, [claim.sentence, *claim.lines])
            verdict = f'<span class="{WORDS.get(claim.word, "other")}">{escape(claim.verdict)}</span>'
            button = (
                f'<button type="button" class="place" aria-expanded="false" data-place="{number}">{verdict}</button>'
            )
            cells = f"<td>{escape(claim.paper)}</td><td>{escape(claim.ours)}</td><td>{button}</td>"
            sentence = f"{claim.number}. {escape(claim.sentence)}"
            rows.append(f'<tr><th scope="row" data-text="claim {claim.number}">{sentence}</th>{cells}</tr>')
        tables.append(
            f'<h3>{escape(title)}</h3>\n<div class="beside"><div class="scroll claims" role="region" tabindex="0" '
            f'aria-label="Claims, {escape(title)}">\n<table><thead><tr>{heads}</tr></thead>\n<tbody>\n'
            + "\n".join(rows)
            + "\n</tbody></table>\n</div></div>"
        )
    if not tables:
        return ""
    return f'<section id="claims"><h2>Do the papers’ claims hold?</h2>\n{"".join(tables)}{_remarks(notes)}</section>'


def _figure(plot: Plot) -> str:
    source = f"data:image/png;base64,{base64.b64encode(plot.png.read_bytes()).decode()}"
    image = f'<img src="{source}" alt="{escape(plot.alt)}">'
    return f"<figure>{image}<figcaption>{escape(plot.caption)}</figcaption></figure>"


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
    """A grid as a section of the page, with a table for each kind of task."""

    def __init__(self, grid: Grid, identity: str, panels: Panels) -> None:
        self.grid, self.identity, self.panels = grid, identity, panels
        self.footnotes = Footnotes()
        self.usual = usual_n(grid)
        self.base = next((row for row in grid.rows if is_baseline(row, grid.baseline)), None)
        self.decimals = {column: digits(grid, column) for column in grid.columns}
        self.styles = {column: self._style(column) for column in grid.columns}
        self.costs = {column: cost_columns(grid, [column]) for column in grid.columns}
        self.largest = {(column, epoch): self._largest(column, epoch) for column in grid.columns for epoch in EPOCHS}

    def _style(self, column: Column) -> str:
        """Number format of a column: as in the other formats, or scientific if values are below 0.01."""
        places = [row.places[column] for row in self.grid.rows if column in row.places]
        largest = max((abs(score.mean) for place in places for score in place.scores.values()), default=1.0)
        return ".2e" if 0 < largest < 0.01 else f".{self.decimals[column]}f"

    def html(self) -> str:
        """Render the section: title, tables and legend."""
        grid = self.grid
        titled = kinds(grid)
        tables = "\n".join(
            self._table(columns, title if len(titled) > 1 else "") for title, columns in titled.items()
        )  # first, as they collect the footnotes
        return (
            f'<section id="{self.identity}" data-own="{grid.epoch}" data-epoch="{grid.epoch}">\n'
            f"<h2>{escape(grid.title)}</h2>\n{tables}\n{self._legend()}\n</section>"
        )

    def _table(self, columns: Sequence[Column], title: str) -> str:
        """The table of some columns; the runs of a cell open next to it."""
        costs = cost_columns(self.grid, columns)
        rows = []
        for heading, members in headed(rows_with(self.grid, columns)):
            if heading:
                width = 1 + len(costs) + len(columns)
                head = f'<th scope="rowgroup" colspan="{width}"><span>{escape(heading)}</span></th>'
                rows.append(f'<tr class="group">{head}</tr>')
            rows += [self._row(row, costs, columns) for row in members]
        caption = f"{self.grid.title}: {title}" if title else self.grid.title
        return (
            (f"<h3>{escape(title)}</h3>\n" if title else "")
            + f'<div class="beside"><div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
            + f"<table>\n<thead><tr>{self._heads(costs, columns)}</tr></thead>\n<tbody>\n"
            + "\n".join(rows)
            + "\n</tbody>\n</table>\n</div></div>"
        )

    def _heads(self, costs: Sequence[CostColumn], columns: Sequence[Column]) -> str:
        heads = [("method", "method", "", "ascending")]
        heads += [(c.measure.name, c.head, c.unit, _first(c.measure.higher_is_better)) for c in costs]
        heads += [
            (c.task, self.grid.head(c), f"{c.metric} {c.split}".strip(), _first(c.higher_is_better)) for c in columns
        ]
        return "".join(
            f'<th scope="col" aria-sort="none" data-first="{first}" data-name="{escape(name)}">'
            f'<button type="button" class="sort">{escape(shown)}</button>'
            + "".join(f"<br><small>{escape(word)}</small>" for word in small.split())
            + "</th>"
            for shown, name, small, first in heads
        )

    def _row(self, row: Row, costs: Sequence[CostColumn], columns: Sequence[Column]) -> str:
        values = (cost.values[row.label] for cost in costs)
        sorts = (f' data-value="{statistics.fmean(own)!r}"' if own else "" for own in values)
        cells = "".join(
            f'<td class="cost"{sort}>{escape(cost.cell(row))}</td>' for cost, sort in zip(costs, sorts, strict=True)
        )
        cells += "".join(self._cell(row, column) for column in columns)
        label = escape(row.label)
        shown = label.replace("_", "_<wbr>")  # where narrow screens may break it
        return f'<tr><th scope="row" data-text="{label}">{shown}</th>{cells}</tr>'

    def _cell(self, row: Row, column: Column) -> str:
        if column not in row.places:
            return f'<td class="dash">{DASH}</td>'
        place = row.places[column]
        values = "".join(f' data-{epoch}="{self.grid.center(score)!r}"' for epoch, score in place.scores.items())
        shades = " ".join(filter(None, (self._shade(row, column, epoch) for epoch in EPOCHS)))
        shown = "".join(f'<span class="at-{epoch}">{self._score(place, column, epoch)}</span>' for epoch in EPOCHS)
        if place.records or place.ended or place.scores or (place.printed is not None and place.printed.note):
            number = self.panels.add(place, self._lines(row, column))
            shown = f'<button type="button" class="place" aria-expanded="false" data-place="{number}">{shown}</button>'
        ended = "".join(
            f'<span class="paper">{escape(status)} (n={n})</span>' for status, n in place.unfinished.items()
        )
        shade = f' class="{shades}"' if shades else ""
        return f"<td{shade}{values}>{shown}{ended}{self._paper(place, column)}{_elsewhere(place)}</td>"

    def _difference(self, row: Row, column: Column, epoch: Epoch) -> float | None:
        """A cell's score minus the baseline's; None without either, and for the baseline itself."""
        if self.base is None or row is self.base:
            return None
        own, other = (r.place(column).scores.get(epoch) for r in (row, self.base))
        return None if own is None or other is None else self.grid.center(own) - self.grid.center(other)

    def _largest(self, column: Column, epoch: Epoch) -> float:
        """The largest absolute difference from the baseline in a column."""
        return max((abs(self._difference(row, column, epoch) or 0.0) for row in self.grid.rows), default=0.0)

    def _shade(self, row: Row, column: Column, epoch: Epoch) -> str:
        """The class of a cell that differs from the baseline: better or worse, in three strengths.

        1: the difference was not tested or does not hold; 2: it holds; 3: it also exceeds half the column's largest.
        """
        difference = self._difference(row, column, epoch)
        if not difference:
            return ""
        against = row.places[column].against if epoch == "last" else None
        large = 2 * abs(difference) > self.largest[column, epoch]
        strength = 1 if against is None or not against.holds else 2 + large
        direction = "better" if (difference > 0) == column.higher_is_better else "worse"
        return f"{epoch}-{direction}-{strength}"

    def _score(self, place: Place, column: Column, epoch: Epoch) -> str:
        score = place.scores.get(epoch)
        if score is None:
            return f'<span class="dash">{DASH}</span>'
        value = number(self.grid.center(score), self.styles[column])
        against = place.against if epoch == self.grid.epoch else None
        if against is not None and against.holds:
            value = f"<strong>{value}</strong>" if against.better else f"{value} †"
        spread = "" if score.sd is None else f' <span class="sd">± {number(score.sd, self.styles[column])}</span>'
        n = "" if score.n == self.usual else f' <span class="n">(n={score.n})</span>'
        mark = f' <abbr title="still improving">{IMPROVING}</abbr>' if place.improving else ""
        tip = interval(score, self.styles[column])
        tip = f'<span class="tip">{tip}</span>' if tip else ""
        return f"{value}{spread}{n}{mark}{tip}"

    def _paper(self, place: Place, column: Column) -> str:
        """The printed number, and at the table's own epoch the verdict."""
        if place.printed is None:
            return ""
        text = f"paper {printed_text(place.printed, self.decimals[column])}"
        if (verdict := place.verdict) is not None:
            letters = self.footnotes.mark(verdict.reasons)
            links = ",".join(f'<a href="#{self.identity}-{x}">{x}</a>' for x in letters.split(",") if x)
            mark = f'<span class="{CLASSES[verdict.mark]}">{verdict.mark}</span>' + (f" [{links}]" if links else "")
            text += f'<span class="own">{signed(verdict.difference, self.decimals[column])} {mark}</span>'
        return f'<span class="paper">{text}</span>'

    def _lines(self, row: Row, column: Column) -> list[str]:
        """The first lines of a cell's panel."""
        place, style, decimals, lines = row.places[column], self.styles[column], self.decimals[column], []
        for epoch in EPOCHS:
            if (score := place.scores.get(epoch)) is not None:
                spread = "" if score.sd is None else f" ± {number(score.sd, style)}"
                parts = [f"{self.grid.aggregate} {number(self.grid.center(score), style)}{spread}", f"n = {score.n}"]
                lines.append(
                    f"{epoch.capitalize()} epoch: {', '.join(filter(None, [*parts, interval(score, style)]))}."
                )
        if place.printed is not None:
            note = f" ({place.printed.note})" if place.printed.note else ""
            lines.append(f"Paper: {printed_text(place.printed, decimals)}{note}.")
        if (verdict := place.verdict) is not None:
            reasons = f": {'; '.join(verdict.reasons)}" if verdict.reasons else ""
            gap = signed(verdict.difference, decimals)
            lines.append(f"Ours minus the paper’s, {self.grid.epoch} epoch: {gap}, {verdict.mark}{reasons}.")
        if (against := place.against) is not None:
            p = "" if against.p is None else f", p = {against.p:.3g} after Holm’s correction"
            holds = "holds" if against.holds else "does not hold"
            gap = signed(against.difference, decimals)
            lines.append(f"Against {against.baseline}: {gap}, {against.test}{p}; the difference {holds}.")
        elif (difference := self._difference(row, column, self.grid.epoch)) is not None and self.base is not None:
            lines.append(f"Against {self.base.label}: {signed(difference, decimals)}, not tested.")
        if (gain := place.gain) is not None:
            words = "still improving" if gain.improving else "within the spread"
            lines.append(
                f"The last epoch gained {gain.gain:.3g} ({gain.metric} on {gain.split}); the standard deviation over "
                f"seeds is {gain.sd:.3g}: {words}."
            )
        costs = [cost.text(row) for cost in self.costs[column] if cost.values[row.label]]
        lines += [f"Cost: {'; '.join(costs)}."] if costs else []
        lines += [f"Runs that ended with status {status}: {count}." for status, count in place.unfinished.items()]
        if place.other_settings:
            lines.append(f"Runs with other settings, not included: {place.other_settings}.")
        return lines

    def _legend(self) -> str:
        lines = "".join(f"<li>{escape(line)}</li>" for line in notes(self.grid, Footnotes()))
        for line in self.footnotes.lines():
            lines += f'<li id="{self.identity}-{line[1 : line.index("]")]}">{escape(line)}</li>'
        return f'{self._key()}<ul class="note">{lines}</ul>' if lines else self._key()

    def _key(self) -> str:
        """What the shades mean; empty without a baseline."""
        if self.base is None:
            return ""
        steps = [*(f"last-worse-{i}" for i in (3, 2, 1)), *(f"last-better-{i}" for i in (1, 2, 3))]
        swatches = "".join(f'<i class="swatch {step}"></i>' for step in steps)
        return (
            f'<p class="key"><span>worse</span> {swatches} <span>better than {escape(self.base.label)}</span>; '
            "faint: the difference does not hold or was not tested; strong: it holds; strongest: it also exceeds half "
            "of the largest in its column</p>"
        )


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


def _first(higher_is_better: bool) -> str:
    """The order in which a click on a column sorts first: the best value on top."""
    return "descending" if higher_is_better else "ascending"
