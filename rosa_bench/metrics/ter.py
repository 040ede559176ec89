"""Translation edit rate (Snover et al. 2006) as tercom 7.25 and as GenerationEval compute it.

Both rates divide edits by a reference length: the fewest insertions, deletions, substitutions and block shifts that a
greedy search finds between an output and a reference. They differ in the shifts they try and in how they average.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Words = Sequence[str]

MAX_SHIFT_SIZE = 10  # words in a shifted block
MAX_SHIFT_DISTANCE = 50  # words between a block and its target
BEAM_WIDTH = 20  # edits by which an alignment cell may exceed the best cell of its column

_UNREACHED = 1 << 40
_NO_BEAM = 1 << 30


class Edits(NamedTuple):
    """Edits of an output or a corpus, and the length in words to divide them by (a mean over references)."""

    edits: float
    reference_length: float


def tercom(hypothesis: Words, references: Sequence[Words]) -> Edits:
    """The fewest edits to any reference, and the mean length of all references, as tercom 7.25 computes them.

    Tokens are compared unchanged; tercom itself splits at white space and lower-cases.
    """
    fewest = math.inf
    for reference in references:
        if _fewest_possible(hypothesis, reference) < fewest:
            fewest = min(fewest, float(_tercom_edits(hypothesis, reference)))
    return Edits(fewest, sum(map(len, references)) / len(references))


def least_rate(hypothesis: Words, references: Sequence[Words]) -> float:
    """The lowest edit rate between an output and any reference, as GenerationEval computes it.

    The shifts are those of the package pyter3, which GenerationEval uses. An empty reference counts as a rate of 1.
    """
    least = math.inf
    for reference in dict.fromkeys(map(tuple, references)):
        if not reference:
            least = min(least, 1.0)
        elif _fewest_possible(hypothesis, reference) / len(reference) < least:
            least = min(least, _pyter_edits(hypothesis, reference) / len(reference))
    return least


def _fewest_possible(hypothesis: Words, reference: Words) -> int:
    """A lower bound on the edits. It ignores the order of the output's words, so shifts do not change it."""
    common = sum((Counter(hypothesis) & Counter(reference)).values())
    return max(len(hypothesis), len(reference)) - common


def _index(words: Words) -> dict[str, list[int]]:
    where: dict[str, list[int]] = {}
    for i, word in enumerate(words):
        where.setdefault(word, []).append(i)
    return where


class _Distance:
    """Bit-parallel Levenshtein distance to a fixed reference (Myers 1999, in Hyyrö's 2003 form for whole strings).

    Each bit stands for a word of the reference. `rebase` stores the state after each word of a text, so that a shifted
    version is computed only from its first changed word on. Distances are cached.
    """

    def __init__(self, reference: Words) -> None:
        self.length = len(reference)
        self.all = (1 << self.length) - 1
        self.last = 1 << self.length >> 1
        self.where = {word: sum(1 << place for place in places) for word, places in _index(reference).items()}
        self.cache: dict[tuple[str, ...], int] = {}
        self.states: list[tuple[int, int, int]] = []

    def rebase(self, words: Words) -> int:
        """Make `words` the text whose shifted versions are measured next. Returns its distance."""
        self.states = [(self.all, 0, self.length)]
        for word in words:
            self.states.append(self._extend(self.states[-1], [word]))
        return self.states[-1][2]

    def __call__(self, words: tuple[str, ...], shared: int) -> int:
        """Distance of `words`, which share their first `shared` words with the text of the last `rebase`."""
        if words not in self.cache:
            self.cache[words] = self._extend(self.states[shared], words[shared:])[2]
        return self.cache[words]

    def _extend(self, state: tuple[int, int, int], words: Words) -> tuple[int, int, int]:
        """State after more words: the rows where the column rises and falls, and the distance in its last row."""
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
    """tercom's alignment of an output with a reference, and its cost without shifts."""

    edits: int
    wrong: list[bool]  # per output word: inserted or substituted
    missed: list[bool]  # per reference word: deleted or substituted
    positions: list[int]  # per reference word: the aligned output word, or the one before the gap, or -1


