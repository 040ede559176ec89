"""One suite's table: rows as its blocks and its paper have them, in each place the runs nearest to what is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rosa_bench.metrics import traits
from rosa_bench.records.collect import Group
from rosa_bench.suite import plan
from rosa_bench.tables import papers
from rosa_bench.tables.elsewhere import Described
from rosa_bench.tables.grid import Column, Epoch, Grid, Place, Printed, Row
from rosa_bench.tables.matching import (
    PUBLISHED_CODE,
    Target,
    differences,
    incomparable,
    named_first,
    other_model,
    started_for,
    targets,
)
from rosa_bench.tables.place_scores import decimals, place, shown, verdict

Chosen = tuple[Group, Target, int]  # runs, where they stand, how many others stand there under other settings


@dataclass
class SuiteTable:
    """One suite's table while it is made."""

    name: str
    suite: plan.Suite
    epoch: Epoch
    targets: list[Target] = field(default_factory=list)
    chosen: dict[tuple[str, str], Chosen] = field(default_factory=dict)  # by row and task

    def __post_init__(self) -> None:
        paper, table = self.suite.paper, self.suite.table
        self.printed = papers.reported(paper, table) if paper and table else []
        models = {cell.model for cell in self.printed}
        self.targets = targets(self.suite, several_models=len(models) > 1)
        self.columns = [self._column(column) for column in self._asked()]

    def _asked(self) -> list[tuple[str, str | None, str | None]]:
        if self.suite.columns:
            return [(column.task, column.metric, column.split) for column in self.suite.columns]
        return [(task, None, None) for task in dict.fromkeys(target.where[0] for target in self.targets)]

    def _column(self, asked: tuple[str, str | None, str | None]) -> Column:
        name, metric, split = asked
        task = next(target.cell.run.task for target in self.targets if target.where[0] == name)
        metric = metric or task.primary
        judged = task.judged_split
        better = task.higher_is_better if metric == task.primary else traits(metric)[1]
        return Column(name, metric, split or judged, better)

    def take(self, groups: Iterable[Group]) -> set[int]:
        """Put into each place the group nearest to what is asked for; returns the ids of those that stand in one."""
        near: dict[tuple[str, str, str], list[Target]] = {}
        for target in self.targets:
            near.setdefault(target.where, []).append(target)
        candidates: dict[tuple[str, str], list[tuple[int, int, Group, Target]]] = {}
        for group in groups:
            for off, target in self._fitting(group, near):
                where = (target.row, target.where[0])
                candidates.setdefault(where, []).append((off, -len(group.records), group, target))
        for where, found in candidates.items():
            found.sort(key=lambda item: item[:2])
            _, _, group, target = found[0]
            self.chosen[where] = group, target, sum(len(other.records) for _, _, other, _ in found[1:])
        if not self.suite.paper and len({row for row, _ in candidates}) < 2:
            return set()  # a single method is no table: its runs stand among the others
        return {id(group) for group, _, _ in self.chosen.values()}

    def _fitting(self, group: Group, near: Mapping[tuple[str, str, str], list[Target]]) -> list[tuple[int, Target]]:
        """The places of a group: of the same task, model and method, or that it was started for; the nearest."""
        record = group.first
        cell = started_for(record, self.name)
        own = [t for t in self.targets if t.name == cell and t.where[0] == record.task] if cell else []
        found = [t for t in own or near.get(group.where, []) if t.says_true(group)]
        off = [(len(differences(group, target)), target) for target in found]
        least = min((count for count, _ in off), default=0)
        if least and not own and not self.suite.paper:
            return []  # without a paper beside it a table is of one setting only
        return [(count, target) for count, target in off if count == least]

    def grid(self) -> Grid:
        """The table, without comparisons between its rows."""
        suite = self.suite
        notes = self._notes()
        bare = Grid(self.name, suite.title, self.columns, (), self.epoch, suite.aggregate, suite.baseline, notes)
        rows: dict[str, Row] = {}
        for cell in self.printed:
            rows.setdefault(self._label(cell), Row(self._label(cell), (), cell.trainable_params or ""))
        for target in self.targets:
            rows.setdefault(target.row, Row(target.row))
        filled = [self._row(row, bare) for row in rows.values()]
        kept = [row for row in filled if self._worth_showing(row)]
        return self._without_empty_columns(dataclasses.replace(bare, rows=kept))

    def described(self) -> dict[tuple[str, str], Described]:
        """The run that is asked for in each place, by row and task."""
        return {
            (t.row, t.where[0]): Described(t.cell.run.method.name, t.cell.run.to_dict()["method"], t.model, t.variant)
            for t in self.targets
        }

    def _without_empty_columns(self, grid: Grid) -> Grid:
        """Without tasks that have no run in any row, unless the suite itself lists its columns."""
        empty = [column for column in grid.columns if not any(shown(row.places[column]) for row in grid.rows)]
        if self.suite.columns or not empty:
            return grid
        columns = [column for column in grid.columns if column not in empty]
        names = ", ".join(column.task for column in empty)
        return dataclasses.replace(grid, columns=columns, notes=[*grid.notes, f"Without any run so far: {names}."])

    def _worth_showing(self, row: Row) -> bool:
        """Whether there is anything to print that no other row has: without runs, published code repeats its paper."""
        repeated = row.label.endswith(PUBLISHED_CODE)
        return any(p.scores or p.unfinished if repeated else shown(p) for p in row.places.values())

    def _label(self, cell: papers.Reported) -> str:
        several = len({other.model for other in self.printed}) > 1
        return f"{cell.method}, {cell.model}" if several else cell.method

    def _row(self, row: Row, grid: Grid) -> Row:
        places, sizes = {}, set()
        every: list[plan.Column | None] = [*self.suite.columns] or [None] * len(self.columns)
        for column, asked in zip(self.columns, every, strict=True):
            printed = self._printed(row.label, column, asked)
            found = self.chosen.get((row.label, column.task))
            if found is None:
                own = Place(printed=printed)
            else:
                group, target, others = found
                own = place(group, column, target.variant, grid.aggregate, others)
                sizes |= {record.params["trainable"] for record in own.records}
                if printed is not None:
                    scored = len(own.scores[grid.epoch].by_seed) if grid.epoch in own.scores else 0
                    why = [*incomparable(group, target, self.suite, scored), *self._always(grid, target, asked)]
                    judged = verdict(own, printed, grid, why, len(self.suite.seeds))
                    own = dataclasses.replace(own, printed=printed, verdict=judged)
            places[column] = own
        return dataclasses.replace(row, trainable=tuple(sorted(sizes)), places=places)

    def _printed(self, row: str, column: Column, asked: plan.Column | None) -> Printed | None:
        task = (asked.reported_task if asked else None) or column.task
        metric = (asked.reported_metric if asked else None) or column.metric
        alike = [cell for cell in self.printed if (cell.task, cell.metric) == (task, metric) and cell.value is not None]
        cell = next((cell for cell in alike if self._label(cell) == row.removesuffix(PUBLISHED_CODE)), None)
        if cell is None or cell.value is None:
            return None
        scale = asked.reported_scale if asked else 1.0
        value, *others = [round(c.value * scale, 9) for c in (cell, *alike) if c.value is not None]
        std = None if cell.std is None else round(cell.std * scale, 9)
        return Printed(value, std, max(map(decimals, others)), cell.note or "")

    def _always(self, grid: Grid, target: Target, asked: plan.Column | None) -> list[str]:
        """What no run of ours shares with the paper, as the suite says."""
        said = [self.suite.incomparable, target.cell.block.incomparable, asked.incomparable if asked else None]
        theirs = self.suite.epoch if target.cell.published_code else self.suite.printed_epoch or self.suite.epoch
        rule = [f"other selection rule (the {grid.epoch} epoch, not the {theirs})"] if grid.epoch != theirs else []
        return [*filter(None, said), *rule]

    def _notes(self) -> list[str]:
        suite = self.suite
        rule = {"last": "the last epoch", "best": "the best epoch of each run on the selection split"}[self.epoch]
        centre = {"mean": "Mean ± standard deviation", "median": "Median ± standard deviation"}[suite.aggregate]
        asked = f"the suite asks for {len(suite.seeds)}" if len(suite.seeds) > 1 else "the suite asks for one"
        lines = [f"{centre} over n seeds at {rule}; {asked}."]
        if suite.paper and suite.table:
            ran = f", run on {suite.hardware}" if suite.hardware else ""
            lines.append(f"Printed values: {suite.paper}, {suite.table}{ran} (results/papers).")
        if not suite.paper and (off := self._other_settings()):
            lines.append(f"Some runs are not as the suite asks: {off}.")
        return [*lines, *suite.notes]

    def _other_settings(self) -> str:
        """In what shown runs differ from what the suite asks; of one with a paper a mark in each place says so."""
        named = (other_model(group, t) + differences(group, t) for group, t, _ in self.chosen.values())
        return named_first(sorted({reason for reasons in named for reason in reasons}))
