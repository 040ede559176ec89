"""Compares every row of a table with its baseline by paired tests on stored predictions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa_bench.errors import UsageError
from rosa_bench.records import predictions
from rosa_bench.records.collect import Collection
from rosa_bench.records.record import Record
from rosa_bench.stats import significance
from rosa_bench.stats.bootstrap import NoStatisticError
from rosa_bench.tables import comparison_cache, paired_tests
from rosa_bench.tables.grid import Against, Column, Grid, Place, Row

SAME = 1e-6  # relative difference of scores below which they count as equal


@dataclass
class Comparer:
    """Compares rows with their baseline and caches the results in `tests` (see `comparison_cache`)."""

    collection: Collection
    tests: dict[str, comparison_cache.Test]
    complaints: list[str]

    def compared(self, grid: Grid) -> Grid:
        """Compare each cell with the baseline of its column; p values are Holm-corrected over a column."""
        baselines = [row for row in grid.rows if is_baseline(row, grid.baseline)]
        if not baselines:
            return grid
        if grid.epoch != "last":
            self.complaints.append(
                f"not compared: {grid.title} reports the best epoch, but predictions are of the last epoch"
            )
            return grid
        base = baselines[0]
        against: dict[tuple[str, Column], Against] = {}
        for column in grid.columns:
            tests = {row.label: self._test(row, base, column) for row in grid.rows if row is not base}
            comparisons = {label: test.comparison for label, test in tests.items() if test is not None}
            adjusted = significance.holm([comparison.p for comparison in comparisons.values()])
            for (label, comparison), p in zip(comparisons.items(), adjusted, strict=True):
                judgement = p, comparison.better(), comparison.holds(p), comparison.test
                against[label, column] = Against(base.label, comparison.difference, *judgement)

        def judged(row: Row, column: Column, place: Place) -> Place:
            return dataclasses.replace(place, against=against.get((row.label, column)))

        return dataclasses.replace(grid.with_places(judged), baseline=base.label if baselines[1:] else grid.baseline)

    def _test(self, row: Row, base: Row, column: Column) -> comparison_cache.Test | None:
        """Compare a cell with the baseline's; None if there is nothing to compare."""
        own, other = row.place(column), base.place(column)
        if "last" not in own.scores or "last" not in other.scores:
            return None
        keys, baseline_keys = ([record.key for record in place.records] for place in (own, other))
        variants = own.variant, other.variant
        identity = comparison_cache.identity(keys, baseline_keys, column.metric, column.split, variants)
        files, baseline_files = self._files(own, column), self._files(other, column)
        content = comparison_cache.content(files, baseline_files)
        cached = self.tests.get(identity)
        if cached is not None and cached.current(content) and is_of_scores(cached.comparison, own, other):
            return cached
        where = f"not compared: {row.label}, {column.head} ({column.split})"
        if content is None:
            absent = [path for path in (*files, *baseline_files) if not path.is_file()]
            if cached is not None:
                self.complaints.append(f"{where}: the cached comparison does not match the scores in these records")
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
        self.tests[identity] = comparison_cache.Test(*names, content=content, comparison=comparison)
        return self.tests[identity]

    def _files(self, place: Place, column: Column) -> list[Path]:
        return [predictions_file(self.collection, r, column.split, place.variant) for r in place.records]

    def _read(self, place: Place, column: Column, paths: Sequence[Path]) -> list[predictions.Predictions]:
        return [
            predictions.read_predictions(path, record.seed, subset_of(column.split, record))
            for record, path in zip(place.records, paths, strict=True)
        ]


def is_of_scores(comparison: paired_tests.Comparison, own: Place, other: Place) -> bool:
    """Whether a comparison's difference matches the scores in the records, up to rounding."""
    ours, theirs = own.scores["last"].mean, other.scores["last"].mean
    close = SAME * max(abs(ours), abs(theirs))
    return math.isclose(comparison.difference, ours - theirs, rel_tol=SAME, abs_tol=close)


def predictions_file(collection: Collection, record: Record, split: str, variant: str) -> Path:
    """The file with the predictions of a run's variant; it exists only where the run was made."""
    ending = f"-{variant}" if variant else ""
    return collection.folder(record) / f"predictions-{file_split(split, record)}{ending}.jsonl.gz"


def file_split(split: str, record: Record) -> str:
    """The split whose file holds the predictions of `split`: a part of a split is in the file of the whole.

    A record that does not list the splits it read can only have parts of the test split.
    """
    wholes = [whole for whole in record.data.get("rows") or ("test",) if split.startswith(f"{whole}_")]
    return split if split in record.data.get("rows", {}) else max(wholes, key=len, default=split)


def subset_of(split: str, record: Record) -> str:
    """The name of a part of a split in the predictions; empty for a whole split."""
    return split.removeprefix(file_split(split, record)).removeprefix("_")


def is_baseline(row: Row, baseline: str | None) -> bool:
    """Whether a row is the baseline, by its label or its method."""
    methods = {record.method for place in row.places.values() for record in place.records}
    return baseline is not None and (row.label == baseline or methods == {baseline})


def known_tests(folders: Sequence[Path]) -> tuple[dict[str, comparison_cache.Test], list[str]]:
    """The comparisons cached in folders and archives, and a message for each file that cannot be read."""
    tests: dict[str, comparison_cache.Test] = {}
    complaints = []
    for folder in folders:
        try:
            tests |= comparison_cache.load_tests(folder)
        except UsageError as error:
            complaints.append(str(error))
    return tests, complaints
