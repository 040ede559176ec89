"""Summaries, exact tests and corrections: against scipy, closed forms and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rosa_bench.stats import significance
from rosa_bench.stats.significance import holm, mcnemar_exact, null_centered, seed_interval, sign_flip
from rosa_bench.stats.summary import Summary, summary


def test_summary_of_one_value_has_no_spread_and_no_interval():
    assert summary([61.5]) == Summary(1, 61.5, 61.5)


@pytest.mark.parametrize("value", [0.0, 56.34, 0.1])
def test_equal_values_have_no_interval(value):
    result = summary([value] * 6)
    assert result.sd == pytest.approx(0, abs=1e-12) and result.mean == pytest.approx(value)
    assert (result.low, result.high, result.median_low, result.median_high) == (None,) * 4


@pytest.mark.parametrize("values", [[3.0, 1.0], [60.1, 61.9, 58.7], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]])
def test_the_means_interval_equals_scipys_student(values):
    result, oracle = summary(values), scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((oracle.low, oracle.high), rel=1e-12)
    assert result.sd == pytest.approx(np.std(values, ddof=1)) and result.median == np.median(values)
    assert result == summary(values)


@pytest.mark.parametrize("n", [6, 7, 9, 12, 25, 60])
def test_the_medians_interval_is_the_shortest_of_order_statistics_that_covers(n):
    result = summary([float(i) for i in range(n)])
    assert result.median_low is not None and result.median_high is not None
    below = int(result.median_low)  # values outside on each side
    assert result.median_high == n - 1 - below
    coverage = 1 - 2 * scipy_stats.binom.cdf(below, n, 0.5)
    narrower = 1 - 2 * scipy_stats.binom.cdf(below + 1, n, 0.5)
    assert coverage >= 0.95 > narrower


def test_few_values_enclose_the_median_by_a_simulated_factor():
    result = summary([1.0, 2.0, 3.0])
    assert result.median_high is not None and result.median_low is not None
    assert result.median_high - 2.0 == pytest.approx(2.0 - result.median_low)
    assert (result.median_high - 2.0) * math.sqrt(3) == pytest.approx(4.41, abs=0.06)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_summary_refuses_values_that_are_not_finite(values):
    with pytest.raises(ValueError, match="finite"):
        summary(values)


def test_mcnemar_equals_scipys_binomial_test():
    for a, b in itertools.product([0, 1, 2, 3, 7, 20, 99, 1000], repeat=2):
        oracle = scipy_stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
        assert mcnemar_exact(a, b) == pytest.approx(oracle, rel=1e-9)
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 3)


@pytest.mark.parametrize("scale", [1, 4])
def test_sign_flips_of_one_run_each_equal_mcnemars_test(scale):
    for a, b in itertools.product([0, 1, 5, 17, 300], repeat=2):
        differences = scale * np.array([1] * a + [-1] * b + [0] * 11)
        assert sign_flip(differences) == mcnemar_exact(a, b)


@pytest.mark.parametrize("seed", range(6))
def test_sign_flips_equal_brute_force_over_all_permutations(seed):
    differences = np.random.default_rng(seed).integers(-5, 6, 12)
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    oracle = np.mean(np.abs(signs @ differences) >= abs(differences.sum()))
    assert sign_flip(differences) == pytest.approx(oracle, rel=1e-12)


def test_sign_flips_agree_with_scipys_permutation_test():
    first, second = np.random.default_rng(3).integers(0, 6, (2, 11))
    oracle = scipy_stats.permutation_test(
        (first, second), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip(first - second) == pytest.approx(oracle.pvalue, rel=1e-12)


def test_drawn_signs_agree_with_the_exact_distribution(monkeypatch):
    differences = np.random.default_rng(1).integers(-15, 17, 300)
    exact = sign_flip(differences)
    monkeypatch.setattr(significance, "EXACT_WORK", 0)
    drawn = sign_flip(differences, resamples=20_000)
    assert drawn == sign_flip(differences, resamples=20_000) != sign_flip(differences, resamples=20_000, seed=5)
    assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000) + 1 / 20_000


def test_sign_flips_of_a_large_set_keep_small_probabilities():
    differences = np.repeat([1, 2, 3, -1, -2], [3000, 1100, 400, 2000, 1000])
    z = differences.sum() / math.sqrt(float((differences.astype(float) ** 2).sum()))
    assert z > 18
    assert math.log(sign_flip(differences)) == pytest.approx(math.log(2) + scipy_stats.norm.logsf(z), rel=0.02)
    assert sign_flip(np.ones(5000, int)) > 0 and sign_flip(np.repeat([1, 2], 3000)) > 0
    assert sign_flip(np.zeros(40, int)) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5, None, 0.9, 0.02]) == [None, 1.0, None, 1.0, pytest.approx(0.06)]
    assert holm([]) == [] and holm([None]) == [None] and holm([0.2]) == [0.2]
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


@pytest.mark.parametrize("seed", range(4))
def test_holm_equals_the_step_down_procedure(seed):
    p = np.random.default_rng(seed).uniform(0, 0.08, 7)
    rejected = np.zeros(7, bool)
    for rank, i in enumerate(np.argsort(p)):
        if p[i] > 0.05 / (7 - rank):
            break
        rejected[i] = True
    adjusted = holm(p.tolist())
    assert [value is not None and value <= 0.05 for value in adjusted] == rejected.tolist()


def test_equal_seeds_are_paired():
    ours, theirs = {1: 60.0, 2: 62.5, 3: 61.0}, {3: 59.0, 1: 58.5, 2: 60.0}
    result = seed_interval(ours, theirs)
    oracle = scipy_stats.ttest_rel([60.0, 62.5, 61.0], [58.5, 60.0, 59.0]).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)
    assert result.test == "Student, paired by seed"


def test_different_seeds_are_compared_by_welch():
    ours, theirs = {1: 60.0, 2: 62.5, 3: 61.0, 4: 63.0}, {1: 59.0, 2: 58.5, 9: 60.0}
    result = seed_interval(ours, theirs)
    oracle = scipy_stats.ttest_ind(list(ours.values()), list(theirs.values()), equal_var=False).confidence_interval(
        0.95
    )
    assert (result.low, result.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)
    assert result.test == "Welch"


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({1: 60.0}, {1: 59.0}, "one seed"),
        ({1: 60.0, 2: 61.0}, {1: 59.0}, "one seed"),
        ({1: 70.1, 2: 71.2}, {1: 68.1, 2: 69.2}, "the same difference"),
        ({1: 70.1, 2: 70.1}, {1: 68.1, 3: 68.1}, "no spread"),
    ],
)
def test_seeds_without_an_interval_have_a_reason(ours, theirs, message):
    result = seed_interval(ours, theirs)
    assert result.low is None and result.high is None and message in result.test


def test_interval_and_p_of_a_bootstrap_agree():
    drawn = np.random.default_rng(0).standard_normal(9_999)
    for difference in np.linspace(-3, 3, 121):
        p, low, high = null_centered(float(difference), drawn + difference)
        assert (low > 0 or high < 0) == (p < 0.05)
        assert p == pytest.approx(2 * scipy_stats.norm.sf(abs(difference)), abs=0.02)
    assert null_centered(0.0, drawn)[0] == 1.0
