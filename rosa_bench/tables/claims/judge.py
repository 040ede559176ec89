"""Decides claims by the records of a suite: holds, does not hold, or undecided.

A comparison is decided by one effect, the mean over tasks (and over ranks, unless each rank is tested separately). Its
variance covers both seeds and examples. A claim holds if the effects of all its comparisons lie in their regions, and
does not hold if one lies outside. Both p values are Holm-corrected over all claims of the suite. A missing run leaves a
claim undecided, but tasks without any run and tasks that do not meet the claim's own conditions are left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from rosa_bench.errors import UsageError
from rosa_bench.records.collect import Collection, as_text, started_from
from rosa_bench.records.labels import cell_name
from rosa_bench.records.record import Record
from rosa_bench.stats.effects import Effect, Part, Region, effect
from rosa_bench.stats.significance import ALPHA, holm
from rosa_bench.stats.summary import NO_SPREAD, Numbers
from rosa_bench.suite import plan
from rosa_bench.suite.claims import Claim, Comparison
from rosa_bench.tables.claims.measures import MEASURES, Events, Measure, UnmeasuredError, constant, last_step, ratio_of
from rosa_bench.tables.convergence import reader
from rosa_bench.tables.costs import device, on_gpu
from rosa_bench.tables.matching import MODEL_OPTIONS, is_searched, started_for
from rosa_bench.tables.resampled import RESAMPLES, resampled_scores

Word = Literal["holds", "does not hold", "undecided"]
Run = tuple[str, bool, int]  # name of a cell, whether its rows are embedded, seed
Key = int | None  # the rank by which models are compared
ON_ONE_KIND = ("memory", "activations", "latency", "batch_latency")  # measures that a GPU changes
UNMET = 0.2  # a task with a larger p value for a condition is left out; 0.05 would exclude good tasks at three seeds


@dataclass(frozen=True)
class Model:
    """A variant of a planned run: what a claim selects and compares."""

    run: Run
    task: str
    variant: str
    is_main: bool
    rank: int | None  # at which it is scored
    config: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """The seed of its run."""
        return self.run[2]

    def fits(self, selected: Mapping[str, Any]) -> bool:
        """Whether a selection of `Comparison` includes this model."""
        if "variant" not in selected and not self.is_main:
            return False
        return all(
            self._value(key) in (wanted if isinstance(wanted, list) else [wanted])
            for key, wanted in selected.items()
            if (key, wanted) != ("variant", "any")
        )

    def _value(self, key: str) -> Any:
        group, _, option = key.partition(".")
        if key in ("rank", "variant"):
            return getattr(self, key)
        return self.config[group].get(option) if option else self.config["choices"].get(group)


def models(cells: Iterable[plan.Cell]) -> list[Model]:
    """Every variant of the planned runs, except runs that search for a learning rate."""
    planned = []
    for cell in (cell for cell in cells if not cell.is_tuning):
        config, names = cell.run.to_dict(), cell.run.method.variants()
        settings = settings_name(config, bool(cell.rates), cell.started_from or cell.run.start)
        run = settings, config["data"]["source"] == "embedded", cell.run.seed
        for name in names:
            rank = int(name[1:]) if re.fullmatch(r"r\d+", name) else config["method"].get("rank")
            planned.append(Model(run, cell.run.task.name, name, name == names[-1], rank, config))
    return planned


def settings_name(config: Mapping[str, Any], is_searched: bool = False, start: str | None = None) -> str:
    """A cell's name, made of its settings, without the learning rate if a search chooses it.

    `start` is what it starts from: a folder, or task and method of a run as in `started_from`.
    """
    options = as_text({name: config["model"].get(name, usual) for name, usual in MODEL_OPTIONS.items()})
    options += f" from {start}" if start else ""
    if not is_searched:
        return f"{cell_name({**config, 'start': None})} {options}"
    return f"searched {cell_name({**config, 'start': None, 'train': {**config['train'], 'lr': None}})} {options}"


def rows_of(record: Record) -> str:
    """The rows of a run by content, as text."""
    return str(sorted(record.data.get("sha256", {}).items()))


@dataclass(frozen=True)
class Result:
    """A comparison of a claim. Without an effect, `absent` says why."""

    comparison: Comparison
    rank: Key = None  # if each rank is tested separately
    effect: Effect | None = None
    tasks: Mapping[str, Effect] = field(default_factory=dict)  # the effect on each task
    planned: tuple[Run, ...] = ()
    records: tuple[Record, ...] = ()  # the finished ones of the planned runs
    absent: str = ""
    is_flat: bool = False  # whether a task has no effect because every seed has the same value

    @property
    def is_unmet(self) -> bool:
        """Whether all runs are finished but do not even suggest that the effect lies in the region."""
        is_complete = self.planned and len(self.records) == len(self.planned)
        return bool(is_complete and (self.is_flat or self.effect is not None) and self.p_inside >= UNMET)

    @property
    def is_ratio(self) -> bool:
        """Whether effects are logarithms of ratios."""
        return self.comparison.theirs is not None and MEASURES[self.comparison.measure].unit != "points"

    @property
    def region(self) -> Region:
        """The region of the effect, on its scale."""
        region = self.comparison.region
        return Region(*map(_log, (region.above, region.below))) if self.is_ratio else region

    @property
    def p_inside(self) -> float:
        """P value of the hypothesis that the effect lies outside the region; 1 without an effect."""
        return 1.0 if self.effect is None else self.effect.p_inside(self.region)

    @property
    def p_outside(self) -> float:
        """P value of the hypothesis that the effect lies inside the region; 1 without an effect."""
        return 1.0 if self.effect is None else self.effect.p_outside(self.region)


def _log(bound: float) -> float:
    return -math.inf if bound <= 0 else math.log(bound)


@dataclass(frozen=True)
class Verdict:
    """What the records of a suite say about a claim."""

    number: int
    claim: Claim
    word: Word
    reason: str  # why it is undecided
    results: tuple[Result, ...]
    given: tuple[Result, ...]
    p_holds: float  # Holm-corrected over the claims of the suite
    p_fails: float
    left_out: tuple[str, ...] = ()  # tasks that do not meet the claim's conditions

    @property
    def deciding(self) -> Result:
        """The comparison that decides: the one that fails, or the one that is least sure to hold."""
        if self.word == "does not hold":
            return min(self.results, key=lambda result: result.p_outside)
        return max(self.results, key=lambda result: (result.effect is None, result.p_inside))

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The runs behind the verdict, each once."""
        found = {id(record): record for result in (*self.results, *self.given) for record in result.records}
        return tuple(found.values())


