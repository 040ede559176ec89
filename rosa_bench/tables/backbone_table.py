"""Tables of runs outside any suite: one per backbone and data source."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rosa_bench.core.method import Group as MethodGroup
from rosa_bench.errors import UsageError
from rosa_bench.records.collect import Group
from rosa_bench.records.labels import method_label, option_text
from rosa_bench.records.record import Record
from rosa_bench.records.run_key import method_class, model_parts
from rosa_bench.system.files import file_name
from rosa_bench.tables.cell_scores import main_variant, place
from rosa_bench.tables.grid import Column, Epoch, Grid, Place, Row
from rosa_bench.tables.layout import by_group
from rosa_bench.tables.matching import PARTS
from rosa_bench.tables.paired_tests import task_of


def others(groups: Sequence[Group], epoch: Epoch) -> list[Grid]:
    """A table per backbone and data source. A row is a method, or one of its settings if it has several."""
    tables: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        tables.setdefault((group.first.model, str(group.first.data.get("source"))), []).append(group)
    return [_other(model, source, members, epoch) for (model, source), members in sorted(tables.items())]


def _other(model: str, source: str, groups: Sequence[Group], epoch: Epoch) -> Grid:
    columns: dict[str, Column] = {}
    labels: dict[tuple[str, str], list[Group]] = {}
    for group in sorted(groups, key=lambda group: (not group.records, group.first.run_id)):
        record = group.first
        labels.setdefault((method_label(record.config, record.method), record.task), []).append(group)
        if record.task not in columns and (column := _column(record)) is not None:
            columns[record.task] = column
    rows: dict[str, dict[Column, Place]] = {}
    sizes: dict[str, set[int]] = {}
    families: dict[str, MethodGroup] = {}
    for (label, task), members in sorted(labels.items(), key=lambda item: (by_number(item[0][0]), item[0][1])):
        for group, particular in zip(members, particulars(members), strict=True):
            row = f"{label}, {particular}" if particular else label
            if task in columns:
                rows.setdefault(row, {})[columns[task]] = place(group, columns[task], main_variant(group.first))
                families[row] = method_class(group.first.config["method"]).group
                sizes.setdefault(row, set()).update(r.params["trainable"] for r in group.records.values())
    table_rows = by_group(
        [Row(row, tuple(sorted(sizes[row])), "", families[row], places) for row, places in rows.items()]
    )
    note = "Names of methods list the options in which their runs differ."
    title = f"{model} on {source}"
    name = file_name(f"{model}_on_{source.replace(' ', '_')}")
    return Grid(name, title, [columns[task] for task in sorted(columns)], table_rows, epoch, notes=[note])


def _column(record: Record) -> Column | None:
    """The primary metric of a run; for a run without a result, the one it would have had."""
    primary = record.primary
    metric = primary.get("metric", record.config["task"].get("primary"))
    if not isinstance(metric, str):
        return None
    better = bool(primary.get("higher_is_better", True))
    return Column(record.task, metric, str(primary.get("split", "")), better, _kind(record))


def _kind(record: Record) -> str:
    """The title of the kind of a run's task; empty if this version does not accept the task."""
    try:
        return task_of(record.config).kind.title
    except UsageError:
        return ""


def by_number(label: str) -> list[str | int]:
    """Sort key for names that compares the numbers in them by value."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", label))]


def particulars(groups: Sequence[Group]) -> list[str]:
    """For each group, the options in which the groups differ; '' for a single group."""
    flat = [
        {f"{part}.{name}": value for part in PARTS for name, value in group.parts[part].items()}
        | {f"model.{name}": value for name, value in model_parts(group.first.config).items()}
        | {"rows": group.first.data.get("sha256"), "backbone": group.first.facts.get("backbone_hash")}
        | {"start": group.parts.get("start")}
        for group in groups
    ]
    starts = {(group.parts.get("start"), group.parts.get("settings_of_start")) for group in groups}
    if len(starts) > len({start for start, _ in starts}):  # starting runs of one method and task differ in settings
        for options, group in zip(flat, groups, strict=True):
            options["settings_of_start"] = group.parts.get("settings_of_start")
    names = sorted(set().union(*flat))
    differing = [name for name in names if len({str(options.get(name)) for options in flat}) > 1]
    return ["; ".join(option_text(name, options.get(name)) for name in differing) for options in flat]
