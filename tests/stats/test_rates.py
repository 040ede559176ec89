"""False-positive rates, power and coverage by simulation, with binomial bounds."""

from __future__ import annotations

import numpy as np
import pytest
import rates
from scipy.stats import binom

from rosa_bench.stats.significance import ALPHA
from rosa_bench.stats.summary import LEVEL

SURE = 0.001  # chance that a test of the right rate leaves its bounds


def at_most(rate: float, trials: int) -> int:
    """Upper bound of the number of events for a rate up to `rate`."""
    return int(binom.ppf(1 - SURE, trials, rate))


def at_least(rate: float, trials: int) -> int:
    """Lower bound of the number of events for a rate of at least `rate`."""
    return int(binom.ppf(SURE, trials, rate))


def wrong(metric: str, examples: int, runs: tuple[int, int], datasets: int, resamples: int) -> int:
    return int(np.sum(rates.p_values(metric, examples, runs, datasets, resamples) < ALPHA))


@pytest.mark.parametrize("metric", ["matthews", "f1", "pearson", "bleu"])
def test_the_false_positive_rate_of_the_bootstrap_is_nominal(metric):
    result = wrong(metric, 200, (1, 1), 300, 300)
    assert at_least(ALPHA, 300) <= result <= at_most(ALPHA, 300)


@pytest.mark.parametrize("runs", [(1, 1), (3, 3), (3, 2)])
def test_the_false_positive_rate_of_exact_tests_is_at_most_nominal(runs):
    result = wrong("accuracy", 100, runs, 500, 20)
    assert 0 < result <= at_most(ALPHA, 500)


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "pearson"])
def test_power_grows_with_the_effect(metric):
    effects = (0.0, 0.3, 0.8)
    result = [np.sum(rates.p_values(metric, 200, (2, 2), 60, 200, effect) < ALPHA) for effect in effects]
    assert result[0] <= at_most(ALPHA, 60) < result[1] < result[2] and result[2] > 50


def test_holm_controls_the_rate_of_a_family():
    assert 0 < rates.families(5, 100, 200) <= at_most(ALPHA, 200)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_of_few_normal_values_have_nominal_coverage_and_percentiles_do_not(n):
    mean, median, percentile = rates.covered("normal", n, 1500)
    for result in (mean, median):
        assert at_least(LEVEL, 1500) <= result <= at_most(LEVEL, 1500)
    assert percentile < at_least(0.87, 1500)


@pytest.mark.parametrize("shape", rates.SHAPES)
def test_the_medians_interval_covers_for_any_distribution(shape):
    assert rates.covered(shape, 8, 800)[1] >= at_least(LEVEL, 800)
    assert rates.covered(shape, 5, 800)[1] >= at_least(0.92, 800)


def test_a_difference_on_examples_need_not_hold_for_new_seeds():
    by_examples, by_seeds, by_both = rates.holding(300, 4, 0.5, 150)
    assert by_examples > at_most(2 * ALPHA, 150)
    assert by_both <= by_seeds <= at_most(ALPHA, 150)


@pytest.mark.slow
@pytest.mark.parametrize("metric", [*rates.MAKERS, "bleu"])
@pytest.mark.parametrize("examples", [200, 500])
def test_rates_of_many_data_sets(metric, examples):
    for runs in ((1, 1), (5, 5)) if metric != "bleu" else ((1, 1),):
        result = wrong(metric, examples, runs, 2000, 1000)
        assert result <= at_most(ALPHA, 2000)
        assert metric == "accuracy" or result >= at_least(ALPHA, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 10])
def test_coverage_of_many_samples(n):
    mean, median, _ = rates.covered("normal", n, 20_000)
    assert at_least(LEVEL, 20_000) <= mean <= at_most(LEVEL, 20_000)
    assert at_least(LEVEL, 20_000) <= median and (n > 5 or median <= at_most(LEVEL, 20_000))


@pytest.mark.slow
def test_holm_and_both_conditions_over_many_data_sets():
    assert rates.families(5, 200, 2000) <= at_most(ALPHA, 2000)
    for spread in (0.0, 0.1, 0.3):
        _, by_seeds, by_both = rates.holding(500, 5, spread, 2000)
        assert by_both <= by_seeds <= at_most(ALPHA, 2000)