def _effect(values: Sequence[float], measure: Measure) -> float:
    """The effect of one pair of sides: a difference of scores, the logarithm of a ratio, or the only side's value."""
    if len(values) == 1:
        return values[0]
    return values[0] - values[1] if measure.unit == "points" else ratio_of(*values)


def _unplanned(comparison: Comparison) -> str:
    sides = " and ".join(side_text(side) for side in (comparison.ours, comparison.theirs) if side)
    return f"the suite has no cells for {sides}"


def _missing(results: Sequence[Result]) -> str:
    """How many runs are missing; empty if none is."""
    planned = {run for result in results for run in result.planned}
    found = {id(record) for result in results for record in result.records}
    return f"{len(planned) - len(found)} of {len(planned)} runs missing" if len(found) < len(planned) else ""


class _UndecidedError(Exception):
    """A comparison cannot be decided; the message says why."""


class _FlatError(_UndecidedError):
    """Every seed has the same value."""


@dataclass(frozen=True)
class Judge:
    """Compares the runs of a suite."""

    collection: Collection
    models: Sequence[Model]
    suite: str = ""
    _scores: dict[tuple[int, str], Numbers] = field(default_factory=dict)  # on resamples, by record and variant
    _curves: dict[int, Events] = field(default_factory=dict)

    @cached_property
    def runs(self) -> Mapping[Run, Record]:
        """Finished runs by cell.

        If several fit a cell, those on the planned rows (`_preference`) win, then the last to finish if a search chose
        the learning rate. Such a run belongs to the suite that started it, since the rate comes from that suite's
        search; a run with a rate from the command line does not count.
        """
        found: dict[Run, Record] = {}
        preference = self._preference()

        def offer(run: Run, record: Record, by_end: bool) -> None:
            def rank(record: Record) -> tuple[tuple[bool, bool, int], str]:
                return preference(record), str(record.finished) if by_end else ""

            if run not in found or rank(record) > rank(found[run]):
                found[run] = record

        for group in self.collection.groups:
            config = group.first.config
            is_embedded = config["data"].get("source") == "embedded"
            for start in {started_from(group.first), config.get("start")}:
                name, searched = settings_name(config, False, start), settings_name(config, True, start)
                for seed, record in group.records.items():
                    offer((name, is_embedded, seed), record, by_end=False)
                    if started_for(record, self.suite) is not None and is_searched(record):
                        offer((searched, is_embedded, seed), record, by_end=True)
        return found

    def _preference(self) -> Callable[[Record], tuple[bool, bool, int]]:
        """How well a run's rows fit: from the planned folder, then the public release, then what most runs have."""
        folders = {model.task: model.config["data"].get("dir") for model in self.models}
        counts = Counter((record.task, rows_of(record)) for record in self.collection.records)

        def preference(record: Record) -> tuple[bool, bool, int]:
            folder, released = folders.get(record.task), record.data.get("released") or {}
            is_planned = folder is not None and record.config["data"].get("dir") == folder
            is_released = bool(released) and all(released.values())
            return is_planned, is_released, counts[record.task, rows_of(record)]

        return preference

    def results(self, comparison: Comparison, left_out: Container[str] = ()) -> list[Result]:
        """The results of a comparison without some tasks: one per rank if each is tested separately, else one."""
        sides = self._sides(comparison, left_out)
        ranks: list[Key] = [None]
        if comparison.each:
            ranks = [*sorted({model.rank for model in sides[0] if model.rank is not None})]
        results = []
        for rank in ranks:
            ours, theirs = ([m for m in side if rank in (None, m.rank)] for side in sides)
            planned = tuple(dict.fromkeys(model.run for model in (*ours, *theirs)))
            found = tuple(self.runs[run] for run in planned if run in self.runs)
            result = Result(comparison, rank, planned=planned, records=found)
            try:
                parts = self._parts(ours, theirs, result)
                tasks = {task: effect([part]) for task, part in parts.items()}
                result = replace(result, effect=effect([*parts.values()]), tasks=tasks)
            except _UndecidedError as error:
                result = replace(result, absent=str(error), is_flat=isinstance(error, _FlatError))
            results.append(result)
        return results or [Result(comparison, absent=_unplanned(comparison))]

    def left_out(self, claim: Claim) -> list[str]:
        """The tasks that, taken alone, do not meet a condition of a claim; none if nothing would be left to compare.

        Tasks with missing runs are kept, and so are tasks without any runs for the conditions.
        """
        tasks = self._tasks(claim.given)
        unmet = [
            task
            for task in tasks
            if any(result.is_unmet for c in claim.given for result in self.results(c, tasks - {task}))
        ]
        is_enough = tasks > {*unmet} and all(self._tasks([test]) - {*unmet} for test in claim.tests)
        return sorted(unmet) if is_enough else []

    def _tasks(self, comparisons: Sequence[Comparison]) -> set[str]:
        return {model.task for comparison in comparisons for side in self._sides(comparison) for model in side}

    def _sides(self, comparison: Comparison, left_out: Container[str] = ()) -> tuple[list[Model], list[Model]]:
        """Models of both sides, without tasks and ranks that only one side has."""
        models = [model for model in self.models if model.task not in left_out]
        ours = [model for model in models if model.fits(comparison.ours)]
        if comparison.theirs is None:
            return ours, []
        theirs = [model for model in models if model.fits(comparison.theirs)]

        def place(model: Model) -> tuple[str, Key]:
            return model.task, model.rank if comparison.by else None

        shared = {place(model) for model in ours} & {place(model) for model in theirs}
        if MEASURES[comparison.measure].additive:  # only tasks with all of the runs that are added up
            ranks = {task: {m.rank for m in (*ours, *theirs) if m.task == task} for task, _ in shared}
            most = max(map(len, ranks.values()), default=0)
            shared = {(task, rank) for task, rank in shared if len(ranks[task]) == most}
        return [m for m in ours if place(m) in shared], [m for m in theirs if place(m) in shared]

    def _parts(self, ours: Sequence[Model], theirs: Sequence[Model], result: Result) -> dict[str, Part]:
        """The effect on each task."""
        comparison = result.comparison
        measure = MEASURES[comparison.measure]
        if not result.planned:
            raise _UndecidedError(_unplanned(comparison))
        if len(result.records) < len(result.planned):
            raise _UndecidedError(_missing([result]))
        parts = {}
        for task in dict.fromkeys(model.task for model in ours):
            sides = [[m for m in side if m.task == task] for side in (ours, theirs)]
            self._check_alike([*sides[0], *sides[1]], comparison)
            try:
                part = self._part(task, [side for side in sides if side], comparison, measure)
            except UnmeasuredError as error:
                raise _UndecidedError(f"{task}: {error}") from error
            parts[task] = part
        return parts

    def _check_alike(self, selected: Sequence[Model], comparison: Comparison) -> None:
        """Raise _UndecidedError if runs of a task cannot be compared.

        All need the same rows and backbone, the seeds of a cell the same learning rate, times the same device, and
        losses the same number of steps.
        """
        records = [self.runs[model.run] for model in selected]
        if len(set(map(rows_of, records))) > 1:
            raise _UndecidedError(f"{records[0].task}: runs on different rows")
        if len({record.facts.get("backbone_hash") for record in records}) > 1:
            raise _UndecidedError(f"{records[0].task}: runs from different backbones")
        rates: dict[str, set[Any]] = {}  # by cell; a search has one winner for all seeds
        for model, record in zip(selected, records, strict=True):
            rates.setdefault(model.run[0], set()).add(record.config["train"].get("lr"))
        if any(len(of_cell) > 1 for of_cell in rates.values()):
            raise _UndecidedError(f"{records[0].task}: seeds of a cell at different learning rates")
        if comparison.measure == "seconds" and len(set(map(device, records))) > 1:
            raise _UndecidedError(f"{records[0].task}: times on different devices")
        if comparison.measure in ON_ONE_KIND and len(set(map(on_gpu, records))) > 1:
            raise _UndecidedError(f"{records[0].task}: {MEASURES[comparison.measure].name} with and without a GPU")
        if comparison.measure == "loss" and len({last_step(self._events(record)) for record in records}) > 1:
            raise _UndecidedError(f"{records[0].task}: runs of different numbers of steps")

    def _part(self, task: str, sides: Sequence[Sequence[Model]], comparison: Comparison, measure: Measure) -> Part:
        """The effect on one task: for each seed the mean over ranks, and its variance over examples."""
        by_cell: dict[tuple[str, str], set[int]] = {}  # every cell needs a seed, so that each seed has the same pairs
        for model in (model for side in sides for model in side):
            by_cell.setdefault((model.run[0], model.variant), set()).add(model.seed)
        seeds = sorted(set.intersection(*by_cell.values()))
        if len(seeds) < 2:
            raise _UndecidedError(f"{task}: one seed")
        by_seed, resampled, read = [], [], []
        for seed in seeds:
            pairs: dict[Key, list[list[Model]]] = {}
            for i, side in enumerate(sides):
                for model in side:
                    if model.seed == seed:
                        key = model.rank if comparison.by else None
                        pairs.setdefault(key, [[] for _ in sides])[i].append(model)
            values = [[self._value(side, comparison, measure) for side in pair] for pair in pairs.values()]
            read.append(values)
            by_seed.append(float(np.mean([_effect(pair, measure) for pair in values])))
            if measure.unit == "points":
                resampled += [self._scores_of(pair) for pair in pairs.values()]
        if not measure.exact and np.ptp(read, axis=0).max() <= NO_SPREAD * np.abs(read).max():
            raise _FlatError(f"{task}: every seed has the same {measure.name}")
        if not resampled:
            return Part(by_seed)
        return Part(by_seed, float(np.var(np.mean(resampled, axis=0), ddof=1)), RESAMPLES)

    def _scores_of(self, pair: Sequence[Sequence[Model]]) -> Numbers:
        """The effect [R] on resampled examples."""
        means = [np.mean([self._resampled(model) for model in side], axis=0) for side in pair]
        scores: Numbers = means[0] - means[1] if means[1:] else means[0]
        return scores

    def _value(self, side: Sequence[Model], comparison: Comparison, measure: Measure) -> float:
        values = []
        for model in side:
            record = self.runs[model.run]
            events = self._events(record) if comparison.measure == "loss" else ()
            values.append(measure.read(record, model.variant, events))
        return math.fsum(values) / (1 if measure.additive else len(values))

    def _resampled(self, model: Model) -> Numbers:
        """Scores [R] of a model on resampled examples, signed so that more is better."""
        record, variant = self.runs[model.run], model.variant
        key = id(record), variant
        if key not in self._scores:
            try:
                scores = resampled_scores(self.collection, record, variant)
            except UsageError as error:
                raise UnmeasuredError(str(error)) from error
            if scores is None and constant(record, variant):
                scores = np.zeros(RESAMPLES)
            if scores is None:
                raise UnmeasuredError(f"no predictions of {record.run_id}, which show how its score varies")
            if len(scores) != RESAMPLES:
                raise UnmeasuredError(f"{record.run_id} has {len(scores)} resampled scores instead of {RESAMPLES}")
            self._scores[key] = scores if record.primary.get("higher_is_better", True) else -scores
        return self._scores[key]

    def _events(self, record: Record) -> Events:
        if id(record) not in self._curves:
            self._curves[id(record)] = reader(self.collection)(record)
        return self._curves[id(record)]


