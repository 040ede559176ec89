"""Cells of a suite: planning from its yaml, state from records and locks, and cost estimates."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, TypeAdapter, ValidationError
from yaml import YAMLError

from rosa_bench import config
from rosa_bench.config.fast_compose import composer
from rosa_bench.core.schema import Name, configured
from rosa_bench.errors import UsageError, nearest
from rosa_bench.records.labels import cell_name
from rosa_bench.records.record import Record, read_record, seconds
from rosa_bench.records.run_key import config_key, identity_parts, run_id, run_name
from rosa_bench.records.start import kept_weights
from rosa_bench.suite.claims import Claim
from rosa_bench.suite.rate_search import TAG, Search, beyond
from rosa_bench.suite.worker import as_job, cell_code
from rosa_bench.system.console import counted
from rosa_bench.system.locks import held

State = Literal["done", "failed", "elsewhere", "waiting", "skipped", "pending"]
Rate = Annotated[float, Field(gt=0, le=1e3)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


# Keys as on the command line; a list of values is swept, and a string "[q,v]" is one list. A mapping under `start`
# selects another cell of the suite: the one with these overrides and the same seed, model and method.
Overrides = dict[str, Any]


@configured
class Settings:
    """Overrides of a block, and overrides per task."""

    run: Overrides = Field(default_factory=dict)  # overrides of the cells; a list of values is swept
    # overrides per task; each task gets its own cell
    tasks: dict[str, Overrides] = Field(default_factory=dict)


@configured
class Block(Settings):
    """Cells with shared settings: one or more rows of a table. With `tasks`, there is one cell per task."""

    reported: str | None = None  # the row's name in the paper; {rank} and {variant} are filled in from the run
    incomparable: str | None = None  # why the block's runs cannot be compared with the paper's numbers
    as_published_code: Settings | None = None  # settings where the authors' code differs from the paper
    search: list[Rate] = Field(default_factory=list)  # learning rates to search before the block's runs


@configured
class Column:
    """A column of a suite's table: a metric of a task, and its name in the paper."""

    task: Name  # the task
    metric: str | None = None  # metric of the task; null: its primary metric
    split: str | None = None  # split of the task; null: its evaluation split
    reported_task: str | None = None  # the task's name in the paper; null: the same as `task`
    reported_metric: str | None = None  # the metric's name in the paper; null: the same as `metric`
    reported_scale: Positive = 1.0  # factor that converts the paper's values to the scale of records
    incomparable: str | None = None  # why the column cannot be compared with the paper's column


@configured
class Tuning:
    """How a suite searches learning rates: on training rows held out by hash, never on the evaluation split."""

    tune_share: Annotated[float, Field(gt=0, lt=1)] = 0.1  # fraction of training rows held out to score the rates
    seeds: list[int] = Field(default_factory=lambda: [101], min_length=1)  # seeds of the search runs
    # values of these keys in search runs; cells that differ only in these keys share one search
    at: Overrides = Field(default_factory=dict)


@configured
class Pscp:
    """Constants of PEFT-Bench's PSCP (arXiv 2511.21285, equation 3): score × Π (1 + cost / constant)^-beta."""

    parameters: Positive = 5e8  # for trainable parameters; all defaults except latency's are the paper's
    latency: Positive = 1.0  # for added inference time, as a multiple of the backbone's; the paper uses 10 TFLOPs
    memory: Positive = 94e9  # for the memory of a training step, in bytes
    beta_parameters: NotNegative = 1.0  # exponent of the penalty for parameters
    beta_latency: NotNegative = 1.0  # exponent of the penalty for latency
    beta_memory: NotNegative = 1.0  # exponent of the penalty for memory


