"""A suite's table: rows from its blocks and its paper; each cell holds the runs closest to the suite's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from rosa_bench.errors import UsageError, nearest
from rosa_bench.metrics import traits
from rosa_bench.records.collect import Group
from rosa_bench.suite import plan
from rosa_bench.tables import papers
from rosa_bench.tables.against_paper import verdict
from rosa_bench.tables.cell_scores import decimals, place, shown
from rosa_bench.tables.grid import Column, Epoch, Grid, Place, Printed, Row
from rosa_bench.tables.layout import by_group
from rosa_bench.tables.matching import (
    PUBLISHED_CODE,
    Target,
    differences,
    incomparable,
    named_first,
    other_data,
    other_model,
    started_for,
    targets,
)
from rosa_bench.tables.other_papers import Described

Match = tuple[Group, Target, int]  # runs, their cell, number of runs under other settings for the same cell


class SuiteTable:
    """Builder of a suite's table."""

    def __init__(self, suite: plan.Suite, epoch: Epoch) -> None:
        self.suite, self.epoch = suite, epoch
        self.printed = papers.reported(suite.paper, suite.table) if suite.paper and suite.table else []
        self.several_models = len({cell.model for cell in self.printed}) > 1
        self.targets = targets(suite, self.several_models)
        tasks = dict.fromkeys(target.where[0] for target in self.targets)
        self.specs = suite.columns or [plan.Column(task=task) for task in tasks]
        self.columns = [self._column(spec) for spec in self.specs]
        self.matches: dict[tuple[str, str], Match] = {}  # by row and task

    def _column(self, spec: plan.Column) -> Column:
        tasks = {target.where[0]: target.cell.run.task for target in self.targets}
        if spec.task not in tasks:
            fault = f"suite {self.suite.name}: columns has the task {spec.task}, which no cell has"
            raise UsageError(f"{fault}; {nearest(spec.task, tasks)}")
        task = tasks[spec.task]
        metric = spec.metric or task.primary
        better = task.higher_is_better if metric == task.primary else traits(metric)[1]
        return Column(spec.task, metric, spec.split or task.judged_split, better, task.kind.title)

    def take(self, groups: Iterable[Group]) -> set[int]:
        """Fill each cell with the group closest to the suite's settings. Returns the ids of the groups used."""
        by_where: dict[tuple[str, str, str], list[Target]] = {}
        for target in self.targets:
            by_where.setdefault(target.where, []).append(target)
        candidates: dict[tuple[str, str], list[tuple[int, int, Group, Target]]] = {}
        for group in groups:
            for count, target in self._fitting(group, by_where):
                where = (target.row, target.where[0])
                candidates.setdefault(where, []).append((count, -len(group.records), group, target))
        for where, ranked in candidates.items():
            ranked.sort(key=lambda item: item[:2])
            _, _, group, target = ranked[0]
            self.matches[where] = group, target, sum(len(other.records) for _, _, other, _ in ranked[1:])
        if not self.suite.paper and len({row for row, _ in candidates}) < 2:
            return set()  # a single method makes no table; its runs go to the backbone table
        return {id(group) for group, _, _ in self.matches.values()}

    def _fitting(self, group: Group, by_where: Mapping[tuple[str, str, str], list[Target]]) -> list[tuple[int, Target]]:
        """The closest targets of a group, with their numbers of differing options; different data counts as one.

        Candidates are the targets that its runs were started for, or else all of the same task, model and method.
        """
        record = group.first
        cell = started_for(record, self.suite.name)
        own = [t for t in self.targets if t.name == cell and t.where[0] == record.task] if cell else []
        targets = [t for t in own or by_where.get(group.where, []) if t.says_true(group)]
        counts = [(len(differences(group, t)) + len(other_data(group, t)), t) for t in targets]
        least = min((count for count, _ in counts), default=0)
        if least and not own and not self.suite.paper:
            return []  # without a paper, a table shows only the suite's own settings
        return [(count, target) for count, target in counts if count == least]

    def grid(self) -> Grid:
        """Build the table, without comparisons between rows."""
        suite = self.suite
        bare = Grid(
            suite.name,
            suite.title,
            self.columns,
            rows=(),
            epoch=self.epoch,
            aggregate=suite.aggregate,
            baseline=suite.baseline,
            seeds=len(suite.seeds),
            notes=self._notes(),
            pscp=suite.pscp,
        )
        rows: dict[str, Row] = {}
        for cell in self.printed:
            rows.setdefault(self._label(cell), Row(self._label(cell), (), cell.trainable_params or ""))
        for target in self.targets:
            rows.setdefault(target.row, Row(target.row, group=None if self.printed else target.cell.run.method.group))
        filled = by_group([self._row(row, bare) for row in rows.values()])
        rows_shown = [row for row in filled if self._worth_showing(row)]
        return self._without_empty_columns(dataclasses.replace(bare, rows=rows_shown))

    def described(self) -> dict[tuple[str, str], Described]:
        """The run that the suite specifies for each cell, by row and task."""
        return {
            (t.row, t.where[0]): Described(t.cell.run.method.name, t.cell.run.to_dict()["method"], t.model, t.variant)
            for t in self.targets
        }

    def _without_empty_columns(self, grid: Grid) -> Grid:
        """Drop tasks without runs, unless the suite lists its columns explicitly."""
        empty = [column for column in grid.columns if not any(shown(row.places[column]) for row in grid.rows)]
        if self.suite.columns or not empty:
            return grid
        columns = [column for column in grid.columns if column not in empty]
        names = ", ".join(column.task for column in empty)
        return dataclasses.replace(grid, columns=columns, notes=[*grid.notes, f"No runs yet: {names}."])

    def _worth_showing(self, row: Row) -> bool:
        """Whether a row has content of its own; without runs, a published-code row only repeats its paper's row."""
        repeated = row.label.endswith(PUBLISHED_CODE)
        return any(p.scores or p.unfinished if repeated else shown(p) for p in row.places.values())

    def _label(self, cell: papers.Reported) -> str:
        return f"{cell.method}, {cell.model}" if self.several_models else cell.method

    def _row(self, row: Row, grid: Grid) -> Row:
        places, sizes = {}, set()
        for column, spec in zip(self.columns, self.specs, strict=True):
            printed = self._printed(row.label, column, spec)
            match = self.matches.get((row.label, column.task))
            if match is None:
                own = Place(printed=printed)
            else:
                group, target, others = match
                own = place(group, column, target.variant, grid.aggregate, others)
                sizes |= {record.params["trainable"] for record in own.records}
                if printed is not None:
                    scored = len(own.scores[grid.epoch].by_seed) if grid.epoch in own.scores else 0
                    reasons = [*incomparable(group, target, self.suite, scored), *self._always(grid, target, spec)]
                    against_paper = verdict(own, printed, grid, reasons, len(self.suite.seeds))
                    own = dataclasses.replace(own, printed=printed, verdict=against_paper)
            places[column] = own
        return dataclasses.replace(row, trainable=tuple(sorted(sizes)), places=places)

    def _printed(self, row: str, column: Column, spec: plan.Column) -> Printed | None:
        task, metric = spec.reported_task or column.task, spec.reported_metric or column.metric
        alike = [cell for cell in self.printed if (cell.task, cell.metric) == (task, metric) and cell.value is not None]
        cell = next((cell for cell in alike if self._label(cell) == row.removesuffix(PUBLISHED_CODE)), None)
        if cell is None or cell.value is None:
            return None
        value, *others = [round(c.value * spec.reported_scale, 9) for c in (cell, *alike) if c.value is not None]
        std = None if cell.std is None else round(cell.std * spec.reported_scale, 9)
        return Printed(value, std, max(map(decimals, others)), cell.note or "")

    def _always(self, grid: Grid, target: Target, spec: plan.Column) -> list[str]:
        """Reasons that apply to every run of a cell, stated by the suite."""
        stated = [self.suite.incomparable, target.cell.block.incomparable, spec.incomparable]
        theirs = self.suite.epoch if target.cell.published_code else self.suite.printed_epoch or self.suite.epoch
        rule = [f"other selection rule (the {grid.epoch} epoch, not the {theirs})"] if grid.epoch != theirs else []
        return [*filter(None, stated), *rule]

    def _notes(self) -> list[str]:
        suite = self.suite
        lines = []
        if suite.paper and suite.table:
            hardware = f", run on {suite.hardware}" if suite.hardware else ""
            lines.append(f"Printed values: {suite.paper}, {suite.table}{hardware} (results/papers).")
        if differing := self._other_settings():
            lines.append(f"Some runs differ from the suite's settings: {differing}.")
        return [*lines, *suite.notes]

    def _other_settings(self) -> str:
        """How the runs shown differ from the suite's settings. Cells with a printed number state this themselves."""
        compared = [
            {row for row, task in self.matches if task == column.task and self._printed(row, column, spec)}
            for column, spec in zip(self.columns, self.specs, strict=True)
        ]
        per_cell = (
            other_model(group, t) + other_data(group, t) + differences(group, t)
            for (row, task), (group, t, _) in self.matches.items()
            if any(c.task == task and row not in rows for c, rows in zip(self.columns, compared, strict=True))
        )
        return named_first(sorted({reason for reasons in per_cell for reason in reasons}))
