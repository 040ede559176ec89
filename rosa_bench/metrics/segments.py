"""Metrics of generated text as functions of sums over outputs, which score many resamples of a test set at once.

Every function computes the official score and a formula over arrays of sums. Quantities that depend on all references
(NIST's information of n-grams and CIDEr's document frequencies) keep their values from the full set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from rosa_bench.metrics import mteval, rouge_cider, ter
from rosa_bench.metrics.meteor import shared
from rosa_bench.stats import bootstrap
from rosa_bench.stats.bootstrap import Statistic, ratio, sums
from rosa_bench.stats.summary import Numbers

# METEOR 1.5's parameters for English: Denkowski and Lavie (2014), table 1 of its documentation.
METEOR_ALPHA, METEOR_BETA, METEOR_GAMMA, METEOR_DELTA = 0.85, 0.2, 0.6, 0.75
METEOR_WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # of exact matches, stems, synonyms, paraphrases


def mean(values: Sequence[float], scale: float) -> Statistic:
    """The mean of a value per output, times `scale`."""
    return bootstrap.mean(scale * rouge_cider.total(values) / len(values), values, scale)


def tercom(outputs: Sequence[ter.Words], references: Sequence[Sequence[ter.Words]]) -> Statistic:
    """tercom's translation edit rate of a corpus, as a fraction: all edits over the sum of mean reference lengths."""
    rows = [ter.tercom(output, group) for output, group in zip(outputs, references, strict=True)]
    edits, length = (rouge_cider.total(column) for column in zip(*rows, strict=True))
    return sums(edits / length, rows, lambda total: ratio(total[:, 0], total[:, 1]))


def least_edit_rate(outputs: Sequence[ter.Words], references: Sequence[Sequence[ter.Words]]) -> Statistic:
    """GenerationEval's translation edit rate, as a fraction: the mean over outputs of `ter.least_rate`."""
    return mean([ter.least_rate(output, group) for output, group in zip(outputs, references, strict=True)], scale=1)


def plain_bleu(segments: Sequence[mteval.Segment]) -> Statistic:
    """Unsmoothed BLEU in points, as sacrebleu and multi-bleu.perl compute it."""
    from sacrebleu.metrics.bleu import BLEU

    def compute(length: int, closest: int, matches: list[int], possible: list[int]) -> float:
        return float(BLEU.compute_bleu(matches, possible, length, closest, smooth_method="none").score)

    return _bleu(_bleu_counts(segments, perl=True), compute, _plain_bleu)


def _plain_bleu(total: Numbers) -> Numbers:
    """0 if some order has no match."""
    length, closest, matches, possible = total[:, 0], total[:, 1], total[:, 2:6], total[:, 6:10]
    matched = matches.min(1) > 0
    precision = np.log(np.where(matched[:, None], matches, 1) / np.where(matched[:, None], possible, 1)).mean(1)
    penalty = np.minimum(0, 1 - ratio(closest, length, 0.0))
    return np.where(matched, 100 * np.exp(precision + penalty), 0.0)


def bleu(segments: Sequence[mteval.Segment], perl: bool) -> Statistic:
    """BLEU in points as mteval-v13a or pymteval computes it."""
    compute, combine = (mteval.bleu_perl, _bleu_perl) if perl else (mteval.bleu_python, _bleu_python)
    return _bleu(_bleu_counts(segments, perl), compute, combine)


def _bleu(rows: list[list[int]], compute: Callable[..., float], combine: Callable[[Numbers], Numbers]) -> Statistic:
    length, closest, *counts = (sum(column) for column in zip(*rows, strict=True))
    return sums(compute(length, closest, counts[: mteval.BLEU_ORDER], counts[mteval.BLEU_ORDER :]), rows, combine)


def _bleu_counts(segments: Sequence[mteval.Segment], perl: bool) -> list[list[int]]:
    """Per segment: output length, closest reference length, matches and possible n-grams of orders 1 to 4."""
    rows = []
    for segment in segments:
        matches = [mteval.clipped(segment, order).total() for order in range(1, mteval.BLEU_ORDER + 1)]
        length = len(segment.output)
        rows.append([length, mteval.closest(segment), *matches, *_possible(length, mteval.BLEU_ORDER, perl)])
    return rows


def _possible(length: int, orders: int, perl: bool) -> list[int]:
    """The number of n-grams of every order in a line of `length` tokens; pymteval's can be negative."""
    return [max(0, count) if perl else count for count in range(length, length - orders, -1)]