def _align(hypothesis: Words, reference: Words) -> _Alignment:
    """Lowest-cost alignment under tercom's beam; ties prefer a diagonal step, then an insertion.

    The beam drops cells that cost over `BEAM_WIDTH` more than the cheapest cell that a diagonal step reached in their
    column, so the cost can exceed the edit distance. The last column is complete, so an alignment always exists.
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
    """Fill a column downwards by deletions where strictly cheaper, and clear cells over the limit."""
    previous = _UNREACHED
    for i, cost in enumerate(column):
        if previous + 1 < cost:
            cost = column[i] = previous + 1
            steps[i] = "d"
        if cost > limit:
            cost = column[i] = _UNREACHED
        previous = cost


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
        shift = _best_shift(current, reference, alignment, distance, possible)
        if shift is None:
            break
        current, alignment = shift
        shifts += 1
    return shifts + alignment.edits


def _best_shift(
    words: tuple[str, ...], reference: Words, alignment: _Alignment, distance: _Distance, possible: int
) -> tuple[tuple[str, ...], _Alignment] | None:
    """The first shift with the largest saving, trying long blocks first, or None if no shift saves an edit.

    The shift itself costs one edit, so the net saving can be zero. tercom assumes that a block of n words saves at most
    2n edits and stops when that cannot beat the best shift so far. The distance without a beam is a lower bound that
    rules out most shifts; only the remaining ones are aligned.
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
                candidate = _align(shifted, reference)
                if candidate.edits < fewest:
                    best, fewest = (shifted, candidate), candidate.edits
    return best


def _move(words: tuple[str, ...], start: int, length: int, target: int) -> tuple[str, ...]:
    """Remove a block from `words` and insert it before index `target` of the rest."""
    block, rest = words[start : start + length], words[:start] + words[start + length :]
    return rest[:target] + block + rest[target:]


def _shifts(words: Words, reference: Words, alignment: _Alignment) -> list[list[tuple[int, int]]]:
    """The shifts that tercom tries, in its order, by block length: start of the block, and target index in the rest.

    A block is a run of words that also occurs in the reference, is aligned elsewhere, and has an error in both texts.
    An initial check of the start word alone allows one more word of distance to the left.
    """
    where = _index(reference)
    shifts: list[list[tuple[int, int]]] = [[] for _ in range(MAX_SHIFT_SIZE + 1)]
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
                    shifts[length].extend((start, to) for to in _targets(start, length, place, alignment.positions))
    return shifts


def _in_reach(start: int, end: int, position: int) -> bool:
    return not start <= position < end and abs(position - start) <= MAX_SHIFT_DISTANCE


def _targets(start: int, length: int, place: int, positions: Sequence[int]) -> Iterator[int]:
    """Target indices in the rest of the output for a block that starts at `place` in the reference.

    tercom inserts the block after the output word aligned with the reference word before `place`, or with a word of the
    block itself. If that output word is k words into the moved block, the block moves k words to the right.
    """
    for i in range(place - 1, place + length):
        position = positions[i] if i >= 0 else -1
        if i >= 0 and (position == start or (i != place and position == positions[place])):
            continue
        yield position + (1 if position < start else 0 if position < start + length else 1 - length)


def _pyter_edits(hypothesis: Words, reference: Words) -> int:
    """Edits as pyter3 counts them: whole runs move to their place in the reference; the last sorted wins ties."""
    possible = _fewest_possible(hypothesis, reference)
    distance = _Distance(reference)
    current, shifts = tuple(hypothesis), 0
    edits = distance.rebase(current)
    while edits > possible:
        fewest, best = edits, current
        for start, place, length in _runs(current, reference):
            shifted = _move(current, start, length, place)
            remaining = distance(shifted, min(start, place))
            if remaining < fewest or (remaining == fewest < edits and shifted > best):
                fewest, best = remaining, shifted
        if fewest == edits:
            break
        current, shifts = best, shifts + 1
        edits = distance.rebase(current)
    return shifts + edits


def _runs(words: Words, reference: Words) -> Iterator[tuple[int, int, int]]:
    """Both starts and the length of every maximal equal run at different positions in the two texts."""
    where = _index(reference)
    for start, word in enumerate(words):
        for place in where.get(word, []):
            if place == start:
                continue
            most = min(len(words) - start, len(reference) - place)
            same = (k for k in range(1, most) if words[start + k] != reference[place + k])
            yield start, place, next(same, most)
