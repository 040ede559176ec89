"""What figures show, as numbers: scores over ranks, memory beside scores, times. Nothing is drawn here.

A figure is of one backbone on one source of rows, a panel of one task. Settings are never averaged: of each method, or
method and rank, a panel shows the setting with the most seeds, and says how many others there are.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rosa_bench.records.collect import Collection, Group, as_text
from rosa_bench.records.labels import method_label
from rosa_bench.records.record import Record
from rosa_bench.stats.summary import summary
from rosa_bench.system.strict_json import is_number

PARTS = ("weights", "gradients", "optimizer", "activations")  # of memory, without which its sum would be too small
WALL = ("train_s", "method_s", "eval_s")


@dataclass(frozen=True)
class Point:
    """Values of several seeds at one place of an axis."""

    x: float
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return math.fsum(self.values) / len(self.values)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; None of fewer than three seeds, where it says nothing, or of equal ones."""
        if len(self.values) < 3:
            return None
        found = summary(self.values)
        return None if found.low is None or found.high is None else (found.low, found.high)


@dataclass(frozen=True)
class Line:
    """What a method, or one setting of it, shows in a panel. A level has one point and holds for the whole axis."""

    method: str
    label: str
    points: tuple[Point, ...]
    level: bool = False

    @property
    def seeds(self) -> set[int]:
        """How many seeds its points have."""
        return {len(point.values) for point in self.points}


@dataclass(frozen=True)
class Panel:
    """One task."""

    title: str
    axis: str  # what its values are
    lines: tuple[Line, ...]
    higher_is_better: bool = True
    left_out: int = 0  # settings that are not shown
    devices: frozenset[str] = frozenset()


@dataclass
class Sheet:
    """All groups of runs of one backbone on one source of rows, by task."""

    model: str
    source: str
    tasks: dict[str, list[Group]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """How many there are."""
        return sum(len(group.records) for groups in self.tasks.values() for group in groups)


def sheets(found: Collection) -> list[Sheet]:
    """Those with the most runs first. Backbones with random weights stand apart from trained ones."""
    by_name: dict[tuple[str, str], Sheet] = {}
    for group in found.groups:
        if group.records and "last" in group.first.primary:
            record = group.first
            model = record.model + (" (random)" if record.config["model"].get("random_init") else "")
            name = model, str(record.data["source"])
            by_name.setdefault(name, Sheet(*name)).tasks.setdefault(record.task, []).append(group)
    return sorted(by_name.values(), key=lambda sheet: (-sheet.runs, sheet.model, sheet.source))


def label(group: Group) -> str:
    """A method with its rank, as in tables."""
    return method_label(group.first.config, group.first.method).removesuffix(" (random backbone)")


def judged(record: Record) -> tuple[str, str]:
    """Metric and split by which a run is judged."""
    return str(record.primary["metric"]), str(record.primary.get("split", ""))


def fullest(groups: Sequence[Group], name: Callable[[Group], str]) -> dict[str, Group]:
    """For each name the group with the most seeds, in the order of names; of equals the first by its runs."""
    chosen: dict[str, tuple[tuple[int, str], Group]] = {}
    for group in groups:
        key = name(group)
        rank = -len(group.records), group.records[min(group.records)].run_id
        if key not in chosen or rank < chosen[key][0]:
            chosen[key] = rank, group
    return {key: chosen[key][1] for key in sorted(chosen)}


def alike(groups: Sequence[Group]) -> list[Group]:
    """Those that are judged as most are: another metric has no place on the same axis."""
    counts: dict[tuple[str, str], int] = {}
    for group in groups:
        counts[judged(group.first)] = counts.get(judged(group.first), 0) + len(group.records)
    main = min(counts, key=lambda name: (-counts[name], name))
    return [group for group in groups if judged(group.first) == main]


def scores(group: Group, variant: str | None = None) -> tuple[float, ...]:
    """Scores at the last epoch by seed, of the main variant or another one; runs without it are not in there."""
    metric, split = judged(group.first)
    found = []
    for _, record in sorted(group.records.items()):
        if variant is None:
            value = record.primary.get("last")
        else:
            value = record.scores.get(split, {}).get(variant, {}).get(metric)
        if value is not None:
            found.append(float(value))
    return tuple(found)


def panel(groups: Sequence[Group], lines: Sequence[Line], used: int, axis: str | None = None) -> Panel:
    """A panel of a task's groups, of which `used` are shown."""
    record = groups[0].first
    metric, split = judged(record)
    better = bool(record.primary.get("higher_is_better", True))
    return Panel(record.task, axis or f"{metric}, {split}", tuple(lines), better, len(groups) - used)


# Score over rank.


def rank_panel(groups: Sequence[Group]) -> Panel | None:
    """Lines over rank: of runs at several ranks, or of one that can be cut to several; methods without rank as levels.

    None where no method has two ranks.
    """
    groups = alike(groups)
    families: dict[str, dict[str, list[Group]]] = {}  # by method and by all options but the rank
    for group in groups:
        families.setdefault(group.first.method, {}).setdefault(_family(group), []).append(group)
    lines, used = [], 0
    for method, by_options in sorted(families.items()):
        options = min(by_options, key=lambda name: _fewer_ranks(by_options[name], name))
        members = by_options[options]
        points = tuple(sorted((point for group in members for point in _ranks(group)), key=lambda point: point.x))
        if points:
            lines.append(Line(method, method, points))
        elif values := scores(members[0]):
            lines.append(Line(method, method, (Point(0, values),), level=True))
        used += len(members)
    return panel(groups, lines, used) if any(len(line.points) > 1 for line in lines) else None


def _family(group: Group) -> str:
    method = {name: value for name, value in group.parts["method"].items() if name != "rank"}
    return as_text({**group.parts, "method": method})


def _fewer_ranks(members: Sequence[Group], name: str) -> tuple[int, int, str]:
    return -sum(len(_ranks(group)) for group in members), -sum(len(group.records) for group in members), name


def _ranks(group: Group) -> list[Point]:
    names = [name for name in group.first.variant_names if re.fullmatch(r"r\d+", name)]
    if names:
        found = [(int(name[1:]), scores(group, name)) for name in names]
    else:
        rank = group.parts["method"].get("rank")
        found = [] if rank is None else [(int(rank), scores(group))]
    return [Point(rank, values) for rank, values in found if values]


# Memory and time.


def memory(record: Record) -> float | None:
    """Bytes of weights, gradients, optimiser state, activations and what the method keeps; None if a part is absent."""
    measured = record.cost.get("memory", {})
    if not all(is_number(measured.get(part)) for part in PARTS):
        return None
    return float(sum(value for value in measured.values() if is_number(value)))


def memory_panel(groups: Sequence[Group]) -> Panel | None:
    """A point for each method and rank: memory, mean over seeds, and score."""
    groups = alike(groups)
    lines = []
    for name, group in fullest(groups, label).items():
        sizes = [size for record in group.records.values() if (size := memory(record)) is not None]
        values = scores(group)
        if sizes and values:
            lines.append(Line(group.first.method, name, (Point(math.fsum(sizes) / len(sizes), values),)))
    return panel(groups, lines, len(lines)) if lines else None


def front(points: Sequence[tuple[float, float]], higher_is_better: bool = True) -> list[int]:
    """Which of some points (memory, score) no other one beats: less of the one and not worse in the other.

    In the order of memory.
    """
    sign = 1 if higher_is_better else -1
    chosen: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])):
        if not chosen or sign * points[i][1] > sign * points[chosen[-1]][1]:
            chosen.append(i)
    return chosen