@configured
class Suite:
    """Contents of a file in configs/suite: the runs behind one table, their aggregation, and the paper's numbers."""

    name: str = ""  # the file name
    title: Name  # heading of the table
    cells: list[Block] = Field(min_length=1)  # blocks of cells
    common: Overrides = Field(default_factory=dict)  # overrides for every cell
    seeds: list[int] = Field(default_factory=lambda: [1], min_length=1)  # seeds of every cell
    aggregate: Literal["mean", "median"] = "mean"  # how scores are aggregated over seeds
    epoch: Literal["last", "best"] = "last"  # epoch to report
    printed_epoch: Literal["last", "best"] | None = None  # epoch that the paper reports, if it differs
    baseline: str | None = None  # row to test the others against
    columns: list[Column] = Field(default_factory=list)  # empty: every task's primary metric
    paper: str | None = None  # the paper's name in results/papers/reported.csv; null: the table has no paper
    table: str | None = None  # the table's name in results/papers/reported.csv
    hardware: str | None = None  # hardware used in the paper
    incomparable: str | None = None  # why no run can be compared with the paper's numbers
    claims: list[Claim] | Name = Field(default_factory=list)  # claims to decide, or the suite whose claims to use
    notes: list[str] = Field(default_factory=list)  # notes for readers of the table
    tuning: Tuning = Field(default_factory=Tuning)  # how blocks search learning rates
    pscp: Pscp | None = None  # constants of PEFT-Bench's score; null: the table does not show it


