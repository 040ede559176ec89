"""Translation edit rate (Snover et al. 2006): as tercom 7.25 counts it, and as GenerationEval does.

Both rates are the fewest insertions, deletions, substitutions and shifts of a block of words that a greedy search finds
between an output and a reference, over a reference length. They differ in which shifts they try and how they average.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Words = Sequence[str]

MAX_SHIFT_SIZE = 10  # words in a shifted block
MAX_SHIFT_DISTANCE = 50  # words between a block and its target
BEAM_WIDTH = 20  # edits a cell of the alignment may cost beyond the best cell of its column

_UNREACHED = 1 << 40
_NO_BEAM = 1 << 30


@dataclass(frozen=True)
class Edits:
    """Edits of one output or of a corpus, and the length in words they are divided by (a mean over references)."""

    edits: float
    reference_length: float


def tercom(hypothesis: Words, references: Sequence[Words]) -> Edits:
    """Edits of the reference that needs fewest, and the mean length of all references, as tercom 7.25 has them.

    Tokens are compared as they are: tercom itself splits at white space and lower-cases.

    Raises:
        ValueError: if there are no references.
    """
    if not references:
        raise ValueError("an output needs at least one reference")
    fewest = math.inf
    for reference in references:
        if _fewest_possible(hypothesis, reference) < fewest:
            fewest = min(fewest, float(_tercom_edits(hypothesis, reference)))
    return Edits(fewest, sum(map(len, references)) / len(references))


def corpus_edits(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Edits:
    """Sums of `tercom` over a corpus, in its order.

    Raises:
        ValueError: if there are no outputs, the lengths differ, or an output has no reference.
    """
    _check(hypotheses, references)
    edits = length = 0.0
    for hypothesis, group in zip(hypotheses, references, strict=True):  # not `sum`: it rounds otherwise from 3.12 on
        segment = tercom(hypothesis, group)
        edits, length = edits + segment.edits, length + segment.reference_length
    return Edits(edits, length)


def corpus_ter(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """tercom's translation edit rate of a corpus, a fraction: all edits over the sum of mean reference lengths.

    Raises:
        ValueError: if there are no outputs, the lengths differ, an output has no reference, or all are empty.
    """
    total = corpus_edits(hypotheses, references)
    if not total.reference_length:
        raise ValueError("every reference is empty: there is no length to divide by")
    return total.edits / total.reference_length


def segment_mean_ter(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """GenerationEval's translation edit rate, a fraction: the mean over outputs of the least rate of any reference.

    The shifts are those of the package pyter3, which GenerationEval calls. An empty reference counts as a rate of 1.

    Raises:
        ValueError: if there are no outputs, the lengths differ, or an output has no reference.
    """
    _check(hypotheses, references)
    total = 0.0
    for hypothesis, group in zip(hypotheses, references, strict=True):  # not `sum`, as above
        total += least_rate(hypothesis, group)
    return total / len(hypotheses)


def least_rate(hypothesis: Words, references: Sequence[Words]) -> float:
    """One output's part in `segment_mean_ter`; there has to be a reference."""
    least = math.inf
    for reference in dict.fromkeys(map(tuple, references)):
        if not reference:
            least = min(least, 1.0)
        elif _fewest_possible(hypothesis, reference) / len(reference) < least:
            least = min(least, _pyter_edits(hypothesis, reference) / len(reference))
    return least


