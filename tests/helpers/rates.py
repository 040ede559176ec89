"""Simulates the error rates of the significance tests and the coverage of the intervals.

    python tests/helpers/rates.py [--datasets 2000] [--resamples 1000]

prints the tables of docs/background/statistics.md. Every data set is drawn independently; runs tend to err on
the same, hard examples.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np

from rosa_bench import metrics
from rosa_bench.metrics import conventions
from rosa_bench.stats.bootstrap import Statistic
from rosa_bench.stats.significance import ALPHA, holm, seed_interval
from rosa_bench.stats.summary import summary
from rosa_bench.tables.paired_tests import examples_test

Group = list[Statistic]
POSITIVE = {"matthews": 0.7, "f1": 0.68, "accuracy": 0.5}  # share of the class 1, as in CoLA and MRPC


def score_of(result: Statistic) -> Statistic:
    """The statistic, with its score on all examples in place of an official score."""
    return Statistic(float(result.resampled(np.ones((1, result.examples)))[0]), *list(vars(result).values())[1:])


def classes(metric: str, drawn: np.random.Generator, examples: int, runs: tuple[int, int], effect: float):
    """Predicted classes of runs whose chance of being right depends on the example; `effect` is in logits."""
    labels = (drawn.random(examples) < POSITIVE[metric]).astype(float)
    hard = 1.2 + 1.5 * drawn.standard_normal(examples)
    for count, better in zip(runs, (effect, 0.0), strict=True):
        right = drawn.random((count, examples)) < 1 / (1 + np.exp(-(hard + better)))
        yield [score_of(metrics.find(metric).statistic(np.where(row, labels, 1 - labels), labels)) for row in right]


def scores(metric: str, drawn: np.random.Generator, examples: int, runs: tuple[int, int], effect: float):
    """Similarity scores with errors per example and per run; `effect` reduces the latter."""
    labels = drawn.integers(0, 26, examples) / 5
    common = labels + 0.7 * drawn.standard_normal(examples)
    for count, better in zip(runs, (effect, 0.0), strict=True):
        message = common + 0.7 * math.exp(-better) * drawn.standard_normal((count, examples))
        yield [score_of(metrics.find(metric).statistic(row, labels)) for row in message]


WORDS = [f"w{i}" for i in range(40)]


class Texts:
    """Outputs of two systems for a pool of references. A data set samples some and assigns the outputs to groups."""

    def __init__(self, pool: int = 600, kept: float = 0.8, seed: int = 0) -> None:
        drawn, self.pool = np.random.default_rng(seed), pool
        references = [list(drawn.choice(WORDS, drawn.integers(6, 20))) for _ in range(pool)]

        def output(reference: list[str]) -> str:
            return " ".join(w if drawn.random() < kept else str(drawn.choice(WORDS)) for w in reference)

        outputs = [output(reference) for _ in range(2) for reference in references]
        texts = [[" ".join(reference)] for reference in references] * 2
        self.whole = conventions.statistic("e2e", "official", "bleu", outputs, texts)

    def __call__(self, metric: str, drawn: np.random.Generator, examples: int, runs: tuple[int, int], effect: float):
        """One run per group, with outputs assigned by coin flips; `effect` is ignored."""
        assert runs == (1, 1) and not effect
        chosen = drawn.choice(self.pool, examples, replace=False)
        coin = drawn.integers(0, 2, examples)
        for side in (coin, 1 - coin):
            yield [score_of(Statistic(0.0, examples, self._of(chosen + self.pool * side)))]

    def _of(self, chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def resampled(counts: np.ndarray) -> np.ndarray:
            spread = np.zeros((len(counts), 2 * self.pool))
            spread[:, chosen] = counts
            return self.whole.resampled(spread)

        return resampled


MAKERS = {"accuracy": classes, "matthews": classes, "f1": classes, "pearson": scores, "spearman": scores}


def p_values(
    metric: str, examples: int, runs: tuple[int, int], datasets: int, resamples: int, effect: float = 0.0, seed: int = 1
) -> np.ndarray:
    """The p value of every data set."""
    maker = Texts() if metric == "bleu" else MAKERS[metric]
    results = []
    for number in range(datasets):
        ours, theirs = maker(metric, np.random.default_rng([seed, number]), examples, runs, effect)
        difference = np.mean([run.score for run in ours]) - np.mean([run.score for run in theirs])
        results.append(examples_test(metrics.traits(metric)[0], float(difference), ours, theirs, resamples)[2])
    return np.array(results, float)


def families(tests: int, examples: int, datasets: int, seed: int = 1) -> int:
    """Number of families of methods equal to their baseline in which some accuracy differs after Holm's correction."""
    wrong = 0
    for number in range(datasets):
        drawn = np.random.default_rng([seed, number])
        ours, baseline = classes("accuracy", drawn, examples, (2 * tests, 2), 0.0)
        pairs = [examples_test("signs", 0.0, ours[2 * i : 2 * i + 2], baseline, 20)[2] for i in range(tests)]
        wrong += any(p is not None and p < ALPHA for p in holm(pairs))
    return wrong