@dataclass(frozen=True)
class Cell:
    """A run of a suite."""

    overrides: tuple[str, ...]
    run: config.Run
    block: Block
    published_code: bool = False
    also: tuple[Block, ...] = ()  # other blocks with the same run, which then appears in several rows
    start: Mapping[str, Any] | None = None  # overrides of the cell whose weights it starts from
    source: Cell | None = None  # that cell
    is_source: bool = False  # whether other cells start from it
    rates: tuple[float, ...] = ()  # learning rates to search; the best one replaces that of `run`
    search: Search | None = None  # the search over `rates`; of a cell beyond its grid, the search it may extend

    @cached_property
    def id(self) -> str:
        """Identifies the cell within a plan: everything that can change the result, with model and rows by name."""
        options = self.run.to_dict()
        start = self.start or options["start"]
        parts = [identity_parts(options), options["model"], options["data"], start, self.rates]
        return json.dumps(parts, sort_keys=True)

    @property
    def is_tuning(self) -> bool:
        """Whether it is a run of a search, scored on held-out training rows."""
        return self.run.task.tune_share is not None

    @cached_property
    def plain_key(self) -> str:
        """Key of the run without its start. Raises UsageError if its rows are unavailable."""
        return config_key(self.run)

    @cached_property
    def key(self) -> str:
        """Key of the run. Raises UsageError as `plain_key` does, and while the cells it depends on are not done."""
        return self.plain_key if self.source is None and not self.rates else config_key(self.resolved)

    @property
    def resolved(self) -> config.Run:
        """The run with its learning rate and the folder it starts from filled in.

        Raises UsageError while the search or the cell it starts from is not done.
        """
        run = self.run
        if self.search is not None and self.rates:
            outcome = self.search.outcome()
            if outcome is None or outcome.rate is None:
                raise UsageError("waits for its learning rate" if outcome is None else "no learning rate has a score")
            run = replace(run, train=replace(run.train, lr=outcome.rate))
        if self.source is None:
            return run
        if self.source.state != "done":
            raise UsageError(f"waits for {self.source.name}")
        below = self.source.run.output_dir == self.run.output_dir
        return replace(run, start=self.source.folder.name if below else str(self.source.folder))

    @property
    def folder(self) -> Path:
        return Path(self.run.output_dir) / run_id(self.run, self.key)

    @property
    def name(self) -> str:
        """Name of its folder, without the key while the key is unknown."""
        try:
            return self.folder.name
        except UsageError:
            return run_name(self.run)

    @property
    def sources(self) -> list[Cell]:
        """The chain of cells that it starts from, nearest first."""
        return [] if self.source is None else [self.source, *self.source.sources]

    @property
    def started_from(self) -> str | None:
        """Task and method of the cell that it starts from, as `records.collect.started_from` gives them for a run."""
        return None if self.source is None else f"{self.source.run.task.name} {self.source.run.method.name}"

    @property
    def candidates(self) -> list[Cell]:
        """The runs of its search, without those beyond the grid that are known to be unnecessary."""
        if self.search is None or not self.rates:
            return []
        further = [cells for rate, cells in self.search.further.items() if self.search.needed(rate) is not False]
        return [cell for cells in [*self.search.grid.values(), *further] for cell in cells]

    @property
    def unsettled(self) -> list[Cell]:
        """The cells that it waits for."""
        sources = [] if self.source is None or self.source.state == "done" else [self.source]
        candidates = [] if self.search is None else self.search.unsettled()
        return [*sources, *(cell for cell in candidates if cell.id != self.id)]

    @property
    def is_hopeless(self) -> bool:
        """Whether its search is over and no learning rate has a score."""
        outcome = self.search.outcome() if self.search is not None else None
        return outcome is not None and outcome.rate is None

    @property
    def origin(self) -> str:
        """Suffix for its line that names what it depends on; empty if it depends on nothing."""
        start = "" if self.source is None else f"  starts from {self.source.name}"
        return start + (f"  searches lr among {', '.join(map(str, self.rates))}" if self.rates else "")

    @property
    def record(self) -> Record | None:
        """Its record, if intact and with the key of this run."""
        try:
            record = read_record(self.folder / "record.json")
        except UsageError:
            return None
        return record if record.key == self.key else None

    @property
    def state(self) -> State:
        """`elsewhere` while a process holds its lock; an interrupted or killed run is `pending`.

        `waiting` while the cells it depends on are not done, `skipped` if its search does not need it. A source counts
        as done only if its weights were kept.
        """
        if self.source is not None and self.source.state != "done":
            return "waiting"
        if self.search is not None and self.is_tuning:
            needed = self.search.needed(self.run.train.lr or 0)
            if not needed:
                return "waiting" if needed is None else "skipped"
        elif self.search is not None:
            outcome = self.search.outcome()
            if outcome is None or outcome.rate is None:
                return "waiting"
        record = self.record
        if record is not None and record.status == "done" and not self._lost_weights:
            return "done"
        if held(self.folder):
            return "elsewhere"
        return "failed" if record is not None and record.status in ("failed", "oom") else "pending"

    @property
    def _lost_weights(self) -> bool:
        """Whether it is a source that finished without saving the weights that other cells start from."""
        return self.is_source and not kept_weights(self.folder)

    def __call__(self) -> int:
        """Run the cell; called by submitit in the new process."""
        record = self.record
        again = record is not None and record.status == "done" and self._lost_weights
        run = replace(self.resolved, force=True) if again else self.resolved
        return as_job(lambda: cell_code(run))

    def checkpoint(self, *args: Any) -> Any:
        """Requeue the same cell at the time limit; it resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def load(name: str) -> Suite:
    """Load a suite by name. Raises UsageError if it does not exist or is invalid."""
    path = config.choice_files("suite").get(name)
    if path is None:
        raise UsageError(f"suite {name} does not exist: {nearest(name, config.choices('suite'))}")
    try:
        values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        return TypeAdapter(Suite).validate_json(json.dumps({**values, "name": name}))  # JSON: mappings become classes
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise UsageError(f"{path}: {'; '.join(faults)}") from error
    except (OmegaConfBaseException, YAMLError, TypeError, OSError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from error


def expand(overrides: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield every combination of swept values, as command-line overrides."""
    values = [value if isinstance(value, list) else [value] for value in overrides.values()]
    for chosen in itertools.product(*values):
        yield tuple(f"{key}={_text(value)}" for key, value in zip(overrides, chosen, strict=True))


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def plan(suite: Suite, more: Sequence[str] = (), published_code: bool = False) -> list[Cell]:
    """All cells of a suite without duplicates, validated before any run: searches, then runs, first seed first.

    `more` overrides every cell; a learning rate in it replaces the searches, and a task drops the cells of other
    kinds of tasks. With `published_code`, only blocks whose settings differ in the authors' code are planned, with the
    code's settings.

    Raises:
        UsageError: for an invalid override, or if no cell has a task of the kind of the task in `more`.
    """
    cells: dict[str, Cell] = {}
    compose = composer()
    typed = {override.lstrip("+").partition("=")[0]: override for override in more}
    task = [override for key, override in typed.items() if key.partition(".")[0] == "task"]
    title = compose(task).task.kind.title if "task" in typed else None
    for block in suite.cells:
        if published_code and block.as_published_code is None:
            continue
        for settings in settled(block, published_code):
            combined = {"seed": suite.seeds, **suite.common, **settings}
            start = combined.pop("start") if isinstance(combined.get("start"), Mapping) else None
            if "start" in typed:
                start = None
            for overrides in expand(combined):
                defined = compose(overrides)  # names the cell, whatever the command line overrides
                if title not in (None, defined.task.kind.title):
                    continue
                run = compose([*overrides, *more]) if more else defined
                run = tagged(run, suite, f"suite:{suite.name}", f"cell:{cell_name(defined.to_dict())}")
                rates = () if "train.lr" in typed else tuple(block.search)
                cell = Cell((*overrides, *more), run, block, published_code, start=start, rates=rates)
                first = cells.setdefault(cell.id, cell)
                if block not in (first.block, *first.also):
                    cells[cell.id] = replace(first, also=(*first.also, block))
    if title is not None and not cells and not published_code:
        raise UsageError(f"{typed['task']}: no cell of suite {suite.name} has a task of this kind")
    ordered = sorted(
        cells.values(),
        key=lambda cell: suite.seeds.index(cell.run.seed) if cell.run.seed in suite.seeds else 0,
    )
    tuning, searching = with_searches(ordered, suite, compose)
    return [*tuning, *linked(searching)]


