"""Scores of resamples against the official metric on the same rows, and against scipy's bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from support import composed

from rosa_bench import metrics
from rosa_bench.core.task import Prediction
from rosa_bench.metrics.metric import score_all
from rosa_bench.stats.bootstrap import NoStatisticError, Statistic, differences, draws

E = 60
SYNTHETIC = composed("task=synthetic").task


def rows(metric: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels for a metric: classes, or scores with many ties."""
    drawn = np.random.default_rng(seed)
    if metric in ("mse", "r2"):
        labels = drawn.standard_normal((E, 3)) * [1.0, 5.0, 0.1] + 40
        return labels + drawn.standard_normal((E, 3)), labels
    if metric in ("pearson", "spearman"):
        labels = drawn.integers(0, 26, E) / 5
        return np.round(labels + drawn.standard_normal(E), 1), labels
    classes = 3 if metric in ("matthews", "accuracy") else 2
    labels = drawn.integers(0, classes, E)
    return np.where(drawn.random(E) < 0.6, labels, drawn.integers(0, classes, E)), labels


def official(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float | None:
    if metric not in ("mse", "r2"):  # by the task's own `score`
        return score_all([metrics.find(metric)], predictions, labels).get(metric)
    pairs = zip(predictions.tolist(), labels.tolist(), strict=True)
    result = SYNTHETIC.score("validation", [Prediction("", v, label) for v, label in pairs])
    return result[metric]


def statistic(metric: str, predictions: np.ndarray, labels: np.ndarray) -> Statistic:
    return metrics.find(metric).statistic(predictions, labels)


@pytest.mark.parametrize("metric", metrics.names())
@pytest.mark.parametrize("seed", [0, 1])
def test_a_resample_has_the_score_of_the_resampled_rows(metric, seed):
    predictions, labels = rows(metric, seed)
    result = statistic(metric, predictions, labels)
    drawn = np.random.default_rng(5).integers(0, E, (20, E))
    counts = np.stack([np.bincount(row, minlength=E) for row in drawn]).astype(float)
    afresh = [official(metric, predictions[row], labels[row]) for row in drawn]
    assert result.resampled(counts) == pytest.approx(afresh, rel=1e-9)
    assert result.resampled(np.ones((1, E))) == pytest.approx([result.score], rel=1e-12)
    assert np.std(afresh) > 0


def test_a_resampled_error_of_a_single_output():
    """A task with one output predicts numbers, and its labels are lists of one number."""
    predictions, labels = rows("mse")
    result = statistic("mse", predictions[:, 0], labels[:, :1])
    assert result.resampled(np.ones((1, E))) == pytest.approx([result.score], rel=1e-12)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_a_correlation_with_one_value_is_undefined(metric):
    predictions, labels = rows(metric)
    predictions[3:] = predictions[3] + 1e3
    result = statistic(metric, predictions, labels)
    counts = np.ones((3, E))
    counts[0, :3], counts[0, 9], counts[1, :], counts[1, 5] = 0, 4, 0, E
    assert np.isnan(result.resampled(counts)).tolist() == [True, True, False]
    with pytest.raises(NoStatisticError, match="undefined"):
        statistic(metric, np.full(E, 2.5), labels)


def test_r2_of_equal_labels_is_undefined():
    predictions, labels = rows("r2")
    same = [Prediction("", [1.0] * 3, [2.0] * 3)] * 2
    scores = SYNTHETIC.score("validation", same)
    assert scores == {"mse": 1.0} and "same label" in scores.absent["r2"]
    result = statistic("r2", predictions, labels)
    counts = np.zeros((1, E))
    counts[0, 7] = E
    assert np.isnan(result.resampled(counts)).all()


@pytest.mark.parametrize("metric", ["matthews", "f1"])
def test_a_resample_in_which_the_metric_is_undefined(metric):
    """Without labels of class 1, Matthews is undefined, and F1 is 0 if class 1 is predicted, else undefined."""
    predictions, labels = np.zeros(E, int), np.r_[np.ones(4, int), np.zeros(E - 4, int)]
    predictions[[0, 10]] = 1
    counts = np.ones((2, E))
    counts[:, :4], counts[:, 9] = 0, 5
    counts[1, 10], counts[1, 9] = 0, 6
    first, second = statistic(metric, predictions, labels).resampled(counts)
    assert np.isnan(second) and (first == 0.0 if metric == "f1" else np.isnan(first))
    assert official(metric, predictions[4:], labels[4:]) == (0.0 if metric == "f1" else None)


def test_an_unknown_metric_is_refused():
    with pytest.raises(NoStatisticError, match="perplexity"):
        composed("task=cola").task.statistic("perplexity", [Prediction("", 1, 1)])


@pytest.mark.parametrize("examples", [1, 7, 1000, 300_000])
def test_draws_are_complete_resamples_and_reproducible(examples):
    first = np.concatenate(list(draws(examples, 5)))
    assert first.shape == (5, examples) and (first.sum(1) == examples).all() and (first >= 0).all()
    assert (first == np.concatenate(list(draws(examples, 5)))).all()
    assert examples == 1 or (first != np.concatenate(list(draws(examples, 5, seed=1)))).any()


def test_draws_have_a_multinomial_distribution():
    counts = np.concatenate(list(draws(8, 20_000)))
    assert counts.mean(0) == pytest.approx([1.0] * 8, abs=4 * math.sqrt(7 / 8 / 20_000))
    assert np.cov(counts.T)[0, 0] == pytest.approx(7 / 8, rel=0.05)
    assert np.cov(counts.T)[0, 1] == pytest.approx(-1 / 8, rel=0.25)


PLAIN = {  # by their definitions, for classes 0 and 1
    "pearson": lambda x, y: 100 * np.corrcoef(x, y)[0, 1],
    "spearman": lambda x, y: 100 * np.corrcoef(scipy_stats.rankdata(x), scipy_stats.rankdata(y))[0, 1],
    "matthews": lambda x, y: 100 * np.corrcoef(x, y)[0, 1],
    "f1": lambda x, y: 200 * np.sum(x * y) / np.sum(x + y),
}


@pytest.mark.parametrize("metric", PLAIN)
def test_the_distribution_of_a_difference_equals_scipys_paired_bootstrap(metric):
    first, labels = rows("f1" if metric == "matthews" else metric, 2)
    noise = np.random.default_rng(9)
    second = np.where(noise.random(E) < 0.2, noise.permutation(first), first)
    assert PLAIN[metric](first, labels) == pytest.approx(official(metric, first, labels))
    oracle = scipy_stats.bootstrap(
        (first, second, labels),
        lambda a, b, y: PLAIN[metric](a, y) - PLAIN[metric](b, y),
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    drawn = differences([statistic(metric, first, labels)], [statistic(metric, second, labels)])
    error = float(np.std(drawn))
    assert oracle.standard_error == pytest.approx(error, rel=4 / math.sqrt(2 * 2000))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        density = scipy_stats.norm.pdf(scipy_stats.norm.ppf(share)) / error
        near = pytest.approx(np.quantile(drawn, share), abs=5 * math.sqrt(share * (1 - share) / 2000) / density)
        assert np.quantile(oracle.bootstrap_distribution, share) == near


def test_groups_are_averaged_over_their_runs():
    first, labels = rows("f1", 3)
    runs = [statistic("f1", np.random.default_rng(i).permutation(first), labels) for i in range(4)]
    counts = np.concatenate(list(draws(E, 50)))
    one_by_one = np.array([run.resampled(counts) for run in runs])
    expected = one_by_one[:3].mean(0) - one_by_one[3]
    assert differences(runs[:3], runs[3:], resamples=50) == pytest.approx(expected)
