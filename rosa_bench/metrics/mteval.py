"""BLEU and NIST as the E2E challenge computes them (tuetschek/e2e-metrics): two programs, two sets of numbers.

`perl` is NIST's mteval-v13a script, which `measure_scores.py` calls by default and whose numbers the challenge printed.
`python` is its port pymteval (`measure_scores.py -p`), which LoRA's experiments used. They agree on most outputs; where
they do not, each is followed to its quirks:

                                            perl                                    python
    lower case                              A to Z                                  all letters
    empty output                            no token                                one empty token
    n-grams of a line of k < n - 1 tokens   none                                    k + 1 - n, less than none
    reference length (NIST)                 words / (references / segments)         sum of means per segment
    context "0" of an n-gram (NIST)         taken for no context                    a word like others
    no match of some order (BLEU)           halved again and again                  1e-15
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
BETA = -math.log(0.5) / math.log(1.5) ** 2  # NIST's penalty is 1/2 where the output has 2/3 of the reference's words
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass
class Segment:
    """One output and its references as tokens."""

    output: Tokens
    references: list[Tokens] = field(default_factory=list)
    known: dict[int, Counter[Ngram]] = field(default_factory=dict, repr=False, compare=False)  # `clipped` by order


def perl_segments(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[Segment]:
    """Texts as mteval-v13a reads them; an empty reference is none.

    Raises:
        ValueError: if there are no outputs, the lengths differ, or an output has no reference.
    """
    check(outputs, references)
    tokenize = _tokenizer()

    def tokens(text: str) -> Tokens:
        return tuple(tokenize(text).translate(_ASCII_LOWER).split())

    return [
        Segment(tokens(out), [found for ref in refs if (found := tokens(ref))])
        for out, refs in zip(outputs, references, strict=True)
    ]


def python_segments(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[Segment]:
    """Texts as pymteval reads them. Raises ValueError as `perl_segments`."""
    check(outputs, references)
    tokenize = _tokenizer()

    def tokens(text: str) -> Tokens:
        return tuple(token.lower() for token in tokenize(text).split(" "))

    return [Segment(tokens(out), list(map(tokens, refs))) for out, refs in zip(outputs, references, strict=True)]


def check(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise ValueError unless there are outputs, and references for each of them."""
    if not outputs or len(outputs) != len(references) or not all(references):
        raise ValueError(
            f"{len(outputs)} outputs for {len(references)} lists of references, none of which may be empty"
        )


def _tokenizer() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer: Callable[[str], str] = Tokenizer13a()
    return tokenizer


def ngrams(tokens: Tokens, order: int) -> Counter[Ngram]:
    """Every n-gram of an order with its count."""
    return Counter(tokens[i : i + order] for i in range(len(tokens) - order + 1))


def clipped(segment: Segment, order: int) -> Counter[Ngram]:
    """The output's n-grams, each at most as often as in the reference that has it most often."""
    if order not in segment.known:
        segment.known[order] = ngrams(segment.output, order) & _most(tuple(segment.references), order)
    return segment.known[order]


@lru_cache(maxsize=8192)  # the references are the same for all outputs of a test set that are compared
def _most(references: tuple[Tokens, ...], order: int) -> Counter[Ngram]:
    """Every n-gram of any reference with its highest count in one of them."""
    most: Counter[Ngram] = Counter()
    for reference in references:
        most |= ngrams(reference, order)
    return most


def bleu_perl(segments: Sequence[Segment]) -> float:
    """Corpus BLEU in points, smoothed as mteval-v13a does: each order without a match counts half of the one before."""
    length = sum(len(s.output) for s in segments)
    if not length:
        return 0.0
    total, halving = 0.0, 1
    for order in range(1, BLEU_ORDER + 1):
        possible = sum(max(0, len(s.output) - order + 1) for s in segments)
        matches = sum(clipped(s, order).total() for s in segments)
        if possible and not matches:
            halving *= 2
            total -= math.log(halving * possible)
        elif possible:
            total += math.log(matches / possible)
    return 100 * math.exp(total / BLEU_ORDER + min(0.0, 1 - _closest(segments) / length))


def bleu_python(segments: Sequence[Segment]) -> float:
    """Corpus BLEU in points as pymteval computes it: meaningless where many lines have fewer than four tokens."""
    length = sum(len(s.output) for s in segments)
    total = 0.0
    for order in range(1, BLEU_ORDER + 1):
        possible = sum(len(s.output) - order + 1 for s in segments)
        matches = sum(clipped(s, order).total() for s in segments)
        total += math.log(max(matches, 1e-15) / max(possible, 1e-9))
    reference = _closest(segments)
    penalty = 0.0 if length > reference else 1 - reference / (length or 1e-5)
    return 100 * math.exp(total / BLEU_ORDER + penalty)


def _closest(segments: Iterable[Segment]) -> int:
    """The sum over segments of `closest`."""
    return sum(map(closest, segments))


def closest(segment: Segment) -> int:
    """The reference length nearest to the output's, the shorter of two; 0 without references."""
    size = len(segment.output)
    return min((len(r) for r in segment.references), key=lambda n: (abs(n - size), n), default=0)


class Information:
    """The information of n-grams, in bits, from the references of a whole test set."""

    def __init__(self, references: Iterable[Iterable[Tokens]], zero_is_no_context: bool) -> None:
        self.counts: Counter[Ngram] = Counter()
        self.words = 0
        self.zero_is_no_context = zero_is_no_context
        for those in references:
            for reference in those:
                self.words += len(reference)
                for order in range(1, NIST_ORDER + 1):
                    self.counts.update(ngrams(reference, order))

    def of(self, ngram: Ngram) -> float:
        """log2 of how often its context occurs over how often it does."""
        context = ngram[:-1]
        whole = not context or (self.zero_is_no_context and context == ("0",))
        return math.log2((self.words if whole else self.counts[context]) / self.counts[ngram])


def information_of(segments: Iterable[Segment], zero_is_no_context: bool) -> Information:
    """The information of a test set, kept for its next outputs."""
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
            score += _gained(segments, order, information) / possible
    references = sum(len(s.references) for s in segments)
    mean = information.words / (references / len(segments)) if references else 0.0
    return score * _penalty(sum(len(s.output) for s in segments), mean)


def nist_python(segments: Sequence[Segment]) -> float:
    """NIST score of pymteval.

    Raises:
        ZeroDivisionError: as pymteval does, where the lengths of all n-grams of an order add up to nothing.
    """
    information, score = information_of(segments, zero_is_no_context=False), 0.0
    for order in range(1, NIST_ORDER + 1):
        score += _gained(segments, order, information) / sum(len(s.output) - order + 1 for s in segments)
    mean = sum(sum(map(len, s.references)) / len(s.references) for s in segments)
    return score * _penalty(sum(len(s.output) for s in segments), mean)


def _gained(segments: Iterable[Segment], order: int, information: Information) -> float:
    return sum(gain for s in segments for gain in gains(s, order, information))


def gains(segment: Segment, order: int, information: Information) -> list[float]:
    """The information of the n-grams of an order that output and references share."""
    return [information.of(ngram) * count for ngram, count in clipped(segment, order).items()]


def _penalty(length: float, reference: float) -> float:
    if length >= reference:
        return 1.0
    return math.exp(-BETA * math.log(length / reference) ** 2) if length > 0 else 0.0