def _check(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(f"{len(hypotheses)} outputs for {len(references)} lists of references, none of them empty")


def _fewest_possible(hypothesis: Words, reference: Words) -> int:
    """Edits that no order of the output's words can do without: a lower bound that shifts do not change."""
    common = sum((Counter(hypothesis) & Counter(reference)).values())
    return max(len(hypothesis), len(reference)) - common


def _index(words: Words) -> dict[str, list[int]]:
    where: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        where.setdefault(word, []).append(i)
    return where


class _Distance:
    """Levenshtein distance to a fixed reference, bit-parallel (Myers 1999, as Hyyrö 2003 gives it for whole strings).

    A bit stands for a word of the reference. `rebase` keeps the state after each word of one text, so that a shifted
    version of it is measured from its first changed word on; distances are remembered as well.
    """

    def __init__(self, reference: Words) -> None:
        self.length = len(reference)
        self.all = (1 << self.length) - 1
        self.last = 1 << self.length >> 1
        self.where = {word: sum(1 << place for place in places) for word, places in _index(reference).items()}
        self.known: dict[tuple[str, ...], int] = {}
        self.states: list[tuple[int, int, int]] = []

    def rebase(self, words: Words) -> int:
        """Makes `words` the text that others are shifted versions of; returns its distance."""
        self.states = [(self.all, 0, self.length)]
        for word in words:
            self.states.append(self._extend(self.states[-1], [word]))
        return self.states[-1][2]

    def __call__(self, words: tuple[str, ...], shared: int) -> int:
        """Distance of `words`, the first `shared` of which are those of the last `rebase`."""
        if words not in self.known:
            self.known[words] = self._extend(self.states[shared], words[shared:])[2]
        return self.known[words]

    def _extend(self, state: tuple[int, int, int], words: Words) -> tuple[int, int, int]:
        """State after more words: rows where the column rises and where it falls, and the distance in its last row."""
        rises, falls, distance = state
        mask, last, where = self.all, self.last, self.where
        for word in words:
            equal = where.get(word, 0)
            vertical = equal | falls
            diagonal = (((equal & rises) + rises) ^ rises) | equal
            up = falls | (mask & ~(diagonal | rises))
            down = rises & diagonal
            if not mask or up & last:
                distance += 1
            elif down & last:
                distance -= 1
            up = up << 1 | 1
            rises = ((down << 1) | ~(vertical | up)) & mask
            falls = up & vertical & mask
        return rises, falls, distance


@dataclass(frozen=True)
class _Alignment:
    """tercom's alignment of an output with a reference, and what it costs without shifts."""

    edits: int
    wrong: list[bool]  # of each output word: inserted or substituted
    missed: list[bool]  # of each reference word: deleted or substituted
    positions: list[int]  # of each reference word: its output word; for a deleted one, that before the gap, or -1


def _align(hypothesis: Words, reference: Words) -> _Alignment:
    """Least-cost alignment under tercom's beam; of equal costs first a diagonal step, then insertion.

    The beam leaves out a cell costing over `BEAM_WIDTH` more than the cheapest cell a diagonal step reached in its
    column, so the cost can exceed the edit distance. The last column is complete, so there is always an alignment.
    """
    column = [0] + [_UNREACHED] * len(reference)
    steps = [["i"] * (len(reference) + 1)]
    cheapest = _NO_BEAM
    for word in hypothesis:
        _delete(column, steps[-1], cheapest + BEAM_WIDTH)
        following = [cost + 1 for cost in column]
        moves = ["i"] * len(following)
        cheapest = _NO_BEAM
        for i, cost in enumerate(column[:-1], 1):
            differs = reference[i - 1] != word
            diagonal = cost + differs
            if diagonal <= following[i]:
                following[i], moves[i] = diagonal, " s"[differs]
            if diagonal < cheapest:
                cheapest = diagonal
        column = following
        steps.append(moves)
    _delete(column, steps[-1], _NO_BEAM)
    return _trace(column[-1], steps)


def _delete(column: list[int], steps: list[str], limit: int) -> None:
    """Completes a column by deletions, downwards, where strictly cheaper; empties the cells over the limit."""
    before = _UNREACHED
    for i, cost in enumerate(column):
        if before + 1 < cost:
            cost = column[i] = before + 1
            steps[i] = "d"
        if cost > limit:
            cost = column[i] = _UNREACHED
        before = cost


def _trace(edits: int, steps: list[list[str]]) -> _Alignment:
    i, j = len(steps[0]) - 1, len(steps) - 1
    wrong, missed, positions = [False] * j, [False] * i, [-1] * i
    while i or j:
        step = steps[j][i]
        if step != "i":
            i -= 1
            missed[i], positions[i] = step != " ", j - 1
        if step != "d":
            j -= 1
            wrong[j] = step != " "
    return _Alignment(edits, wrong, missed, positions)


def _tercom_edits(hypothesis: Words, reference: Words) -> int:
    possible = _fewest_possible(hypothesis, reference)
    distance = _Distance(reference)
    current, alignment, shifts = tuple(hypothesis), _align(hypothesis, reference), 0
    while alignment.edits > possible:
        found = _best_shift(current, reference, alignment, distance, possible)
        if found is None:
            break
        current, alignment = found
        shifts += 1
    return shifts + alignment.edits


def _best_shift(
    words: tuple[str, ...], reference: Words, alignment: _Alignment, distance: _Distance, possible: int
) -> tuple[tuple[str, ...], _Alignment] | None:
    """The first of the shifts that save most, long blocks tried first, or None if none saves an edit.

    A shift costs one edit itself, so the one taken may gain nothing on the whole. tercom takes a block of n words to
    save 2n edits at most and stops where that cannot beat the best so far. The distance without a beam, a lower bound,
    rules out most shifts; only the others are aligned.
    """
    distance.rebase(words)
    best: tuple[tuple[str, ...], _Alignment] | None = None
    fewest = alignment.edits
    candidates = _shifts(words, reference, alignment)
    for length in range(MAX_SHIFT_SIZE, 0, -1):
        for start, target in dict.fromkeys(candidates[length]):
            if best and (fewest == possible or alignment.edits - fewest - 1 >= 2 * length):
                return best
            shifted = _move(words, start, length, target)
            if distance(shifted, min(start, target)) < fewest:
                aligned = _align(shifted, reference)
                if aligned.edits < fewest:
                    best, fewest = (shifted, aligned), aligned.edits
    return best


def _move(words: tuple[str, ...], start: int, length: int, target: int) -> tuple[str, ...]:
    """`words` with a block taken out and put before the word that is then at `target`."""
    block, rest = words[start : start + length], words[:start] + words[start + length :]
    return rest[:target] + block + rest[target:]


def _shifts(words: Words, reference: Words, alignment: _Alignment) -> list[list[tuple[int, int]]]:
    """By block length, the shifts tercom tries, in its order: where the block starts, and its place in the rest.

    A block is a run of words that the reference has too, aligned elsewhere, with an error in both texts. Whether one
    may start at a word is asked of that word alone first, there with one word more to the left.
    """
    where = _index(reference)
    found: list[list[tuple[int, int]]] = [[] for _ in range(MAX_SHIFT_SIZE + 1)]
    for start, word in enumerate(words):
        places = where.get(word, [])
        offsets = [alignment.positions[place] - start for place in places]
        if not any(offset and -MAX_SHIFT_DISTANCE - 1 <= offset <= MAX_SHIFT_DISTANCE for offset in offsets):
            continue
        for length in range(1, min(MAX_SHIFT_SIZE, len(words) - start) + 1):
            end, tail = start + length, length - 1
            places = [p for p in places if p + tail < len(reference) and reference[p + tail] == words[end - 1]]
            if not places:
                break
            if not any(alignment.wrong[start:end]):
                continue
            elsewhere = [p for p in places if _in_reach(start, end, alignment.positions[p])]
            if not elsewhere:
                break
            for place in elsewhere:
                if any(alignment.missed[place : place + length]):
                    found[length].extend((start, to) for to in _targets(start, length, place, alignment.positions))
    return found


def _in_reach(start: int, end: int, position: int) -> bool:
    return not start <= position < end and abs(position - start) <= MAX_SHIFT_DISTANCE


def _targets(start: int, length: int, place: int, positions: Sequence[int]) -> Iterator[int]:
    """Places in the rest of the output for a block that the reference has at `place`.

    tercom puts the block behind the output word aligned with the reference word before `place`, or with one of the
    block's own; a place inside the block counts from its start, in words after it.
    """
    for i in range(place - 1, place + length):
        position = positions[i] if i >= 0 else -1
        if i >= 0 and (position == start or (i != place and position == positions[place])):
            continue
        yield position + (1 if position < start else 0 if position < start + length else 1 - length)


def _pyter_edits(hypothesis: Words, reference: Words) -> int:
    """Edits as pyter3 counts them: whole runs, moved to their place in the reference; ties go to the last sorted."""
    possible = _fewest_possible(hypothesis, reference)
    distance = _Distance(reference)
    current, shifts = tuple(hypothesis), 0
    edits = distance.rebase(current)
    while edits > possible:
        fewest, best = edits, current
        for start, place, length in _runs(current, reference):
            shifted = _move(current, start, length, place)
            left = distance(shifted, min(start, place))
            if left < fewest or (left == fewest < edits and shifted > best):
                fewest, best = left, shifted
        if fewest == edits:
            break
        current, shifts = best, shifts + 1
        edits = distance.rebase(current)
    return shifts + edits


def _runs(words: Words, reference: Words) -> Iterator[tuple[int, int, int]]:
    """Start in either text and length of every equal run that differs in position, each as long as it goes."""
    where = _index(reference)
    for start, word in enumerate(words):
        for place in where.get(word, []):
            if place == start:
                continue
            most = min(len(words) - start, len(reference) - place)
            same = (k for k in range(1, most) if words[start + k] != reference[place + k])
            yield start, place, next(same, most)
