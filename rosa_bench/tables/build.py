"""All tables of a collection of records: those of suites first, then what belongs to none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rosa_bench.records.collect import Collection
from rosa_bench.suite.plan import Suite
from rosa_bench.tables.backbone_table import others
from rosa_bench.tables.elsewhere import Described, with_elsewhere
from rosa_bench.tables.grid import Epoch, Grid
from rosa_bench.tables.suite_table import SuiteTable


def build(
    found: Collection,
    suites: Mapping[str, Suite],
    epoch: Epoch | None = None,
    baseline: str | None = None,
    elsewhere: bool = False,
) -> list[Grid]:
    """All tables, those of suites first; `epoch` and `baseline` replace the suites' own. Rows are not compared yet.

    With `elsewhere` places hold what other papers report.
    """
    grids, taken = [], set()
    asked: dict[str, Mapping[tuple[str, str], Described]] = {}
    for name, suite in suites.items():
        table = SuiteTable(name, suite, epoch or suite.epoch)
        mine = table.take(found.groups)
        if mine:
            grids.append(table.grid())
            asked[name] = table.described()
            taken |= mine
    grids += others([group for group in found.groups if id(group) not in taken], epoch or "last")
    if elsewhere:
        grids = [with_elsewhere(grid, asked.get(grid.name, {})) for grid in grids]
    return [dataclasses.replace(grid, baseline=baseline) for grid in grids] if baseline else grids
