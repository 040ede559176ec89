"""Which runs stand in which row of a suite's table, and in what they differ from what the suite asks for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rosa_bench.config import papers_dir
from rosa_bench.data.releases import releases
from rosa_bench.records.collect import Group, as_text
from rosa_bench.records.labels import cell_name, method_label, option_text, printed_name
from rosa_bench.records.record import Record
from rosa_bench.records.run_key import identity_parts, method_name
from rosa_bench.suite.plan import Cell, Suite, plan
from rosa_bench.system.strict_json import is_number
from rosa_bench.tables import papers

PUBLISHED_CODE = ", published code"  # ends the label of a row with the settings of the authors' code
ALIKE = 1.25  # times as many parameters or fewer are those of the same backbone; others differ by twice and more
SHOWN = 4  # differences that are named; the rest is counted
PARTS = ("method", "train", "task")  # of a configuration, in which settings differ
MODEL_OPTIONS = {"random_init": False, "dropout": None}  # of a backbone, with what records without them had


@dataclass(frozen=True)
class Target:
    """A row's place in the column of one task: the run that a suite asks for, and the variant of it that is scored."""

    row: str
    cell: Cell
    variant: str
    parts: Mapping[str, Any]  # of its configuration, as in `Group`
    name: str  # in trackers
    told: tuple[tuple[str, str], ...] = ()  # part and name of each option that the row's name says, beside the size

    @property
    def model(self) -> str:
        """The backbone that is asked for."""
        return self.cell.run.model.name

    @property
    def where(self) -> tuple[str, str, str]:
        """What a run must share to stand here: task, model and the method's options."""
        return self.cell.run.task.name, self.model, as_text(self.parts["method"])

    def says_true(self, group: Group) -> bool:
        """Whether runs have the options that the row's name says."""
        return all(group.parts[part].get(name) == self.parts[part].get(name) for part, name in self.told)


def targets(suite: Suite, several_models: bool = False) -> list[Target]:
    """Every row and task of a suite once, whatever the seed; the settings that the paper prints first."""
    first = dataclasses.replace(suite, seeds=suite.seeds[:1])
    cells = [cell for code in (False, True) for cell in plan(first, published_code=code)]
    models: dict[str, set[str]] = {}
    for cell in cells:
        models.setdefault(cell.run.task.name, set()).add(cell.run.model.name)
    several_models |= any(len(names) > 1 for names in models.values())
    named = [dataclasses.replace(cell, block=block) for cell in cells for block in (cell.block, *cell.also)]
    return told_apart([target for cell in named for target in _of(cell, several_models)], several_models)


def _of(cell: Cell, several_models: bool) -> Iterator[Target]:
    run, config = cell.run, cell.run.to_dict()
    names, template = run.method.variants(), cell.block.reported
    for variant in names if "{variant}" in (template or "") else names[-1:]:
        row = printed_name(template, config["method"], variant) if template else method_label(config, method_name(run))
        row += _ending(cell, several_models)
        parts = identity_parts(config)
        if cell.source is not None:
            parts["start"] = f"{cell.source.run.task.name} {method_name(cell.source.run)}"
        yield Target(row, cell, variant, parts, cell_name(config))


def _ending(cell: Cell, several_models: bool) -> str:
    model = f", {cell.run.model.name.replace('_', '-')}" if several_models else ""
    return model + (PUBLISHED_CODE if cell.published_code else "")


def told_apart(found: Sequence[Target], several_models: bool) -> list[Target]:
    """The targets, those of a row that has several cells for a task each in a row that says in what they differ.

    So every rate of a grid and every variant of a method has its own. Rows that a paper names keep their names.
    """
    alike: dict[str, dict[str, list[Target]]] = {}
    for target in found:
        if target.cell.block.reported is None:
            alike.setdefault(target.row, {}).setdefault(target.where[0], []).append(target)
    told = {row: sorted(set().union(*map(_differing, by_task.values()))) for row, by_task in alike.items()}
    return [_telling(target, tuple(told.get(target.row, ())), several_models) for target in found]


def _differing(alike: Sequence[Target]) -> set[tuple[str, str]]:
    """Part and name of the options in which targets differ."""
    names = {(part, name) for target in alike for part in PARTS for name in target.parts[part]}
    return {(p, n) for p, n in names if len({as_text(target.parts[p].get(n)) for target in alike}) > 1}


