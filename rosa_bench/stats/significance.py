"""Exact tests, Holm's correction and intervals of differences. Pure functions.

What each test assumes and how often it is wrong where nothing differs: docs/statistics.md.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from rosa_bench.stats.summary import LEVEL, SEED, Numbers, no_spread, student

ALPHA = 0.05  # a smaller p is called significant
RESAMPLES = 10_000  # drawn where a distribution is not computed exactly
EXACT_WORK = 300_000_000  # multiplications an exact distribution may take before signs are drawn instead


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test: how the examples that one system alone has right fall to the two.

    Raises:
        ValueError: if a count is negative.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"counts are not negative: {only_a}, {only_b}")
    return _probability(2 * special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))


def _probability(value: float) -> float:
    """At most 1, and never 0: what is less than a float can hold is the least that it can."""
    return min(1.0, max(float(value), sys.float_info.min))


def sign_flip(differences: Sequence[int] | NDArray[np.int64], resamples: int = RESAMPLES, seed: int = SEED) -> float:
    """Two-sided p of the paired permutation test of whole-numbered differences, one per example.

    Under the null hypothesis each difference could as well have the other sign. The distribution of their sum is then a
    convolution of binomial distributions, one for each absolute value, and is computed, not drawn. Where all are -1, 0
    or 1 (one run against one) it is one binomial distribution, which makes the test McNemar's exact one. Only where the
    convolution would take too long (thousands of examples and unlike numbers of runs) signs are drawn, `resamples`
    times, and p counts the observed signs as one more draw.
    """
    whole = np.asarray(differences, dtype=np.int64)
    sizes, counts = np.unique(np.abs(whole[whole != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    unit = int(np.gcd.reduce(sizes))
    sizes, observed = sizes // unit, abs(int(whole.sum())) // unit
    if len(sizes) == 1:
        unlike = int(counts[0])
        return mcnemar_exact((unlike - observed) // 2, (unlike + observed) // 2)
    total = int(sizes @ counts)
    if int(counts.sum()) * total <= EXACT_WORK:
        likely = _sum_of_signs(sizes, counts)
        sums = np.abs(2 * np.arange(total + 1) - total)
        return _probability(likely[sums >= observed].sum())
    return _drawn_signs(np.repeat(sizes, counts), observed, resamples, seed)


def _sum_of_signs(sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> Numbers:
    """The probability of each sum of those differences whose sign is positive, from 0 to the sum of all."""
    likely: Numbers = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        k = np.arange(count + 1)
        binomial = np.exp(
            special.gammaln(count + 1) - special.gammaln(k + 1) - special.gammaln(count - k + 1) - count * math.log(2.0)
        )
        longer = np.zeros(len(likely) + size * count)
        for positive in np.flatnonzero(binomial).tolist():
            longer[size * positive : size * positive + len(likely)] += binomial[positive] * likely
        likely = longer
    return likely


def _drawn_signs(sizes: NDArray[np.int64], observed: int, resamples: int, seed: int) -> float:
    generator, all_of_them, beyond, left = np.random.default_rng(seed), float(sizes.sum()), 0, resamples
    weights = sizes.astype(np.float64)
    while left:
        rows = min(left, max(1, 4_000_000 // len(sizes)))
        positive = generator.integers(0, 2, (rows, len(sizes)), dtype=np.uint8).astype(np.float64) @ weights
        beyond += int(np.count_nonzero(np.abs(2 * positive - all_of_them) >= observed))
        left -= rows
    return (1 + beyond) / (1 + resamples)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p of every test of a family, in the order given; an absent one stays absent.

    Rejecting what is below 0.05 keeps the chance of any false rejection in the family at 5 %, however tests depend.

    Raises:
        ValueError: if a p is not between 0 and 1.
    """
    there = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    if not all(0 <= p <= 1 for p, _ in there):
        raise ValueError(f"a p value lies between 0 and 1: {list(p_values)!r}")
    adjusted: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank, (p, i) in enumerate(there):
        most = max(most, min(1.0, (len(there) - rank) * p))
        adjusted[i] = most
    return adjusted


@dataclass(frozen=True)
class SeedInterval:
    """A 95 % interval of the difference that new seeds would have on the same examples, or why there is none."""

    low: float | None
    high: float | None
    test: str


def seed_interval(method: Mapping[int, float], baseline: Mapping[int, float]) -> SeedInterval:
    """Student's interval of the mean difference of scores by seed, paired where both have the same seeds, else Welch's.

    Raises:
        ValueError: if a group has no score or one is not finite.
    """
    ours, theirs = list(method.values()), list(baseline.values())
    if not ours or not theirs or not all(map(math.isfinite, [*ours, *theirs])):
        raise ValueError("a comparison of seeds needs finite scores of both groups")
    if min(len(ours), len(theirs)) < 2:
        return SeedInterval(None, None, "absent: one seed")
    if method.keys() == baseline.keys():
        return _paired([method[seed] - baseline[seed] for seed in method], [*ours, *theirs])
    return _welch(ours, theirs)


def _paired(differences: Sequence[float], scale: Sequence[float]) -> SeedInterval:
    sd = statistics.stdev(differences)
    if no_spread(sd, scale):
        return SeedInterval(None, None, "absent: every seed has the same difference")
    centre, half = statistics.fmean(differences), student(len(differences) - 1) * sd / math.sqrt(len(differences))
    return SeedInterval(centre - half, centre + half, "Student, paired by seed")


def _welch(ours: Sequence[float], theirs: Sequence[float]) -> SeedInterval:
    errors = [statistics.variance(group) / len(group) for group in (ours, theirs)]
    if no_spread(math.sqrt(sum(errors)), [*ours, *theirs]):
        return SeedInterval(None, None, "absent: no spread between seeds")
    parts = zip(errors, (ours, theirs), strict=True)
    freedom = sum(errors) ** 2 / sum(error**2 / (len(group) - 1) for error, group in parts)
    centre, half = statistics.fmean(ours) - statistics.fmean(theirs), student(freedom) * math.sqrt(sum(errors))
    return SeedInterval(centre - half, centre + half, "Welch")


def null_centred(difference: float, resampled: Numbers) -> tuple[float, float, float]:
    """Two-sided p and 95 % interval of a difference from its bootstrap distribution.

    p is the share of resamples that lie as far from the difference as the difference lies from nothing, itself counted
    as one more. The interval is symmetric: the distance that 95 % of the resamples keep, to both sides. So the interval
    leaves out zero where p is below 0.05, up to the last resample.

    Returns:
        p, low, high.
    """
    away = np.abs(resampled - difference)
    near = abs(difference) * (1 - 1e-9)  # what is equal but for rounding counts as equal
    p = (1 + int(np.count_nonzero(away >= near))) / (1 + len(resampled))
    half = float(np.quantile(away, LEVEL, method="higher"))
    return p, difference - half, difference + half
