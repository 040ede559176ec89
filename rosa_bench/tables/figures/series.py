"""Numbers behind the figures: scores over ranks, memory and score, times.

A figure shows one backbone on one data source, with a panel per task. Settings are never averaged: for each method, or
method and rank, a panel shows the setting with the most seeds and states how many others exist.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rosa_bench.records.collect import Collection, Group, as_text
from rosa_bench.records.labels import method_label
from rosa_bench.records.record import Record
from rosa_bench.records.run_key import method_class
from rosa_bench.stats.summary import summary
from rosa_bench.suite.rate_search import TAG
from rosa_bench.tables.build import is_search
from rosa_bench.tables.costs import device, memory, on_gpu, seconds
from rosa_bench.tables.matching import tags_of


@dataclass(frozen=True)
class Point:
    """Values of several seeds at a position of the x axis."""

    x: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def spread(self) -> tuple[float, float] | None:
        """The mean minus and plus the standard deviation; None for one seed."""
        if len(self.values) < 2:
            return None
        sd = statistics.stdev(self.values)
        return self.mean - sd, self.mean + sd

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; None for equal values or fewer than three seeds, where it is too wide."""
        if len(self.values) < 3:
            return None
        stats = summary(self.values)
        return None if stats.low is None or stats.high is None else (stats.low, stats.high)


@dataclass(frozen=True)
class Line:
    """The points of a method, or of one of its settings, in a panel.

    A `level` has one point for the whole x axis. A `cut` line shows one trained model, truncated to lower ranks.
    """

    method: str
    label: str
    points: tuple[Point, ...]
    level: bool = False
    cut: bool = False

    @property
    def seeds(self) -> set[int]:
        """The numbers of seeds of its points."""
        return {len(point.values) for point in self.points}


@dataclass(frozen=True)
class Panel:
    """A panel of a figure: one task."""

    title: str
    axis: str  # label of the values
    lines: tuple[Line, ...]
    higher_is_better: bool = True
    left_out: int = 0  # settings that are not shown
    devices: frozenset[str] = frozenset()