def _telling(target: Target, told: tuple[tuple[str, str], ...], several_models: bool) -> Target:
    if not told or target.cell.block.reported is not None:
        return target
    ending = _ending(target.cell, several_models)
    said = "; ".join(option_text(f"{part}.{name}", target.parts[part].get(name)) for part, name in told)
    return dataclasses.replace(target, row=f"{target.row.removesuffix(ending)}, {said}{ending}", told=told)


def started_for(record: Record, suite: str) -> str | None:
    """The cell of a suite that a run was started for, if it was: with other options it may be of another model."""
    tags = [str(tag) for tag in record.config.get("tracker", {}).get("tags") or []]
    if f"suite:{suite}" not in tags:
        return None
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("cell:")), None)


def differences(group: Group, target: Target) -> list[str]:
    """Options in which runs differ from what the suite asks for."""
    own, asked = group.first.config["model"], dataclasses.asdict(target.cell.run.model)
    model = [(name, own.get(name, default), asked[name]) for name, default in MODEL_OPTIONS.items()]
    found = [f"model.{name}={_value(value)}, not {_value(other)}" for name, value, other in model if value != other]
    for part in PARTS:
        own, asked = group.parts[part], target.parts[part]
        names = [name for name in sorted(set(own) | set(asked)) if own.get(name) != asked.get(name)]
        if part == "train" and "max_steps" in names:
            names = [name for name in names if name != "epochs"]  # which max_steps puts out of force
        found += [f"{part}.{name}={_value(own.get(name))}, not {_value(asked.get(name))}" for name in names]
    starts = [parts.get("start", "the backbone") for parts in (group.parts, target.parts)]
    return found if starts[0] == starts[1] else [f"started from {starts[0]}, not {starts[1]}", *found]


def _value(value: Any) -> str:
    return "null" if value is None else str(value)


def incomparable(group: Group, target: Target, suite: Suite, seeds: int) -> tuple[str, ...]:
    """Why the scores of a group of runs, `seeds` of them, cannot be held against the paper's; nothing if they can."""
    record, found = group.first, other_model(group, target)
    if (rows := other_rows(record)) is not None:
        found.append(f"other data ({rows})")
    if seeds < len(suite.seeds):
        found.append(f"fewer seeds ({seeds} of {len(suite.seeds)})")
    if other := differences(group, target):
        found.append(f"other settings ({named_first(other)})")
    return tuple(found)


def other_model(group: Group, target: Target) -> list[str]:
    """That runs are of another backbone than is asked for, by its name or, where a paper prints it, by its size."""
    model = group.first.model
    if model != target.model:
        return [f"other model size ({model}, not {target.model})"]
    own, printed = _backbone(group.first), printed_sizes().get(target.model)
    if own is None or printed is None or 1 / ALIKE < own / printed < ALIKE:
        return []
    return [f"other model size ({own / 1e6:,.0f}M parameters, {target.model} has {printed / 1e6:,.0f}M)"]


def _backbone(record: Record) -> float | None:
    """Parameters of a run's backbone, but for those of it that the method trains if these are few; None if not told."""
    total, trainable = record.params.get("total"), record.params.get("trainable")
    if not is_number(total) or not is_number(trainable):
        return None
    return total if trainable > total / 2 else total - trainable


@functools.cache
def printed_sizes() -> Mapping[str, float]:
    """Parameters of backbones as papers print them, which is beside full fine-tuning."""
    rows = papers.read(papers_dir() / "reported.csv")
    full = ((row.model.replace("-", "_"), row.trainable_params or "") for row in rows if row.method == "FT")
    return {model: float(count[:-1]) * 1e6 for model, count in full if count.endswith("M")}


def named_first(found: Sequence[str]) -> str:
    """Some differences by name and the number of the others."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def other_rows(record: Record) -> str | None:
    """How the rows of a run differ from those of the public release; None if they do not, as far as that is known."""
    source = str(record.data["source"])
    if source.startswith("embedded"):
        return "embedded rows"
    counted, known = record.data.get("rows", {}), record.data.get("released", {})
    different = []
    for split, release in releases().get(record.task, {}).items():
        rows = counted.get(split, release["rows"])
        if rows != release["rows"]:
            different.append(f"{split} has {rows} rows, {release['rows']} in the release")
        elif known.get(split) is False:
            different.append(f"{split} has other rows than the release")
    return "; ".join(different) or None
