"""What the runs of a row cost: trainable share, memory, time and latency."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rosa_bench.records.record import THEN, Record
from rosa_bench.suite.plan import Pscp
from rosa_bench.system.strict_json import is_number
from rosa_bench.tables.grid import DASH, Column, Grid, Place, Row

PARTS = ("weights", "gradients", "optimizer", "activations")  # required parts of memory
WALL = ("train_s", "method_s", "eval_s")


def number(value: object) -> float | None:
    """A recorded number; None if absent or not a number."""
    return float(value) if is_number(value) else None


def trainable(record: Record) -> float | None:
    """Number of trainable parameters; None if not recorded."""
    return number(record.params.get("trainable"))


def share(record: Record) -> float | None:
    """Trainable parameters as a percentage of all; None if not recorded."""
    return number(record.params.get("trainable_percent"))


def memory(record: Record) -> float | None:
    """Bytes of weights, gradients, optimizer state, activations and method state; None if a required part is absent."""
    measured = record.cost.get("memory", {})
    if not all(is_number(measured.get(part)) for part in PARTS):
        return None
    return float(sum(value for value in measured.values() if is_number(value)))


def device(record: Record) -> str:
    """The device of a run; empty if not recorded."""
    return str(record.env.get("device") or "")


def on_gpu(record: Record) -> bool | None:
    """Whether a run used a device other than the CPU; None if not recorded, or if it resumed on another kind."""
    used = {not name.startswith("cpu") for name in device(record).split(THEN) if name}
    return used.pop() if len(used) == 1 else None


def seconds(record: Record) -> float | None:
    """Wall-clock seconds of a GPU run, or CPU seconds (less affected by other load) of a CPU run; None if absent."""
    if on_gpu(record) is None:
        return None
    names = WALL if on_gpu(record) else ("cpu_s",)
    values = [float(record.cost[name]) for name in names if is_number(record.cost.get(name))]
    return math.fsum(values) if len(values) == len(names) else None


def latency(record: Record, batch: str = "batch_1") -> float | None:
    """Time of a forward pass, or of generating a text, over that of the plain backbone; None if not measured."""
    measured = record.cost.get("inference")
    values = measured.get(batch) if isinstance(measured, dict) else None
    return number(values.get("ratio")) if isinstance(values, dict) else None


def batch_latency(record: Record) -> float | None:
    """The latency for an evaluation batch."""
    return latency(record, "batch_eval")


def mean(records: Iterable[Record], read: Callable[[Record], float | None]) -> float | None:
    """The mean of a cost over runs that have it; None without any, or for a mix of CPU and wall-clock seconds."""
    measured = [(record, value) for record in records if (value := read(record)) is not None]
    if not measured or (read is seconds and len({on_gpu(record) for record, _ in measured}) > 1):
        return None
    return statistics.fmean(value for _, value in measured)


@dataclass(frozen=True)
class Measure:
    """A cost of a run, as a column of a table. `units` are in ascending order, with the size of each."""

    name: str
    note: str
    read: Callable[[Record], float | None]
    units: tuple[tuple[str, float], ...]
    decimals: int | None = None  # None for two significant digits
    higher_is_better: bool = False

    def unit(self, values: Iterable[float]) -> tuple[str, float]:
        """The largest unit in which the largest value is at least 10, or the smallest unit."""
        largest = max(values, default=0.0)
        return next((unit for unit in reversed(self.units) if largest >= 10 * unit[1]), self.units[0])

    def text(self, value: float) -> str:
        """A value in its unit."""
        if self.decimals is not None:
            return f"{value:.{self.decimals}f}"
        return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:g}"


SHARE = Measure("trainable", "trainable: share of all parameters, the head included", share, (("%", 1.0),))
MEASURES = (
    SHARE,
    Measure(
        "memory",
        "memory: weights, gradients, optimizer state and activations of a training step, as measured",
        memory,
        (("MB", 1e6), ("GB", 1e9)),
    ),
    Measure("time", "", seconds, (("s", 1.0), ("min", 60.0), ("h", 3600.0))),
    Measure(
        "latency",
        "latency: time of the model as deployed, over the plain backbone's, for one input at a time",
        latency,
        (("×", 1.0),),
        decimals=2,
    ),
)
# from scores and costs of a row
PSCP = Measure("PSCP", "", lambda record: None, (("", 1.0),), decimals=2, higher_is_better=True)


def per_task(row: Row, columns: Iterable[Column], measure: Measure) -> list[float]:
    """The mean over seeds of a cost, for each task of a row that has it."""
    by_task: dict[str, list[float]] = {}
    for column in columns:
        value = mean(row.place(column).records, measure.read)
        if value is not None:
            by_task.setdefault(column.task, []).append(value)
    return [statistics.fmean(values) for values in by_task.values()]


@dataclass(frozen=True)
class CostColumn:
    """A cost of each row, over the tasks of some columns."""

    measure: Measure
    unit: str
    values: Mapping[str, Sequence[float]]  # by label of the row: the cost of each task, in the unit of the head
    printed: Mapping[str, str]  # by label of the row: the paper's number, after ours

    @property
    def head(self) -> str:
        return f"{self.measure.name}, {self.unit}" if self.unit else self.measure.name

    def text(self, row: Row) -> str:
        """The cost of a row in a sentence."""
        return f"{self.measure.name} {self.cell(row)} {self.unit}".rstrip()

    def cell(self, row: Row) -> str:
        """The cost of a row, or its range where tasks differ, and the paper's number."""
        text = span(*map(self.measure.text, _ends(self.values[row.label])))
        printed = self.printed.get(row.label)
        return f"{text} ({printed})" if printed else text