def _bleu_perl(total: Numbers) -> Numbers:
    length, closest, matches, possible = total[:, 0], total[:, 1], total[:, 2:6], total[:, 6:10]
    unmatched = (possible > 0) & (matches == 0)
    smoothed = 0.5 ** np.cumsum(unmatched, axis=1)  # halved at every order without a match
    precision = np.where(possible > 0, np.where(unmatched, smoothed, matches) / np.maximum(possible, 1), 1.0)
    logs = np.log(precision).sum(1)
    score = 100 * np.exp(logs / mteval.BLEU_ORDER + np.minimum(0, 1 - ratio(closest, length, 1.0)))
    out: Numbers = np.where(length > 0, score, 0.0)
    return out


def _bleu_python(total: Numbers) -> Numbers:
    length, closest, matches, possible = total[:, 0], total[:, 1], total[:, 2:6], total[:, 6:10]
    logs = np.log(np.maximum(matches, 1e-15) / np.maximum(possible, 1e-9)).sum(1)
    penalty = np.where(length > closest, 0.0, 1 - closest / np.where(length != 0, length, 1e-5))
    score: Numbers = 100 * np.exp(logs / mteval.BLEU_ORDER + penalty)
    return score


def nist(segments: Sequence[mteval.Segment], perl: bool) -> Statistic:
    """NIST as mteval-v13a or pymteval computes it."""
    information, rows = mteval.information_of(segments, zero_is_no_context=perl), []
    for segment in segments:
        gains = [sum(mteval.gains(segment, order, information)) for order in range(1, mteval.NIST_ORDER + 1)]
        length, words = len(segment.output), sum(map(len, segment.references))
        count = len(segment.references)
        sizes = [words, count] if perl else [words / count, 1]
        rows.append([length, *sizes, *gains, *_possible(length, mteval.NIST_ORDER, perl)])
    score = (mteval.nist_perl if perl else mteval.nist_python)(segments)
    return sums(score, rows, partial(_nist_of, examples=len(rows), otherwise=0.0 if perl else np.nan))


def _nist_of(total: Numbers, examples: int, otherwise: float) -> Numbers:
    """NIST of either program: pymteval's rows hold mean reference lengths and ones, so the same formula applies."""
    length, words, references = total[:, :3].T
    gains, possible = total[:, 3 : 3 + mteval.NIST_ORDER], total[:, 3 + mteval.NIST_ORDER :]
    reference = ratio(words * examples, references, 0.0)
    short = (length < reference) & (length > 0)
    log_ratio = np.log(np.where(short, length, 1) / np.where(short, reference, 1))
    penalty = np.where(length >= reference, 1.0, np.where(short, np.exp(-mteval.BETA * log_ratio**2), 0.0))
    score: Numbers = penalty * ratio(gains, possible, otherwise).sum(1)
    return score


def meteor(outputs: Sequence[str], references: Sequence[Sequence[str]], scale: float) -> Statistic:
    """METEOR 1.5, a fraction times `scale`. Raises AbsentError without Java or the package."""
    score, each = shared().evaluated(outputs, references)
    rows = np.array(each)
    rows[(rows[:, 21:23] == rows[:, :2]).all(1) & (rows[:, 20] == 1), 20] = 0  # a perfect match has no chunk penalty
    return sums(scale * score, rows, lambda total: scale * _meteor_of(total))


def _meteor_of(total: Numbers) -> Numbers:
    """METEOR from sums of its program's 23 statistics per segment, by the formulas of Denkowski and Lavie (2014).

    The statistics come in pairs for output and reference: words, function words, and for each kind of match the matched
    content words and the matched function words. The last three are chunks and the matched words of each text.
    """
    lengths, function, chunks, matched_words = total[:, :2], total[:, 2:4], total[:, 20], total[:, 21:23]
    kinds = total[:, 4:20].reshape(-1, len(METEOR_WEIGHTS), 2, 2)  # [R, kind, content or function, output or reference]
    by_word = np.array([METEOR_DELTA, 1 - METEOR_DELTA])
    weighted = np.einsum("rkws,k,w->rs", kinds, np.array(METEOR_WEIGHTS), by_word)
    precision, recall = ratio(weighted, METEOR_DELTA * (lengths - function) + (1 - METEOR_DELTA) * function, 0.0).T
    f_mean = ratio(precision * recall, METEOR_ALPHA * precision + (1 - METEOR_ALPHA) * recall, 0.0)
    score: Numbers = f_mean * (1 - METEOR_GAMMA * ratio(2 * chunks, matched_words.sum(1), 0.0) ** METEOR_BETA)
    return score
