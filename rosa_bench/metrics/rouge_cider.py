"""ROUGE-L and CIDEr as the E2E challenge computes them, following the COCO caption evaluation.

Both compare lower-cased tokens of the Penn Treebank tokenizer (`rosa_bench.metrics.ptb_tokenizer`) without punctuation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from rosa_bench.metrics.mteval import ngrams
from rosa_bench.metrics.ptb_tokenizer import tokenize_captions
from rosa_bench.metrics.scores import AbsentError

ROUGE_BETA = 1.2  # weight of recall
CIDER_ORDER, CIDER_SIGMA = 4, 6.0
Vector = dict[tuple[str, ...], float]


def tokenized(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Tokenize texts; tokens are joined by spaces."""
    texts = iter(tokenize_captions([text for refs in references for text in refs]))  # one call, as in the challenge
    return tokenize_captions(list(outputs)), [[next(texts) for _ in refs] for refs in references]


def rouge_l(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The F score of the longest common subsequence for every output, as a fraction.

    Precision and recall are each the maximum over an output's references. Takes the result of `tokenized`.
    """
    scores = []
    for output, refs in zip(outputs, references, strict=True):
        words = output.split(" ")
        common = [(_common(words, ref.split(" ")), len(ref.split(" "))) for ref in refs]
        precision, recall = max(n for n, _ in common) / len(words), max(n / size for n, size in common)
        both = (1 + ROUGE_BETA**2) * precision * recall
        scores.append(both / (recall + ROUGE_BETA**2 * precision) if precision and recall else 0.0)
    return scores


def total(values: Iterable[float]) -> float:
    """Sum values in order. The builtin `sum` rounds differently from Python 3.12 on."""
    subtotal = 0.0
    for value in values:
        subtotal += value
    return subtotal


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for j, other_word in enumerate(second, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other_word else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def cider(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The mean tf-idf cosine of every output with its references: a tenth of its CIDEr-D (Vedantam et al., 2015).

    Document frequencies come from the references of these outputs, so scores of different sets or subsets are not
    comparable. The length penalty compares numbers of bigrams, as the published code does. Takes the result of
    `tokenized`.

    Raises:
        AbsentError: for a single output, where every n-gram has weight 0; the published code returns 0.
    """
    if len(outputs) == 1:
        raise AbsentError("undefined: CIDEr weights n-grams by document frequency, and there is only one example")
    cooked = [[_counts(ref) for ref in refs] for refs in references]
    documents = Counter(ngram for refs in cooked for ngram in set().union(*refs))
    size = math.log(len(cooked))

    def vector(counts: Counter[tuple[str, ...]]) -> tuple[list[Vector], list[float], int]:
        parts: list[Vector] = [{} for _ in range(CIDER_ORDER)]
        for ngram, count in counts.items():
            parts[len(ngram) - 1][ngram] = count * (size - math.log(max(1, documents[ngram])))
        norms = [math.sqrt(sum(value * value for value in part.values())) for part in parts]
        return parts, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2)

    scores = []
    for output, refs in zip(outputs, cooked, strict=True):
        hypothesis = vector(_counts(output))
        scores.append(sum(_similarity(hypothesis, vector(ref)) for ref in refs) / len(refs))
    return scores


def _counts(text: str) -> Counter[tuple[str, ...]]:
    words = tuple(text.split())
    counts: Counter[tuple[str, ...]] = Counter()
    for order in range(1, CIDER_ORDER + 1):
        counts.update(ngrams(words, order))
    return counts


def _similarity(
    hypothesis: tuple[list[Vector], list[float], int], reference: tuple[list[Vector], list[float], int]
) -> float:
    """The mean over orders of the clipped cosine, times a penalty for different lengths."""
    penalty = math.exp(-((hypothesis[2] - reference[2]) ** 2) / (2 * CIDER_SIGMA**2))
    total = 0.0
    for a, b, norm_a, norm_b in zip(hypothesis[0], reference[0], hypothesis[1], reference[1], strict=True):
        if norm_a and norm_b:
            shared = sum(min(value, b[ngram]) * b[ngram] for ngram, value in a.items() if ngram in b)
            total += shared / (norm_a * norm_b) * penalty
    return total / CIDER_ORDER