def time_panels(groups: Sequence[Group]) -> tuple[Panel | None, Panel | None]:
    """Processor seconds of runs without a GPU, and the clock's seconds of runs with one; the fastest first."""
    return _time_panel(groups, False), _time_panel(groups, True)


def _time_panel(groups: Sequence[Group], gpu: bool) -> Panel | None:
    own = [group for group in groups if any(seconds(record, gpu) is not None for record in group.records.values())]
    if not own:
        return None
    chosen = fullest(own, label).items()
    lines = [Line(group.first.method, name, (Point(0, _times(group, gpu)),)) for name, group in chosen]
    lines.sort(key=lambda line: (line.points[0].mean, line.label))
    ran = (record for _, group in chosen for record in group.records.values() if on_gpu(record) == gpu)
    return dataclasses.replace(panel(own, lines, len(lines), "s"), devices=frozenset(map(device, ran)))


def _times(group: Group, gpu: bool) -> tuple[float, ...]:
    found = (seconds(record, gpu) for _, record in sorted(group.records.items()))
    return tuple(value for value in found if value is not None)


def device(record: Record) -> str:
    """What a run ran on; empty if it does not say."""
    return str(record.env.get("device") or "")


def on_gpu(record: Record) -> bool | None:
    """Whether that is something else than a processor; None if it does not say."""
    return not device(record).startswith("cpu") if device(record) else None


def seconds(record: Record, gpu: bool) -> float | None:
    """The clock's seconds of a run on a GPU, the processor's of another; None if they, or this kind, are not there."""
    if on_gpu(record) != gpu:
        return None
    names = WALL if gpu else ("cpu_s",)
    found = [float(record.cost[name]) for name in names if is_number(record.cost.get(name))]
    return math.fsum(found) if len(found) == len(names) else None
