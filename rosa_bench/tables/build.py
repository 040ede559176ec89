"""Builds all tables of a collection of records: suite tables first, then tables of the remaining runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rosa_bench.records.collect import Collection, Group
from rosa_bench.suite.plan import Suite
from rosa_bench.tables.backbone_table import others
from rosa_bench.tables.grid import Epoch, Grid
from rosa_bench.tables.matching import is_searched
from rosa_bench.tables.other_papers import Described, with_elsewhere
from rosa_bench.tables.rate_searches import search_notes
from rosa_bench.tables.suite_table import SuiteTable


def build(
    collection: Collection,
    suites: Mapping[str, Suite],
    epoch: Epoch | None = None,
    baseline: str | None = None,
    elsewhere: bool = False,
) -> list[Grid]:
    """Build all tables, suite tables first, without comparisons between rows.

    `epoch` and `baseline` override the suites' own. With `elsewhere`, cells include the results of other papers.
    Runs of a search over settings are in no table: they are scored on rows held out of the training split.
    """
    groups = [group for group in collection.groups if not is_search(group)]
    searched = [record for group in collection.groups if is_search(group) for record in group.all_records]
    finals = [record for group in groups for record in group.records.values() if is_searched(record)]
    grids, used = [], set()
    described: dict[str, Mapping[tuple[str, str], Described]] = {}
    for name, suite in suites.items():
        table = SuiteTable(suite, epoch or suite.epoch)
        group_ids = table.take(groups)
        if group_ids:
            grid = table.grid()
            notes = [*grid.notes, *search_notes(searched, name, suite.epoch, finals)]
            grids.append(dataclasses.replace(grid, notes=notes))
            described[name] = table.described()
            used |= group_ids
    grids += others([group for group in groups if id(group) not in used], epoch or "last")
    if elsewhere:
        grids = [with_elsewhere(grid, described.get(grid.name, {})) for grid in grids]
    return [dataclasses.replace(grid, baseline=baseline) for grid in grids] if baseline else grids


def is_search(group: Group) -> bool:
    """Whether runs belong to a search over settings, and so were scored on a share of the training rows."""
    return group.first.config["task"].get("tune_share") is not None