def with_searches(
    cells: Sequence[Cell], suite: Suite, compose: Callable[..., config.Run]
) -> tuple[list[Cell], list[Cell]]:
    """The runs of every search once, and the cells, each linked to its search.

    Raises:
        UsageError: if a cell with a search starts from another cell, has a seed of the search, or is itself scored on
            held-out training rows.
    """
    tuning: dict[str, Cell] = {}
    searches: dict[str, Search] = {}

    def candidates(cell: Cell, rate: float, tag: str | None, of: Search | None) -> list[Cell]:
        keys = {text.partition("=")[0] for text in cell.overrides}
        at = [f"{key}={_text(value)}" for key, value in suite.tuning.at.items() if key in keys]
        own = [*at, f"task.tune_share={suite.tuning.tune_share}", f"train.lr={rate}"]
        runs = []
        for seed in suite.tuning.seeds:
            overrides = (*cell.overrides, *own, f"seed={seed}")
            run = compose(list(overrides))
            run = tagged(run, suite, f"suite:{suite.name}", f"{TAG}{tag or cell_name(run.to_dict())}")
            candidate = Cell(overrides, run, cell.block, cell.published_code, search=of)
            runs.append(tuning.setdefault(candidate.id, candidate))
        return runs

    def searching(cell: Cell) -> tuple[Search, str]:
        rates = sorted(cell.rates)
        first = candidates(cell, rates[0], None, None)[0]
        tag, name = cell_name(first.run.to_dict()), json.dumps([first.id, rates])
        if name not in searches:
            searches[name] = search = Search({rate: candidates(cell, rate, tag, None) for rate in rates}, suite.epoch)
            search.further = {rate: candidates(cell, rate, tag, search) for rate in beyond(rates) or ()}
        return searches[name], tag

    linked_cells = []
    for cell in cells:
        if cell.rates:
            if cell.start is not None:
                raise UsageError(f"{run_name(cell.run)}: search is not supported with start")
            if cell.run.seed in suite.tuning.seeds:
                raise UsageError(f"seed={cell.run.seed} is a seed of the learning-rate search; choose another seed")
            if cell.is_tuning:
                raise UsageError(f"task.tune_share is set by the search; set tuning.tune_share of suite {suite.name}")
            search, tag = searching(cell)
            cell = replace(cell, search=search, run=tagged(cell.run, suite, f"{TAG}{tag}"))
        linked_cells.append(cell)
    return list(tuning.values()), linked_cells


def linked(cells: Sequence[Cell]) -> list[Cell]:
    """Link cells to the cells that they start from, and make the latter save their weights.

    Raises:
        UsageError: if a cell's `start` matches no other cell or several, or if cells start from each other in a cycle.
    """
    sources = {cell.id: _source(cell, cells) for cell in cells if cell.start is not None}
    source_ids = {source.id for source in sources.values()}
    linked_cells: dict[str, Cell] = {}

    def link(cell: Cell, above: tuple[str, ...]) -> Cell:
        if cell.id in above:
            raise UsageError(f"start={cell.start}: {run_name(cell.run)} would start from itself")
        if cell.id not in linked_cells:
            source = link(sources[cell.id], (*above, cell.id)) if cell.id in sources else None
            is_source = cell.id in source_ids
            run = replace(cell.run, save="adapter") if is_source and cell.run.save == "none" else cell.run
            linked_cells[cell.id] = replace(cell, run=run, source=source, is_source=is_source)
        return linked_cells[cell.id]

    return [link(cell, ()) for cell in cells]


