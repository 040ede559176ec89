"""Every row of a table against its baseline, by paired tests on the predictions that the runs have stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa_bench.errors import UsageError
from rosa_bench.records import predictions
from rosa_bench.records.collect import Collection
from rosa_bench.stats import significance
from rosa_bench.stats.bootstrap import NoStatisticError
from rosa_bench.tables import comparison_cache, paired_tests
from rosa_bench.tables.grid import Against, Column, Grid, Place, Row

SAME = 1e-6  # of a score: less than that is rounding


@dataclass
class Comparer:
    """Compares, and remembers what was compared: `known` is read from and written to a file (`comparisons`)."""

    found: Collection
    known: dict[str, comparison_cache.Test]
    complaints: list[str]

    def compared(self, grid: Grid) -> Grid:
        """The grid with each place held against the baseline's of its column; p is corrected by Holm over a column."""
        able = [row for row in grid.rows if is_baseline(row, grid.baseline)]
        if able and grid.epoch != "last":
            self.complaints.append(f"not compared: {grid.title} is of the best epoch, predictions of the last one")
        if not able or grid.epoch != "last":
            return grid
        base = able[0]
        against: dict[tuple[str, Column], Against] = {}
        for column in grid.columns:
            found = {row.label: self._test(row, base, column) for row in grid.rows if row is not base}
            tests = {label: test.comparison for label, test in found.items() if test is not None}
            adjusted = significance.holm([comparison.p for comparison in tests.values()])
            for (label, comparison), p in zip(tests.items(), adjusted, strict=True):
                against[label, column] = _against(base.label, comparison, p)
        rows = [
            dataclasses.replace(row, places={c: _with(p, against.get((row.label, c))) for c, p in row.places.items()})
            for row in grid.rows
        ]
        return dataclasses.replace(grid, rows=rows, baseline=base.label if able[1:] else grid.baseline)

    def _test(self, row: Row, base: Row, column: Column) -> comparison_cache.Test | None:
        """The comparison of one place with the baseline's; None where there is nothing to compare."""
        own, other = row.places.get(column), base.places.get(column)
        if own is None or other is None or "last" not in own.scores or "last" not in other.scores:
            return None
        keys, baseline_keys = ([record.key for record in place.records] for place in (own, other))
        variants = own.variant, other.variant
        identity = comparison_cache.identity(keys, baseline_keys, column.metric, column.split, variants)
        files, baseline_files = self._files(own, column), self._files(other, column)
        content = comparison_cache.content(files, baseline_files)
        known = self.known.get(identity)
        if known is not None and known.current(content) and is_of_scores(known.comparison, own, other):
            return known
        where = f"not compared: {row.label}, {column.head} ({column.split})"
        if content is None:
            absent = [path for path in (*files, *baseline_files) if not path.is_file()]
            if known is not None:
                self.complaints.append(f"{where}: what is kept is not of the scores in these records")
            elif len(absent) < len(files) + len(baseline_files):
                self.complaints.append(f"{where}: {absent[0]} is missing")
            return None
        try:
            task = paired_tests.task_of(own.records[0].config)
            method, baseline = self._read(own, column, files), self._read(other, column, baseline_files)
            comparison = paired_tests.compare(task, column.metric, method, baseline)
        except (UsageError, NoStatisticError) as error:
            self.complaints.append(f"{where}: {error}")
            return None
        if not is_of_scores(comparison, own, other):
            self.complaints.append(f"{where}: the predictions do not give the scores in these records")
            return None
        names = row.label, base.label, column.task, column.split
        self.known[identity] = comparison_cache.Test(*names, content=content, comparison=comparison)
        return self.known[identity]

    def _files(self, place: Place, column: Column) -> list[Path]:
        variant = f"-{place.variant}" if place.variant else ""
        name = f"predictions-{file_split(column.split)}{variant}.jsonl.gz"
        return [self.found.folder(record) / name for record in place.records]

    def _read(self, place: Place, column: Column, paths: Sequence[Path]) -> list[predictions.Predictions]:
        subset = column.split.removeprefix(file_split(column.split)).removeprefix("_")
        return [
            predictions.read_predictions(path, record.seed, subset)
            for record, path in zip(place.records, paths, strict=True)
        ]


def is_of_scores(comparison: paired_tests.Comparison, own: Place, other: Place) -> bool:
    """Whether a comparison's difference is the one of the scores in the records, up to rounding."""
    ours, theirs = own.scores["last"].mean, other.scores["last"].mean
    close = SAME * max(abs(ours), abs(theirs))
    return math.isclose(comparison.difference, ours - theirs, rel_tol=SAME, abs_tol=close)


def file_split(split: str) -> str:
    """The split whose file holds a split's predictions: a part of the test split stands in the file of the whole."""
    return "test" if split.startswith("test_") else split


def is_baseline(row: Row, baseline: str | None) -> bool:
    """Whether a row is the one that the others are held against: by its label or its method."""
    methods = {record.method for place in row.places.values() for record in place.records}
    return baseline is not None and (row.label == baseline or methods == {baseline})


def _against(baseline: str, comparison: paired_tests.Comparison, p: float | None) -> Against:
    return Against(baseline, comparison.difference, p, comparison.better(), comparison.holds(p), comparison.test)


def _with(place: Place, against: Against | None) -> Place:
    return place if against is None else dataclasses.replace(place, against=against)


def known_tests(folders: Sequence[Path]) -> tuple[dict[str, comparison_cache.Test], list[str]]:
    """The comparisons that folders and archives hold, and a line for each that cannot be read."""
    known: dict[str, comparison_cache.Test] = {}
    complaints = []
    for folder in folders:
        try:
            known |= comparison_cache.load_tests(folder)
        except UsageError as error:
            complaints.append(str(error))
    return known, complaints
