"""Which runs stand in which row of a suite's table, and in what they differ from what the suite asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rosa_bench import papers
from rosa_bench.key import identity_parts, method_name
from rosa_bench.labels import cell_name, method_label, printed_name
from rosa_bench.plan import Cell, Suite, plan
from rosa_bench.record import Record
from rosa_bench.report.collect import Group, as_text

PUBLISHED_CODE = ", published code"  # ends the label of a row with the settings of the authors' code
SHOWN = 4  # differences that are named; the rest is counted


@dataclass(frozen=True)
class Target:
    """A row's place in the column of one task: the run that a suite asks for, and the variant of it that is scored."""

    row: str
    cell: Cell
    variant: str
    parts: Mapping[str, Any]  # of its configuration, as in `Group`
    name: str  # in trackers

    @property
    def model(self) -> str:
        """The backbone that is asked for."""
        return self.cell.run.model.name

    @property
    def where(self) -> tuple[str, str, str]:
        """What a run must share to stand here: task, model and the method's options."""
        return self.cell.run.task.name, self.model, as_text(self.parts["method"])


def targets(suite: Suite, several_models: bool = False) -> list[Target]:
    """Every row and task of a suite once, whatever the seed; the settings that the paper prints first."""
    first = dataclasses.replace(suite, seeds=suite.seeds[:1])
    cells = [cell for code in (False, True) for cell in plan(first, published_code=code)]
    models: dict[str, set[str]] = {}
    for cell in cells:
        models.setdefault(cell.run.task.name, set()).add(cell.run.model.name)
    several_models |= any(len(names) > 1 for names in models.values())
    named = [dataclasses.replace(cell, block=block) for cell in cells for block in (cell.block, *cell.also)]
    return [target for cell in named for target in _of(cell, several_models)]


def _of(cell: Cell, several_models: bool) -> Iterator[Target]:
    run, config = cell.run, cell.run.to_dict()
    names, template = run.method.variants(), cell.block.reported
    for variant in names if "{variant}" in (template or "") else names[-1:]:
        row = printed_name(template, config["method"], variant) if template else method_label(config, method_name(run))
        row += f", {run.model.name.replace('_', '-')}" if several_models else ""
        row += PUBLISHED_CODE if cell.published_code else ""
        yield Target(row, cell, variant, identity_parts(config), cell_name(config))


def started_for(record: Record, suite: str) -> str | None:
    """The cell of a suite that a run was started for, if it was: with other options it may be of another model."""
    tags = [str(tag) for tag in record.config.get("tracker", {}).get("tags") or []]
    if f"suite:{suite}" not in tags:
        return None
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("cell:")), None)


def differences(group: Group, target: Target) -> list[str]:
    """Options in which runs differ from what the suite asks for."""
    found = []
    for part in ("method", "train", "task"):
        own, asked = group.parts[part], target.parts[part]
        names = [name for name in sorted(set(own) | set(asked)) if own.get(name) != asked.get(name)]
        if part == "train" and "max_steps" in names:
            names = [name for name in names if name != "epochs"]  # which max_steps puts out of force
        found += [f"{part}.{name}={_value(own.get(name))}, not {_value(asked.get(name))}" for name in names]
    return found


def _value(value: Any) -> str:
    return "null" if value is None else str(value)


def incomparable(group: Group, target: Target, suite: Suite) -> tuple[str, ...]:
    """Why the scores of a group of runs cannot be held against the paper's; nothing if they can."""
    record, found = group.first, []
    if record.model != target.model:
        found.append(f"other model size ({record.model}, not {target.model})")
    if (rows := other_rows(record)) is not None:
        found.append(f"other data ({rows})")
    if len(group.records) < len(suite.seeds):
        found.append(f"fewer seeds ({len(group.records)} of {len(suite.seeds)})")
    other = differences(group, target)
    if other:
        more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        found.append(f"other settings ({'; '.join(other[:SHOWN])}{more})")
    return tuple(found)


@functools.cache
def released_rows() -> Mapping[str, Mapping[str, int]]:
    """Rows by task and split of the public releases."""
    path = papers.papers_dir() / "releases.yaml"
    rows: Mapping[str, Mapping[str, int]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return rows


def other_rows(record: Record) -> str | None:
    """In what the rows of a run are not those of the public release; None if they are, as far as their number tells."""
    source = str(record.data["source"])
    if source.startswith("embedded"):
        return "embedded rows"
    if source.startswith("hub"):
        return None
    counted, released = record.data.get("rows", {}), released_rows().get(record.task, {})
    off = [
        f"{split} has {counted[split]} rows, {count} in the release"
        for split, count in released.items()
        if counted.get(split, count) != count
    ]
    return "; ".join(off) or None
