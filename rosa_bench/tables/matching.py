"""Matches runs to the rows of a suite's table and lists how they differ from the suite's settings."""

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
from rosa_bench.records.run_key import identity_parts
from rosa_bench.suite.plan import Cell, Suite, plan
from rosa_bench.suite.rate_search import TAG
from rosa_bench.system.strict_json import is_number
from rosa_bench.tables import papers

PUBLISHED_CODE = ", published code"  # label suffix of a row with the settings of the authors' code
ALIKE = 1.25  # largest ratio of parameter counts of the same backbone; different ones differ by a factor of 2 or more
SHOWN = 4  # differences listed by name; the rest is counted
PARTS = ("method", "train", "task")  # parts of a configuration whose settings are compared
MODEL_OPTIONS = {"random_init": False, "dropout": None}  # of a backbone, with their values in records that lack them


@dataclass(frozen=True)
class Target:
    """A cell of a suite's table: the run that the suite specifies, and the variant of it that is scored."""

    row: str
    cell: Cell
    variant: str
    parts: Mapping[str, Any]  # of its configuration, as in `Group`
    name: str  # in trackers
    labeled: tuple[tuple[str, str], ...] = ()  # part and name of each option in the row's name, besides the size

    @property
    def model(self) -> str:
        return self.cell.run.model.name

    @property
    def where(self) -> tuple[str, str, str]:
        """What a run must share with the target: task, model and the method's options."""
        return self.cell.run.task.name, self.model, as_text(self.parts["method"])

    def says_true(self, group: Group) -> bool:
        """Whether runs have the options stated in the row's name."""
        return all(group.parts[part].get(name) == self.parts[part].get(name) for part, name in self.labeled)


def targets(suite: Suite, several_models: bool = False) -> list[Target]:
    """Every row and task of a suite once, independent of the seed; the paper's settings come first."""
    first = dataclasses.replace(suite, seeds=suite.seeds[:1])
    cells = [cell for code in (False, True) for cell in plan(first, published_code=code) if not cell.is_tuning]
    models: dict[str, set[str]] = {}
    for cell in cells:
        models.setdefault(cell.run.task.name, set()).add(cell.run.model.name)
    several_models |= any(len(names) > 1 for names in models.values())
    per_block = [dataclasses.replace(cell, block=block) for cell in cells for block in (cell.block, *cell.also)]
    return distinguished([target for cell in per_block for target in _targets_of(cell, several_models)], several_models)


def _targets_of(cell: Cell, several_models: bool) -> Iterator[Target]:
    run, config = cell.run, cell.run.to_dict()
    names, template = run.method.variants(), cell.block.reported
    for variant in names if "{variant}" in (template or "") else names[-1:]:
        row = printed_name(template, config["method"], variant) if template else method_label(config, run.method.name)
        row += _ending(cell, several_models)
        parts = identity_parts(config)
        if cell.started_from is not None:
            parts["start"] = cell.started_from
        yield Target(row, cell, variant, parts, cell_name(config))


def _ending(cell: Cell, several_models: bool) -> str:
    model = f", {cell.run.model.name.replace('_', '-')}" if several_models else ""
    return model + (PUBLISHED_CODE if cell.published_code else "")


def distinguished(targets: Sequence[Target], several_models: bool) -> list[Target]:
    """Split rows that have several cells for a task, and name the differing options in their labels.

    Every learning rate of a grid and every variant of a method gets its own row. Rows that a paper names do not change.
    """
    alike: dict[str, dict[str, list[Target]]] = {}
    for target in targets:
        if target.cell.block.reported is None:
            alike.setdefault(target.row, {}).setdefault(target.where[0], []).append(target)
    options = {row: sorted(set().union(*map(_differing, by_task.values()))) for row, by_task in alike.items()}
    return [_relabeled(target, tuple(options.get(target.row, ())), several_models) for target in targets]


def _differing(alike: Sequence[Target]) -> set[tuple[str, str]]:
    """Part and name of the options in which targets differ."""
    names = {(part, name) for target in alike for part in PARTS for name in target.parts[part]}
    return {(p, n) for p, n in names if len({as_text(target.parts[p].get(n)) for target in alike}) > 1}


def _relabeled(target: Target, options: tuple[tuple[str, str], ...], several_models: bool) -> Target:
    if not options or target.cell.block.reported is not None:
        return target
    ending = _ending(target.cell, several_models)
    text = "; ".join(option_text(f"{part}.{name}", target.parts[part].get(name)) for part, name in options)
    return dataclasses.replace(target, row=f"{target.row.removesuffix(ending)}, {text}{ending}", labeled=options)