def claims_of(suite: plan.Suite) -> list[Claim]:
    """A suite's claims: its own list, or the list of the suite it names. Raises UsageError like `plan.load`."""
    if not isinstance(suite.claims, str):
        return list(suite.claims)
    shared = plan.load(suite.claims).claims
    if isinstance(shared, str):
        raise UsageError(f"suite {suite.name}: claims={suite.claims} must name a suite with a list of claims")
    return list(shared)


def judge_suite(collection: Collection, suite: plan.Suite, overrides: Sequence[str] = ()) -> tuple[str, list[Verdict]]:
    """The title of a suite and the verdict on each of its claims. `overrides` are the ones its runs were started with.

    Tasks without a finished run are left out, and the title names the others.

    Raises:
        UsageError: if the suite cannot be planned.
    """
    claims = claims_of(suite)
    if not claims:
        return suite.title, []
    judge = Judge(collection, models(plan.plan(suite, overrides)), suite.name)
    tasks = dict.fromkeys(model.task for model in judge.models)
    begun = dict.fromkeys(model.task for model in judge.models if model.run in judge.runs)
    if not begun or len(begun) == len(tasks):
        return suite.title, judged(judge, claims)
    judge = replace(judge, models=[model for model in judge.models if model.task in begun])
    return f"{suite.title}, so far {', '.join(begun)}", judged(judge, claims)