def _source(cell: Cell, cells: Sequence[Cell]) -> Cell:
    """The cell that `start` refers to: same seed, model and method, unless `start` sets them."""
    start = cell.start or {}
    texts = {f"{key}={_text(value)}" for key, value in start.items()}
    free = {key.partition(".")[0] for key in start}
    matching = [
        other
        for other in cells
        if other.id != cell.id
        and texts <= set(other.overrides)
        and all(getattr(other.run, part) == getattr(cell.run, part) for part in {"seed", "model", "method"} - free)
    ]
    if len(matching) != 1:
        names = ", ".join(sorted({run_name(other.run) for other in matching}))
        fault = f"matches {len(matching)} cells ({names}); add overrides" if names else "matches no cell of the suite"
        raise UsageError(f"start={{{' '.join(sorted(texts))}}} of {run_name(cell.run)} {fault}")
    return matching[0]


def tagged(run: config.Run, suite: Suite, *tags: str) -> config.Run:
    """Tag the run of a suite that has a name, so that trackers and tables find it."""
    if not suite.name:
        return run
    return replace(run, tracker=replace(run.tracker, tags=[*run.tracker.tags, *tags]))


def settled(block: Block, published_code: bool = False) -> Iterator[Overrides]:
    """Overrides of a block, task by task; settings of the authors' code come last if requested."""
    code = (block.as_published_code if published_code else None) or Settings()
    for task in {**block.tasks, **code.tasks} or [None]:
        chosen = {} if task is None else {"task": task, **block.tasks.get(task, {})}
        yield {**block.run, **chosen, **code.run, **code.tasks.get(task or "", {})}


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of the pending cells, from similar finished runs; None without such runs."""

    seconds: float | None
    peak_bytes: float | None
    neighbors: int

    def __str__(self) -> str:
        if self.seconds is None:
            return "no estimate yet: no cell on these models has finished"
        cells = counted(self.neighbors, "finished cell")
        return f"about {duration(self.seconds)} of one process{self.memory} (from {cells})"

    @property
    def memory(self) -> str:
        """Peak memory per process, as a phrase."""
        return "" if self.peak_bytes is None else f", up to {self.peak_bytes / 1e9:.1f} GB per process"


def neighbors(cell: Cell, known: Sequence[Record]) -> list[Record]:
    """The most similar finished runs: same model, and same task and method if possible; empty if there are none."""
    model, task, method = cell.run.model.name, cell.run.task.name, cell.run.method.name
    own = [record for record in known if record.model == model]
    on_task = [record for record in own if record.task == task]
    alike = [r for r in on_task if r.method == method], on_task, [r for r in own if r.method == method], own
    return next((group for group in alike if group), [])


def device_peak(cell: Cell, known: Sequence[Record]) -> int | None:
    """Peak GPU allocation of a cell in bytes, from similar finished runs; None if none ran on a GPU."""
    near = neighbors(cell, [record for record in known if record.cost.get("peak_device_bytes")])
    names = ("peak_device_bytes", "peak_reserved_bytes")
    return max((int(record.cost.get(name, 0)) for record in near for name in names), default=None)


def estimate(pending: Sequence[Cell], known: Sequence[Record]) -> Estimate:
    """The sum over cells of the median duration of similar finished runs, and the largest peak memory of those runs."""
    total, peak, used = 0.0, 0.0, set()
    for cell in pending:
        near = neighbors(cell, known)
        if not near:
            return Estimate(None, None, 0)
        total += statistics.median(seconds(record) for record in near)
        peak = max([peak, *(float(record.cost.get("peak_rss_bytes", 0)) for record in near)])
        used |= {record.run_id for record in near}
    return Estimate(total, peak or None, len(used))


def duration(value: float) -> str:
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"