def tags_of(record: Record) -> list[str]:
    """The tags of a run in trackers; empty for a record without a tracker."""
    return [str(tag) for tag in record.config.get("tracker", {}).get("tags") or []]


def started_for(record: Record, suite: str) -> str | None:
    """The cell of a suite that a run was started for, or None. The run's overrides may have changed its model."""
    tags = tags_of(record)
    if f"suite:{suite}" not in tags:
        return None
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("cell:")), None)


def is_searched(record: Record) -> bool:
    """Whether a search of a suite chose the learning rate of a run, not the command line."""
    return any(tag.startswith(TAG) for tag in tags_of(record))


def differences(group: Group, target: Target) -> list[str]:
    """Options in which runs differ from the suite's settings."""
    own, suite = group.first.config["model"], dataclasses.asdict(target.cell.run.model)
    model = [(name, own.get(name, default), suite[name]) for name, default in MODEL_OPTIONS.items()]
    texts = [f"model.{name}={_value(value)}, not {_value(other)}" for name, value, other in model if value != other]
    for part in PARTS:
        own, suite = group.parts[part], target.parts[part]
        names = [name for name in sorted(set(own) | set(suite)) if own.get(name) != suite.get(name)]
        if part == "train" and "max_steps" in names:
            names = [name for name in names if name != "epochs"]  # max_steps overrides epochs
        if part == "train" and target.cell.rates and is_searched(group.first):
            names = [name for name in names if name != "lr"]  # a search chose it
        texts += [f"{part}.{name}={_value(own.get(name))}, not {_value(suite.get(name))}" for name in names]
    starts = [parts.get("start", "the backbone") for parts in (group.parts, target.parts)]
    return texts if starts[0] == starts[1] else [f"started from {starts[0]}, not {starts[1]}", *texts]


def _value(value: Any) -> str:
    return "null" if value is None else str(value)


def incomparable(group: Group, target: Target, suite: Suite, seeds: int) -> tuple[str, ...]:
    """Reasons why a group's scores over `seeds` seeds are not comparable with the paper's; empty if they are."""
    reasons = [*other_model(group, target), *other_data(group, target)]
    if seeds < len(suite.seeds):
        reasons.append(f"fewer seeds ({seeds} of {len(suite.seeds)})")
    if other := differences(group, target):
        reasons.append(f"other settings ({named_first(other)})")
    return tuple(reasons)


def other_model(group: Group, target: Target) -> list[str]:
    """A reason if the backbone differs from the target's, by name or by the size that a paper prints; else empty."""
    model = group.first.model
    if model != target.model:
        return [f"other model size ({model}, not {target.model})"]
    own, printed = _backbone(group.first), printed_sizes().get(target.model)
    if own is None or printed is None or 1 / ALIKE < own / printed < ALIKE:
        return []
    return [f"other model size ({own / 1e6:,.0f}M parameters, {target.model} has {printed / 1e6:,.0f}M)"]


def other_data(group: Group, target: Target) -> list[str]:
    """A reason if the rows differ from the target's (embedded or not) or from the public release; else empty."""
    rows, source = other_rows(group.first), str(group.first.data["source"])
    if target.cell.run.data.source == "embedded":
        rows = None if source.startswith("embedded") else f"{source} rows"
    return [] if rows is None else [f"other data ({rows})"]


def _backbone(record: Record) -> float | None:
    """Parameters of a run's backbone, minus the trained ones if they are the minority; None if not recorded."""
    total, trainable = record.params.get("total"), record.params.get("trainable")
    if not is_number(total) or not is_number(trainable):
        return None
    return total if trainable > total / 2 else total - trainable


@functools.cache
def printed_sizes() -> Mapping[str, float]:
    """Parameters of backbones that papers print in their full fine-tuning rows."""
    rows = papers.read(papers_dir() / "reported.csv")
    full = ((row.model.replace("-", "_"), row.trainable_params or "") for row in rows if row.method == "FT")
    return {model: float(count[:-1]) * 1e6 for model, count in full if count.endswith("M")}


def named_first(reasons: Sequence[str]) -> str:
    """The first differences by name and the number of the others."""
    more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return "; ".join(reasons[:SHOWN]) + more


def other_rows(record: Record) -> str | None:
    """How the rows of a run differ from the public release; None if no difference is known."""
    source = str(record.data["source"])
    if source.startswith("embedded"):
        return "embedded rows"
    counts, released = record.data.get("rows", {}), record.data.get("released", {})
    different = []
    for split, release in releases().get(record.task, {}).items():
        rows = counts.get(split, release["rows"])
        if rows != release["rows"]:
            different.append(f"{split} has {rows} rows, {release['rows']} in the release")
        elif released.get(split) is False:
            different.append(f"{split} has other rows than the release")
    return "; ".join(different) or None
