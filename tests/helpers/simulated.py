"""Suites of simulated runs with planted effects, for measuring how often verdicts are wrong.

A run is right on an example with a probability that depends on the example, on the method, on both together, and on the
seed: a part of the seed's effect is common to all ranks of a method. Effects are in points and hold for the population
of seeds and examples, so a claim about them is true or false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rosa_bench.records.collect import Collection, Group
from rosa_bench.records.record import Record
from rosa_bench.stats.bootstrap import draws
from rosa_bench.suite import plan
from rosa_bench.suite.claims import Claim, Comparison
from rosa_bench.tables.claims.judge import Judge, Model, judged, models
from rosa_bench.tables.resampled import RESAMPLES

RIGHT = (0.75, 0.5, 0.25)  # how often a run is right on easy, middling and hard examples
SHARES = (0.6, 0.2, 0.2)
WITH_EXAMPLE = 0.1  # largest effect of a method on one example beyond its mean effect, as a share
BY_RUN, BY_SEED = 0.01, 0.007  # deviations between runs, and between seeds of a method, as shares


def claim(identity: str, *tests: Comparison, given: tuple[Comparison, ...] = ()) -> Claim:
    """A claim about simulated runs."""
    return Claim(
        id=identity, claim=identity, paper="none", place="none", printed="none", tests=[*tests], given=[*given]
    )


@dataclass(frozen=True)
class World:
    """A suite, its claims, and the true effect in points of each method, or of each method and rank or task."""

    suite: plan.Suite
    claims: list[Claim]
    effects: Mapping[str | tuple[str, int | str], float]
    examples: int = 1000

    @cached_property
    def planned(self) -> list[Model]:
        """Every variant of the planned runs."""
        return models(plan.plan(self.suite))

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each resample [R, E] draws each example."""
        return np.concatenate(list(draws(self.examples, RESAMPLES)))

    def effect(self, model: Model) -> float:
        """The true effect on a model's score, as a share."""
        method = model.config["choices"]["method"]
        keys = ((method, model.rank), (method, model.task), method)
        return next((self.effects[key] for key in keys if key in self.effects), 0.0) / 100

    def collection(self, seed: int) -> Collection:
        """A simulation of every run of the suite."""
        drawn = np.random.default_rng(seed)
        made = Collection([], {}, [])
        records: dict[tuple, Record] = {}
        for task in dict.fromkeys(model.task for model in self.planned):
            right_E = drawn.choice(RIGHT, self.examples, p=SHARES)
            liking: dict[str, np.ndarray] = {}
            common: dict[tuple[str, int], float] = {}
            for model in (model for model in self.planned if model.task == task):
                method = model.config["choices"]["method"]
                if method not in liking:
                    liking[method] = drawn.uniform(-WITH_EXAMPLE, WITH_EXAMPLE, self.examples)
                shared = common.setdefault((method, model.seed), BY_SEED * drawn.standard_normal())
                of_run = np.clip(BY_RUN * drawn.standard_normal() + shared, -0.05, 0.05)
                chance = right_E + self.effect(model) + liking[method] + of_run
                correct = (drawn.random(self.examples) < chance).astype(float)
                if model.run not in records:
                    records[model.run] = record(model, drawn)
                    made.groups.append(Group({}, {model.seed: records[model.run]}))
                    made.folders[id(records[model.run])] = Path("simulated")
                own = records[model.run]
                own.scores["validation"][model.variant] = {"accuracy": 100 * correct.mean()}
                scores = 100 * self.counts @ correct / self.examples
                made.resampled.setdefault(id(own), {})[model.variant] = scores
        return made

    def words(self, seed: int) -> dict[str, str]:
        """The verdict on every claim of one simulated suite."""
        return {v.claim.id: v.word for v in judged(Judge(self.collection(seed), self.planned), self.claims)}


def record(model: Model, drawn: np.random.Generator) -> Record:
    """A finished run, with times and latencies that vary by some percent; a method's options stand in its config."""
    method, config = model.config["choices"]["method"], dict(model.config)
    own = Record(f"{model.task}-{method}-{model.run}", str(model.run), model.task, "m", method, model.seed, config)
    own.status, own.scores, own.primary = "done", {"validation": {}}, {"metric": "accuracy", "split": "validation"}
    own.cost = {
        "cpu_s": 100 * np.exp(0.03 * drawn.standard_normal()),
        "inference": {"batch_1": {"ratio": 1.05 + 0.02 * drawn.standard_normal()}},
    }
    own.env = {"device": "cpu"}
    return own