SHAPES: dict[str, tuple[Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], float, float]] = {
    # values, their mean, their median
    "normal": (lambda drawn, size: drawn.standard_normal(size), 0.0, 0.0),
    "uniform": (lambda drawn, size: drawn.random(size), 0.5, 0.5),
    "Student, 5 degrees": (lambda drawn, size: drawn.standard_t(5, size), 0.0, 0.0),
    "exponential": (lambda drawn, size: -drawn.exponential(size=size), -1.0, -math.log(2)),
    "one seed in ten fails": (
        lambda drawn, size: drawn.standard_normal(size) - 10 * (drawn.random(size) < 0.1),
        -1.0,
        -0.13971,  # where 0.9 of a normal distribution and the failures leave half below
    ),
}


def covered(shape: str, n: int, samples: int, seed: int = 1) -> tuple[int, int, int]:
    """Number of intervals of the mean, of the median, and of percentile bootstraps that contain the true value."""
    make, mean, median = SHAPES[shape]
    drawn = np.random.default_rng(seed)
    values = make(drawn, (samples, n))
    result = [summary(row) for row in values.tolist()]
    means = sum(s.low is not None and s.high is not None and s.low <= mean <= s.high for s in result)
    medians = sum(
        s.median_low is not None and s.median_high is not None and s.median_low <= median <= s.median_high
        for s in result
    )
    resampled = values[:, drawn.integers(0, n, (400, n))].mean(2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    return means, medians, int(np.sum((low <= mean) & (mean <= high)))


def holding(examples: int, seeds: int, spread: float, datasets: int, seed: int = 1) -> tuple[int, int, int]:
    """Among equally good methods whose seeds differ in ability (`spread` in logits) as much as the baseline's: the
    number that differ by p alone, by the interval of the seeds alone, and by both.
    """
    by_examples = by_seeds = by_both = 0
    for number in range(datasets):
        drawn = np.random.default_rng([seed, number])
        labels, hard = drawn.integers(0, 2, examples), 1.2 + 1.5 * drawn.standard_normal(examples)
        groups = []
        for _ in range(2):
            ability = spread * drawn.standard_normal((seeds, 1))
            right = drawn.random((seeds, examples)) < 1 / (1 + np.exp(-(hard + ability)))
            groups.append(
                [
                    score_of(metrics.find("accuracy").statistic(np.where(row, labels, 1 - labels), labels))
                    for row in right
                ]
            )
        p = examples_test("signs", 0.0, *groups, 20)[2]
        result = seed_interval(*({i: run.score for i, run in enumerate(group)} for group in groups))
        apart = result.low is not None and result.high is not None and (result.low > 0 or result.high < 0)
        by_examples += (differs := p is not None and p < ALPHA)
        by_seeds += apart
        by_both += differs and apart
    return by_examples, by_seeds, by_both


def lines(datasets: int, resamples: int) -> Iterator[str]:
    """The tables of docs/background/statistics.md."""
    yield "| values | seeds | mean, Student | median | mean, percentile bootstrap |\n|---|---|---|---|---|"
    for shape in SHAPES:
        for n in (3, 5, 10):
            shares = (f"{100 * result / datasets:.1f} %" for result in covered(shape, n, datasets))
            yield f"| {shape} | {n} | {' | '.join(shares)} |"
    sizes = [(runs, examples) for runs in ((1, 1), (5, 5)) for examples in (50, 200, 500)]
    yield "\n| runs | " + " | ".join(f"{ours} + {theirs}, {examples}" for (ours, theirs), examples in sizes) + " |"
    yield "|---" * (1 + len(sizes)) + "|"
    for metric in (*MAKERS, "bleu"):
        tried = sizes if metric != "bleu" else sizes[:3]
        rejected = [np.mean(p_values(metric, n, runs, datasets, resamples) < ALPHA) for runs, n in tried]
        cells = [f"{100 * share:.1f} %" for share in rejected] + ["–"] * (len(sizes) - len(tried))
        yield f"| {metric} | {' | '.join(cells)} |"
    share = families(5, 200, datasets) / datasets
    yield f"\nany of 5 methods, by accuracy on 200 examples, after Holm's correction: {100 * share:.1f} %"
    yield "\n| sd between seeds | p < 0.05 | seeds' interval without 0 | both |\n|---|---|---|---|"
    for spread in (0.0, 0.1, 0.3):
        shares = (f"{100 * result / datasets:.1f} %" for result in holding(500, 5, spread, datasets))
        yield f"| {spread:g} logits | {' | '.join(shares)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    for line in lines(args.datasets, args.resamples):
        print(line, flush=True)


if __name__ == "__main__":
    main()
