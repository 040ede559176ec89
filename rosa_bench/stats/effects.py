"""An effect estimated from a few seeds and a sample of examples, and tests of whether it lies in a region.

The estimate varies with the seeds of the runs and with the examples they are scored on. `Part` describes both for one
task, and `effect` averages tasks. `docs/background/statistics.md` explains the choice and gives the measured error
rates.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from rosa_bench.stats.summary import LEVEL

LEAST = 1e-12  # smallest tail that is searched for; smaller p values are reported as this


@dataclass(frozen=True)
class Part:
    """The effect on one task: a value per seed, and the variance of their mean over samples of examples.

    `resamples` is the number of resamples behind `examples`; 0 if the effect does not depend on evaluation examples.
    """

    by_seed: Sequence[float]
    examples: float = 0.0
    resamples: int = 0


@dataclass(frozen=True)
class Region:
    """An open interval, fixed before the runs, in which an effect must lie."""

    above: float = -math.inf
    below: float = math.inf


@dataclass(frozen=True)
class Effect:
    """An estimate with its two variances and their degrees of freedom."""

    value: float
    seeds: float  # variance of `value` over seeds
    seeds_freedom: float
    examples: float = 0.0  # variance of `value` over samples of examples
    examples_freedom: float = math.inf

    def half_width(self, tail: float) -> float:
        """Distance from the estimate that the true effect exceeds on each side with at most this probability.

        Both variances use Student's distribution, with few degrees of freedom for the seeds and many, hence close to
        the normal distribution, for the examples. The two distances are added in quadrature.
        """
        total = 0.0
        for variance, freedom in ((self.seeds, self.seeds_freedom), (self.examples, self.examples_freedom)):
            if variance > 0:
                total += variance * special.stdtrit(min(freedom, 1e9), 1 - tail) ** 2
        return math.sqrt(total)

    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        half = self.half_width((1 - LEVEL) / 2)
        return self.value - half, self.value + half

    def p_inside(self, region: Region) -> float:
        """P value of the hypothesis that the effect lies outside the region, by two one-sided tests."""
        return max(self._p_above(self.value - region.above), self._p_above(region.below - self.value))

    def p_outside(self, region: Region) -> float:
        """P value of the hypothesis that the effect lies inside the region."""
        sides = [p for p in (region.above - self.value, self.value - region.below) if math.isfinite(p)]
        return min(1.0, len(sides) * min(map(self._p_above, sides))) if sides else 1.0

    def _p_above(self, distance: float) -> float:
        """One-sided p value of an estimate that lies this far beyond a bound."""
        if math.isinf(distance):
            return 0.0 if distance > 0 else 1.0
        if distance < 0:
            return 1 - self._p_above(-distance)
        if self.half_width(LEAST) <= distance:
            return LEAST if distance > 0 else 0.5

        def excess(log_tail: float) -> float:
            return self.half_width(math.exp(log_tail)) - distance

        return math.exp(optimize.brentq(excess, math.log(LEAST), math.log(0.5)))


def effect(parts: Sequence[Part]) -> Effect:
    """The mean effect over tasks. Seeds and examples of different tasks are independent.

    Both variances have Welch-Satterthwaite degrees of freedom.

    Raises:
        ValueError: without tasks, or if a task has fewer than two seeds.
    """
    if not parts or min(len(part.by_seed) for part in parts) < 2:
        raise ValueError("an effect needs at least two seeds of every task")
    share = len(parts) ** -2
    value = math.fsum(float(np.mean(part.by_seed)) for part in parts) / len(parts)
    seeds = [(share * float(np.var(part.by_seed, ddof=1)) / len(part.by_seed), len(part.by_seed) - 1) for part in parts]
    examples = [(share * part.examples, part.resamples - 1) for part in parts if part.resamples > 1]
    return Effect(value, *_sum(seeds), *(_sum(examples) if examples else ()))


def _sum(variances: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The sum of independent variance estimates and its degrees of freedom."""
    total = math.fsum(variance for variance, _ in variances)
    spread = math.fsum(variance**2 / freedom for variance, freedom in variances)
    if spread <= sys.float_info.min:
        return total, float(sum(freedom for _, freedom in variances))
    return total, total**2 / spread