def _ends(values: Sequence[float]) -> Sequence[float]:
    return (min(values), max(values)) if values else ()


def span(*ends: str) -> str:
    """A range, its only value, or a dash for nothing."""
    return "–".join(dict.fromkeys(ends)) or DASH


def cost_columns(grid: Grid, columns: Sequence[Column]) -> list[CostColumn]:
    """The costs that runs of these columns have, the trainable share first."""
    made = []
    for measure in MEASURES:
        values = {row.label: per_task(row, columns, measure) for row in grid.rows}
        unit, size = measure.unit(value for costs in values.values() for value in costs)
        printed = _printed(grid) if measure is SHARE else {}
        if printed or any(values.values()):
            scaled = {label: [value / size for value in costs] for label, costs in values.items()}
            made.append(CostColumn(measure, unit, scaled, printed))
    penalized = {row.label: _penalized(row, grid, columns) for row in grid.rows}
    if any(penalized.values()):
        made.append(CostColumn(PSCP, "", penalized, {}))
    return made


def pscp(score: float, parameters: float, latency: float, memory: float, constants: Pscp) -> float:
    """A score times a penalty (1 + cost / constant) ^ -beta for each cost (PEFT-Bench, arXiv 2511.21285, equation 3).

    Args:
        score: higher is better, at least 0.
        parameters: trainable parameters.
        latency: additional cost of inference. The paper counts TFLOPs, the tables use time as a multiple of the
            backbone's.
        memory: of training, in the unit of `constants.memory`.
        constants: the constant and the exponent of each cost.
    """
    penalties = (
        math.pow(1 + parameters / constants.parameters, -constants.beta_parameters),
        math.pow(1 + latency / constants.latency, -constants.beta_latency),
        math.pow(1 + memory / constants.memory, -constants.beta_memory),
    )
    return score * math.prod(penalties)


def _penalized(row: Row, grid: Grid, columns: Iterable[Column]) -> list[float]:
    """The PSCP of a row: the mean over tasks, each by its first metric; empty if a task has none."""
    first = {column.task: column for column in reversed([*columns])}
    scores = [_penalized_score(row.place(column), column, grid) for column in first.values()]
    known = [score for score in scores if score is not None]
    return [statistics.fmean(known)] if known and len(known) == len(scores) else []


def _penalized_score(place: Place, column: Column, grid: Grid) -> float | None:
    """The PSCP of a cell; None without constants, a score or a cost, and for a score that penalties would improve."""
    score = place.scores.get(grid.epoch)
    if grid.pscp is None or score is None or not column.higher_is_better or grid.center(score) < 0:
        return None
    trained, relative, size = (mean(place.records, read) for read in (trainable, latency, memory))
    if trained is None or relative is None or size is None:
        return None
    return pscp(grid.center(score), trained, max(relative - 1, 0.0), size, grid.pscp)


def _printed(grid: Grid) -> dict[str, str]:
    """The paper's number of trainable parameters by row, after ours in the same unit."""
    texts = {}
    for row in grid.rows:
        if row.printed_trainable:
            own = [f"{SHARE.text(size / 1e6)}M" for size in _ends(row.trainable)]
            texts[row.label] = (f"{span(*own)}; " if own else "") + f"paper {row.printed_trainable}"
    return texts


def cost_notes(grid: Grid) -> list[str]:
    """What the costs of a table mean."""
    records = [record for place in grid.places for record in place.records]
    notes = [m.note for m in MEASURES if m.note and any(m.read(record) is not None for record in records)]
    timed = [record for record in records if seconds(record) is not None]
    if timed:
        clocks = {bool(on_gpu(record)) for record in timed}
        kinds = {False: "CPU seconds of a run", True: "wall-clock seconds of a run"}
        clock = " (with a GPU) or ".join(kinds[gpu] for gpu in sorted(clocks, reverse=True))
        notes.append(f"time: {clock}, training and evaluation, on {' and '.join(sorted(set(map(device, timed))))}")
    lines = [f"{'; '.join(notes)}. Ranges are over tasks."] if notes else []
    return [*lines, *_pscp_note(grid)]


def _pscp_note(grid: Grid) -> list[str]:
    """What the PSCP of a table means; nothing if no cell has one."""
    cells = ((place, column) for row in grid.rows for column, place in row.places.items())
    if (constants := grid.pscp) is None or all(_penalized_score(*cell, grid) is None for cell in cells):
        return []
    penalties = (
        f"(1 + trainable parameters / {constants.parameters / 1e6:g}M)^−{constants.beta_parameters:g}",
        f"(1 + additional latency / {constants.latency:g})^−{constants.beta_latency:g}",
        f"(1 + memory / {constants.memory / 1e9:g} GB)^−{constants.beta_memory:g}",
    )
    return [
        f"PSCP: the score of PEFT-Bench (arXiv 2511.21285, equation 3), the mean over tasks of score × "
        f"{' × '.join(penalties)}; its inference cost is time here, not FLOPs."
    ]
