"""BLEU and NIST as the two programs of the E2E challenge (tuetschek/e2e-metrics) compute them.

`perl` is NIST's mteval-v13a script, which `measure_scores.py` calls by default and whose numbers the challenge printed.
`python` is its port pymteval (`measure_scores.py -p`), which LoRA's experiments used. They agree on most outputs. Where
they differ, each function reproduces its program:

                                            perl                                    python
    lower case                              A to Z                                  all letters
    empty output                            no token                                one empty token
    n-grams of a line of k < n - 1 tokens   0                                       k + 1 - n (negative)
    reference length (NIST)                 words / (references / segments)         sum of means per segment
    context "0" of an n-gram (NIST)         read as no context                      an ordinary word
    order without a match (BLEU)            half of the previous such order         1e-15
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

Tokens = tuple[str, ...]
Ngram = tuple[str, ...]
BLEU_ORDER, NIST_ORDER = 4, 5
BETA = -math.log(0.5) / math.log(1.5) ** 2  # NIST's penalty is 1/2 if the output has 2/3 of the reference's words
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass
class Segment:
    """The tokens of an output and its references."""

    output: Tokens
    references: list[Tokens] = field(default_factory=list)
    cache: dict[int, Counter[Ngram]] = field(default_factory=dict, repr=False, compare=False)  # `clipped` by order


def perl_segments(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[Segment]:
    """Tokenize texts as mteval-v13a does. Empty references are dropped."""
    tokenize = tokenizer()

    def tokens(text: str) -> Tokens:
        return tuple(tokenize(text).translate(_ASCII_LOWER).split())

    return [
        Segment(tokens(out), [ref_tokens for ref in refs if (ref_tokens := tokens(ref))])
        for out, refs in zip(outputs, references, strict=True)
    ]


def python_segments(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[Segment]:
    """Tokenize texts as pymteval does."""
    tokenize = tokenizer()

    def tokens(text: str) -> Tokens:
        return tuple(token.lower() for token in tokenize(text).split(" "))

    return [Segment(tokens(out), list(map(tokens, refs))) for out, refs in zip(outputs, references, strict=True)]


def tokenizer() -> Callable[[str], str]:
    """The tokenizer of mteval-v13a."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer: Callable[[str], str] = Tokenizer13a()
    return tokenizer


def ngrams(tokens: Tokens, order: int) -> Counter[Ngram]:
    """Counts of the n-grams of an order."""
    return Counter(tokens[i : i + order] for i in range(len(tokens) - order + 1))


def clipped(segment: Segment, order: int) -> Counter[Ngram]:
    """Counts of the output's n-grams, each clipped to its highest count in a reference."""
    if order not in segment.cache:
        segment.cache[order] = ngrams(segment.output, order) & _max_counts(tuple(segment.references), order)
    return segment.cache[order]


@lru_cache(maxsize=8192)  # compared runs share the references of a test set
def _max_counts(references: tuple[Tokens, ...], order: int) -> Counter[Ngram]:
    """The highest count of each n-gram in any reference."""
    counts: Counter[Ngram] = Counter()
    for reference in references:
        counts |= ngrams(reference, order)
    return counts


def bleu_perl(length: int, reference: int, matches: Sequence[int], possible: Sequence[int]) -> float:
    """Corpus BLEU in points with mteval-v13a's smoothing: orders without a match count 1/2, 1/4, ... of a match.

    Args:
        length: tokens of the outputs.
        reference: tokens of the closest references.
        matches: matching n-grams of every order.
        possible: n-grams of every order in the outputs.
    """
    if not length:
        return 0.0
    total, halving = 0.0, 1
    for matching, count in zip(matches, possible, strict=True):
        if count and not matching:
            halving *= 2
            total -= math.log(halving * count)
        elif count:
            total += math.log(matching / count)
    return 100 * math.exp(total / BLEU_ORDER + min(0.0, 1 - reference / length))


def bleu_python(length: int, reference: int, matches: Sequence[int], possible: Sequence[int]) -> float:
    """Corpus BLEU in points as pymteval computes it; meaningless if many lines have fewer than four tokens."""
    total = 0.0
    for matching, count in zip(matches, possible, strict=True):
        total += math.log(max(matching, 1e-15) / max(count, 1e-9))
    penalty = 0.0 if length > reference else 1 - reference / (length or 1e-5)
    return 100 * math.exp(total / BLEU_ORDER + penalty)


def closest(segment: Segment) -> int:
    """The reference length closest to the output's, the shorter one on a tie; 0 without references."""
    size = len(segment.output)
    return min((len(r) for r in segment.references), key=lambda n: (abs(n - size), n), default=0)


class Information:
    """The information of n-grams, in bits, from the references of a whole test set."""

    def __init__(self, references: Iterable[Iterable[Tokens]], zero_is_no_context: bool) -> None:
        self.counts: Counter[Ngram] = Counter()
        self.words = 0
        self.zero_is_no_context = zero_is_no_context
        for group in references:
            for reference in group:
                self.words += len(reference)
                for order in range(1, NIST_ORDER + 1):
                    self.counts.update(ngrams(reference, order))

    def of(self, ngram: Ngram) -> float:
        """log2 of the count of the n-gram's context over the count of the n-gram."""
        context = ngram[:-1]
        no_context = not context or (self.zero_is_no_context and context == ("0",))
        return math.log2((self.words if no_context else self.counts[context]) / self.counts[ngram])


def information_of(segments: Iterable[Segment], zero_is_no_context: bool) -> Information:
    """The information of a test set's references, cached."""
    return _information(tuple(tuple(s.references) for s in segments), zero_is_no_context)


@lru_cache(maxsize=4)
def _information(references: tuple[tuple[Tokens, ...], ...], zero_is_no_context: bool) -> Information:
    return Information(references, zero_is_no_context)


def nist_perl(segments: Sequence[Segment]) -> float:
    """NIST score of mteval-v13a."""
    information, score = information_of(segments, zero_is_no_context=True), 0.0
    for order in range(1, NIST_ORDER + 1):
        possible = sum(max(0, len(s.output) - order + 1) for s in segments)
        if possible:
            score += _total_gain(segments, order, information) / possible
    references = sum(len(s.references) for s in segments)
    mean = information.words / (references / len(segments)) if references else 0.0
    return score * _penalty(sum(len(s.output) for s in segments), mean)


def nist_python(segments: Sequence[Segment]) -> float:
    """NIST score of pymteval.

    Raises:
        ZeroDivisionError: as in pymteval, if its n-gram counts of an order add up to 0.
    """
    information, score = information_of(segments, zero_is_no_context=False), 0.0
    for order in range(1, NIST_ORDER + 1):
        score += _total_gain(segments, order, information) / sum(len(s.output) - order + 1 for s in segments)
    mean = sum(sum(map(len, s.references)) / len(s.references) for s in segments)
    return score * _penalty(sum(len(s.output) for s in segments), mean)


def _total_gain(segments: Iterable[Segment], order: int, information: Information) -> float:
    return sum(gain for s in segments for gain in gains(s, order, information))


def gains(segment: Segment, order: int, information: Information) -> list[float]:
    """The information of the n-grams of an order that output and references share."""
    return [information.of(ngram) * count for ngram, count in clipped(segment, order).items()]


def _penalty(length: float, reference: float) -> float:
    if length >= reference:
        return 1.0
    return math.exp(-BETA * math.log(length / reference) ** 2) if length > 0 else 0.0