@dataclass
class Sheet:
    """All groups of runs of one backbone on one data source, by task."""

    model: str
    source: str
    tasks: dict[str, list[Group]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        return sum(len(group.records) for groups in self.tasks.values() for group in groups)


def sheets(collection: Collection) -> list[Sheet]:
    """All sheets, those with the most runs first. Randomly initialized backbones are separate from trained ones."""
    by_name: dict[tuple[str, str], Sheet] = {}
    for group in collection.groups:
        if any("last" in record.primary for record in group.records.values()) and not is_search(group):
            record = group.first
            model = record.model + (" (random)" if record.config["model"].get("random_init") else "")
            name = model, str(record.data["source"])
            by_name.setdefault(name, Sheet(*name)).tasks.setdefault(record.task, []).append(group)
    return sorted(by_name.values(), key=lambda sheet: (-sheet.runs, sheet.model, sheet.source))


def label(group: Group) -> str:
    """A method with its rank, as in tables."""
    return method_label(group.first.config, group.first.method).removesuffix(" (random backbone)")


def judged(record: Record) -> tuple[str, str]:
    """Primary metric and split of a run."""
    return str(record.primary["metric"]), str(record.primary.get("split", ""))


def fullest(groups: Sequence[Group], name: Callable[[Group], str]) -> dict[str, Group]:
    """The group with the most seeds for each name, sorted by name; ties go to the first by run id."""
    best: dict[str, tuple[tuple[int, str], Group]] = {}
    for group in groups:
        key = name(group)
        rank = -len(group.records), group.records[min(group.records)].run_id
        if key not in best or rank < best[key][0]:
            best[key] = rank, group
    return {key: best[key][1] for key in sorted(best)}


def alike(groups: Sequence[Group]) -> list[Group]:
    """The groups with the most frequent primary metric and split, since different metrics cannot share an axis."""
    counts: dict[tuple[str, str], int] = {}
    for group in groups:
        counts[judged(group.first)] = counts.get(judged(group.first), 0) + len(group.records)
    main = min(counts, key=lambda name: (-counts[name], name))
    return [group for group in groups if judged(group.first) == main]


def scores(group: Group, variant: str | None = None) -> tuple[float, ...]:
    """Scores at the last epoch by seed, of the main variant or another one. Runs without a score are omitted."""
    metric, split = judged(group.first)
    values = []
    for _, record in sorted(group.records.items()):
        if variant is None:
            value = record.primary.get("last")
        else:
            value = record.scores.get(split, {}).get(variant, {}).get(metric)
        if value is not None:
            values.append(float(value))
    return tuple(values)


def panel(groups: Sequence[Group], lines: Sequence[Line], used: int, axis: str | None = None) -> Panel:
    """Build the panel of a task's groups, `used` of which are shown."""
    record = groups[0].first
    metric, split = judged(record)
    better = bool(record.primary.get("higher_is_better", True))
    return Panel(record.task, axis or f"{metric}, {split}", tuple(lines), better, len(groups) - used)


# Score over rank.


RANKS = ("rank", "score_ranks")  # method options that set the rank at which a model is trained or scored


def rank_panel(groups: Sequence[Group]) -> Panel | None:
    """Lines over rank, from one run per rank or from the variants of one run; a method with one rank is a point.

    Methods without a rank appear only if they are references, as levels. None if no method has two ranks.
    """
    groups = alike(groups)
    families: dict[str, dict[str, list[Group]]] = {}  # by method and by all settings except the rank
    for group in groups:
        families.setdefault(group.first.method, {}).setdefault(_family(group), []).append(group)
    lines: list[Line] = []
    used = 0
    for method, by_settings in sorted(families.items()):
        settings = min(by_settings, key=lambda name: _order(by_settings[name], name))
        members = by_settings[settings]
        own = [drawn for drawn in (_trained(method, members), *_truncated(method, members)) if drawn[0].points]
        is_reference = method_class(members[0].first.config["method"]).reference
        if not own and is_reference and (values := scores(members[0])):
            own = [(Line(method, method, (Point(0, values),), level=True), members[:1])]
        lines += [line for line, _ in own]
        used += len({id(group) for _, shown in own for group in shown})
    return panel(groups, lines, used) if any(len(line.points) > 1 for line in lines) else None


def _family(group: Group) -> str:
    """All settings except the rank, and except a learning rate that a search chose."""
    method = {name: value for name, value in group.parts["method"].items() if name not in RANKS}
    parts = {**group.parts, "method": method}
    if any(tag.startswith(TAG) for tag in tags_of(group.first)):
        parts["train"] = {name: value for name, value in group.parts["train"].items() if name != "lr"}
    return as_text(parts)


def _order(members: Sequence[Group], name: str) -> tuple[int, int, str]:
    """Sort key: families with the most ranks first, then families with the most runs."""
    return -len(_trained("", members)[0].points), -sum(len(group.records) for group in members), name


def _variants(group: Group) -> list[tuple[int, str]]:
    """The ranks of a run's variants, with their names."""
    return [(int(name[1:]), name) for name in group.first.variant_names if re.fullmatch(r"r\d+", name)]


def _trained(method: str, members: Sequence[Group]) -> tuple[Line, Sequence[Group]]:
    """A line of scores at each run's rank, or at its variants' ranks if it has none, and the groups shown."""
    points: dict[int, tuple[Group, tuple[float, ...]]] = {}
    for group in sorted(members, key=lambda group: len(group.records)):  # at equal ranks, the largest group wins
        rank = group.parts["method"].get("rank")
        own = [(int(rank), None)] if rank is not None else _variants(group)
        points |= {rank: (group, values) for rank, name in own if (values := scores(group, name))}
    line = Line(method, method, tuple(Point(rank, points[rank][1]) for rank in sorted(points)))
    return line, [group for group, _ in points.values()]


def _truncated(method: str, members: Sequence[Group]) -> list[tuple[Line, Sequence[Group]]]:
    """A line of the model with the most variants, truncated to lower ranks, and its group; empty if there is none."""
    ranked = [group for group in members if group.parts["method"].get("rank") is not None]
    if not ranked:
        return []
    cut = max(ranked, key=lambda group: len(_variants(group)))
    points = tuple(Point(rank, values) for rank, name in sorted(_variants(cut)) if (values := scores(cut, name)))
    if len(points) < 2:
        return []
    return [(Line(method, f"{method} truncated", points, cut=True), [cut])]


# Memory and time.


def memory_panel(groups: Sequence[Group]) -> Panel | None:
    """A point for each method and rank: memory (mean over seeds) and score."""
    groups = alike(groups)
    lines = []
    for name, group in fullest(groups, label).items():
        sizes = [size for record in group.records.values() if (size := memory(record)) is not None]
        values = scores(group)
        if sizes and values:
            lines.append(Line(group.first.method, name, (Point(math.fsum(sizes) / len(sizes), values),)))
    return panel(groups, lines, len(lines)) if lines else None


def front(points: Sequence[tuple[float, float]], higher_is_better: bool = True) -> list[int]:
    """Indices of the Pareto-optimal points (memory, score), in order of memory."""
    sign = 1 if higher_is_better else -1
    optimal: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])):
        if not optimal or sign * points[i][1] > sign * points[optimal[-1]][1]:
            optimal.append(i)
    return optimal


def time_panel(groups: Sequence[Group], gpu: bool) -> Panel | None:
    """Wall-clock seconds of runs with a GPU, or CPU seconds of runs without one; the fastest first."""
    own = [group for group in groups if _times(group, gpu)]
    if not own:
        return None
    groups_shown = fullest(own, label).items()
    lines = [Line(group.first.method, name, (Point(0, _times(group, gpu)),)) for name, group in groups_shown]
    lines.sort(key=lambda line: (line.points[0].mean, line.label))
    ran = (record for _, group in groups_shown for record in group.records.values() if on_gpu(record) == gpu)
    return dataclasses.replace(panel(own, lines, len(lines), "s"), devices=frozenset(map(device, ran)))


def _times(group: Group, gpu: bool) -> tuple[float, ...]:
    """Seconds of the runs with, or without, a GPU, by seed."""
    values = (seconds(record) for _, record in sorted(group.records.items()) if on_gpu(record) == gpu)
    return tuple(value for value in values if value is not None)
