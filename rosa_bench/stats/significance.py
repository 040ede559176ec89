"""Exact tests, Holm's correction and confidence intervals of differences, as pure functions.

`docs/background/statistics.md` lists the assumptions and the measured false positive rate of each test.
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

ALPHA = 0.05  # significance level
RESAMPLES = 10_000  # used where a distribution is not computed exactly
EXACT_WORK = 300_000_000  # most multiplications for an exact distribution; beyond it, signs are sampled


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p value of McNemar's test, from the numbers of examples that only one system gets right.

    Raises:
        ValueError: if a count is negative.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"counts must not be negative: {only_a}, {only_b}")
    return _probability(2 * special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))


def _probability(value: float) -> float:
    """Clamp to [smallest positive float, 1], so that a p value never underflows to 0."""
    return min(1.0, max(float(value), sys.float_info.min))


def sign_flip(differences: Sequence[int] | NDArray[np.int64], resamples: int = RESAMPLES, seed: int = SEED) -> float:
    """Two-sided p value of the paired permutation test of integer differences, one per example.

    Under the null hypothesis each difference could equally have the opposite sign. The distribution of the sum is then
    a convolution of binomial distributions, one per absolute value, and is computed exactly. If all differences are -1,
    0 or 1 (one run against one), it is a single binomial distribution and the test is McNemar's exact test. If the
    convolution would take too long (thousands of examples and unequal numbers of runs), signs are sampled `resamples`
    times instead, and p counts the observed signs as one more draw.
    """
    values = np.asarray(differences, dtype=np.int64)
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    unit = int(np.gcd.reduce(sizes))
    sizes, observed = sizes // unit, abs(int(values.sum())) // unit
    if len(sizes) == 1:
        discordant = int(counts[0])
        return mcnemar_exact((discordant - observed) // 2, (discordant + observed) // 2)
    total = int(sizes @ counts)
    if int(counts.sum()) * total <= EXACT_WORK:
        probabilities = _positive_sum_distribution(sizes, counts)
        sums = np.abs(2 * np.arange(total + 1) - total)
        return _probability(probabilities[sums >= observed].sum())
    return _sampled_sign_flip(np.repeat(sizes, counts), observed, resamples, seed)


def _positive_sum_distribution(sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> Numbers:
    """The probability of each sum of the differences with a positive sign, from 0 to the sum of all."""
    probabilities: Numbers = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        k = np.arange(count + 1)
        binomial = np.exp(
            special.gammaln(count + 1) - special.gammaln(k + 1) - special.gammaln(count - k + 1) - count * math.log(2.0)
        )
        convolved = np.zeros(len(probabilities) + size * count)
        for positive in np.flatnonzero(binomial).tolist():
            convolved[size * positive : size * positive + len(probabilities)] += binomial[positive] * probabilities
        probabilities = convolved
    return probabilities


def _sampled_sign_flip(sizes: NDArray[np.int64], observed: int, resamples: int, seed: int) -> float:
    generator, total, extreme, remaining = np.random.default_rng(seed), float(sizes.sum()), 0, resamples
    weights = sizes.astype(np.float64)
    while remaining:
        rows = min(remaining, max(1, 4_000_000 // len(sizes)))
        positive = generator.integers(0, 2, (rows, len(sizes)), dtype=np.uint8).astype(np.float64) @ weights
        extreme += int(np.count_nonzero(np.abs(2 * positive - total) >= observed))
        remaining -= rows
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p values of a family of tests by Holm's method (1979), in input order; None stays None.

    Rejecting adjusted p values below 0.05 keeps the family-wise error rate at 5 % under any dependence.

    Raises:
        ValueError: if a p value is not between 0 and 1.
    """
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    if not all(0 <= p <= 1 for p, _ in ranked):
        raise ValueError(f"p values must lie between 0 and 1: {list(p_values)!r}")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class SeedInterval:
    """A 95 % interval of the difference over seeds on fixed examples; `test` names it, or says why it is absent."""

    low: float | None
    high: float | None
    test: str


def seed_interval(method: Mapping[int, float], baseline: Mapping[int, float]) -> SeedInterval:
    """Student's interval of the mean difference of scores, paired if both groups have the same seeds, else Welch's.

    Args:
        method: scores by seed.
        baseline: scores by seed.

    Raises:
        ValueError: if a group has no score or a score is not finite.
    """
    first, second = list(method.values()), list(baseline.values())
    if not first or not second or not all(map(math.isfinite, [*first, *second])):
        raise ValueError("cannot compare seeds: both groups need finite scores")
    if min(len(first), len(second)) < 2:
        return SeedInterval(None, None, "absent: one seed")
    if method.keys() == baseline.keys():
        return _paired([method[seed] - baseline[seed] for seed in method], [*first, *second])
    return _welch(first, second)


def _paired(differences: Sequence[float], scale: Sequence[float]) -> SeedInterval:
    sd = statistics.stdev(differences)
    if no_spread(sd, scale):
        return SeedInterval(None, None, "absent: every seed has the same difference")
    center, half = statistics.fmean(differences), student(len(differences) - 1) * sd / math.sqrt(len(differences))
    return SeedInterval(center - half, center + half, "Student, paired by seed")


def _welch(first: Sequence[float], second: Sequence[float]) -> SeedInterval:
    errors = [statistics.variance(group) / len(group) for group in (first, second)]
    if no_spread(math.sqrt(sum(errors)), [*first, *second]):
        return SeedInterval(None, None, "absent: no spread between seeds")
    parts = zip(errors, (first, second), strict=True)
    freedom = sum(errors) ** 2 / sum(error**2 / (len(group) - 1) for error, group in parts)
    center, half = statistics.fmean(first) - statistics.fmean(second), student(freedom) * math.sqrt(sum(errors))
    return SeedInterval(center - half, center + half, "Welch")


def null_centered(difference: float, resampled: Numbers) -> tuple[float, float, float]:
    """Two-sided p value and 95 % interval of a difference from its bootstrap distribution.

    p is the share of resamples that lie at least as far from the difference as zero does; the difference itself counts
    as one more resample. The interval is symmetric: its half-width is the distance within which 95 % of the resamples
    lie. So the interval excludes zero if p is below 0.05, up to one resample.

    Returns:
        p, low, high.
    """
    distances = np.abs(resampled - difference)
    threshold = abs(difference) * (1 - 1e-9)  # values equal up to rounding count as equal
    p = (1 + int(np.count_nonzero(distances >= threshold))) / (1 + len(resampled))
    half = float(np.quantile(distances, LEVEL, method="higher"))
    return p, difference - half, difference + half