def judged(judge: Judge, claims: Sequence[Claim]) -> list[Verdict]:
    """The verdict on every claim, with p values corrected over all of them."""
    decided = []
    without = [judge.left_out(claim) for claim in claims]
    pairs = [*zip(claims, without, strict=True)]
    results = [[r for c in claim.tests for r in judge.results(c, left_out)] for claim, left_out in pairs]
    given = [[r for c in claim.given for r in judge.results(c, left_out)] for claim, left_out in pairs]
    alone = [(max(r.p_inside for r in tests), min(_holm([r.p_outside for r in tests]))) for tests in results]
    corrected = zip(*(_holm(p_values) for p_values in zip(*alone, strict=True)), strict=True)
    for i, (claim, p_values) in enumerate(zip(claims, corrected, strict=True)):
        word, reason = _word(results[i], given[i], p_values, min(alone[i]))
        p_holds, p_fails = p_values
        tests, conditions, left_out = tuple(results[i]), tuple(given[i]), tuple(without[i])
        decided.append(Verdict(i + 1, claim, word, reason, tests, conditions, p_holds, p_fails, left_out))
    return decided


def _holm(p_values: Sequence[float]) -> list[float]:
    return [p for p in holm(p_values) if p is not None]


def _word(
    results: Sequence[Result], given: Sequence[Result], p_values: tuple[float, ...], alone: float
) -> tuple[Word, str]:
    """The verdict, and the reason if it is undecided. `alone` is the smaller p value, uncorrected over claims."""
    needed = [*results, *given]
    if absent := next((r.absent for r in needed if not r.planned), "") or _missing(needed):
        return "undecided", absent
    if absent := next((result.absent for result in needed if result.effect is None), ""):
        return "undecided", absent
    if unmet := next((result for result in given if result.p_inside >= ALPHA), None):
        return "undecided", f"these tasks do not show that the {text(unmet.comparison)}"
    if min(p_values) < ALPHA:
        return ("holds" if p_values[0] < ALPHA else "does not hold"), ""
    return "undecided", "only without Holm's correction" if alone < ALPHA else "the interval reaches across the bound"


def side_text(selected: Mapping[str, Any]) -> str:
    """A selection in words: "lora", "lora method.rank 1, 2"."""
    parts = []
    for key, wanted in selected.items():
        values = ", ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
        parts.append(values if key == "method" else f"{key} {values}")
    return " ".join(parts)


def text(comparison: Comparison) -> str:
    """A comparison and its region in words."""
    measure = MEASURES[comparison.measure]
    sides = [side_text(side) for side in (comparison.ours, comparison.theirs) if side]
    joined = (" − " if measure.unit == "points" else " / ").join(sides)
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", comparison.above), ("below", comparison.below))
        if bound is not None
    ]
    return f"{measure.name} of {joined} is {' and '.join(bounds)}" + (" at every rank" if comparison.each else "")
