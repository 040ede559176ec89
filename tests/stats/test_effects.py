"""Effects over seeds and examples: closed forms, other implementations, and error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats
from scipy.stats import binom

from rosa_bench.stats.effects import Effect, Part, Region, effect

ABOVE_ZERO = Region(above=0)


def test_one_task_without_examples_is_students_test():
    values = [1.0, 2.5, 0.7, 1.9]
    found = effect([Part(values)])
    reference = stats.ttest_1samp(values, 0, alternative="greater")
    assert found.value == pytest.approx(np.mean(values))
    assert found.p_inside(ABOVE_ZERO) == pytest.approx(reference.pvalue, rel=1e-6)
    assert found.interval() == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())
    assert found.p_outside(ABOVE_ZERO) == pytest.approx(1 - reference.pvalue)


def test_tasks_add_up_as_welch_and_satterthwaite_say():
    ours, theirs = [3.0, 5.0, 4.1], [2.0, -1.0, 0.5, 0.2]
    welch = stats.ttest_ind(ours, [-v for v in theirs], equal_var=False)
    found = effect([Part(ours), Part(theirs)])  # the mean of two tasks is half the difference to the negated ones
    assert found.seeds_freedom == pytest.approx(welch.df)
    assert found.value / math.sqrt(found.seeds) == pytest.approx(welch.statistic)


def test_examples_alone_are_nearly_normal():
    found = Effect(1.0, 0.0, 4, examples=0.25, examples_freedom=1e6)
    assert found.p_inside(ABOVE_ZERO) == pytest.approx(stats.norm.sf(2), rel=1e-3)


def test_seeds_and_examples_widen_the_interval_together():
    both, seeds = effect([Part([1, 2, 3], 0.3, 200)]), effect([Part([1, 2, 3])])
    half = stats.t.ppf(0.975, 2) ** 2 / 3 + stats.t.ppf(0.975, 199) ** 2 * 0.3
    assert both.interval()[1] - both.value == pytest.approx(math.sqrt(half))
    assert both.p_inside(ABOVE_ZERO) > seeds.p_inside(ABOVE_ZERO)


@pytest.mark.parametrize("value", [-3.0, -0.9, 0.0, 0.9, 3.0])
def test_a_region_is_two_one_sided_tests(value):
    found = Effect(value, 0.04, 9)
    below = stats.t.sf((value + 1) / 0.2, 9), stats.t.sf((1 - value) / 0.2, 9)
    assert found.p_inside(Region(-1, 1)) == pytest.approx(max(below), rel=1e-4)
    assert found.p_outside(Region(-1, 1)) == pytest.approx(min(1, 2 * min(1 - p for p in below)), abs=1e-9)


def test_an_exact_effect_is_on_one_side_and_at_the_bound_on_neither():
    for value, inside, outside in ((2.0, 1e-12, 1.0), (1.0, 0.5, 0.5), (0.5, 1.0, 1e-12)):
        found = effect([Part([value] * 3)])
        assert found.interval() == (value, value)
        assert (found.p_inside(Region(above=1)), found.p_outside(Region(above=1))) == pytest.approx((inside, outside))


@pytest.mark.parametrize("parts", [[], [Part([1.0])], [Part([1.0, 2.0]), Part([1.0])]])
def test_fewer_than_two_seeds_have_no_effect(parts):
    with pytest.raises(ValueError, match="two seeds"):
        effect(parts)


@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize("examples", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("alpha", [0.05, 0.004])
def test_three_seeds_and_a_sample_of_examples_keep_the_rate(tasks, examples, alpha):
    """Effects of true value 0, as far as the seeds (variance 1 of their mean) and examples of a task move them."""
    trials, seeds = 20_000, 3
    drawn = np.random.default_rng(tasks)
    by_seed = math.sqrt(seeds) * drawn.standard_normal((trials, tasks, seeds))
    by_seed += math.sqrt(examples) * drawn.standard_normal((trials, tasks, 1))
    variance = by_seed.var(2, ddof=1) / seeds
    freedom = variance.sum(1) ** 2 / (variance**2 / (seeds - 1)).sum(1)
    value, of_seeds, of_examples = by_seed.mean((1, 2)), variance.sum(1) / tasks**2, examples / tasks
    quantiles = special.stdtrit(freedom, 1 - alpha), special.stdtrit(199 * tasks, 1 - alpha)
    bounds = np.sqrt(quantiles[0] ** 2 * of_seeds + quantiles[1] ** 2 * of_examples)
    few = [effect([Part(row, examples, 200) for row in task]) for task in by_seed[:20]]
    assert [e.half_width(alpha) for e in few] == pytest.approx(bounds[:20].tolist(), rel=1e-3)  # the same arithmetic
    assert np.sum(value > bounds) <= binom.ppf(0.999, trials, alpha)
    if examples == 3.0:  # leaving out either source of variance is wrong much more often
        assert np.sum(value > quantiles[0] * np.sqrt(of_seeds)) > binom.ppf(0.999, trials, 2 * alpha)
