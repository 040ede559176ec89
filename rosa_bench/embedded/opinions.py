"""Opinions whose polarity is that of their main clause, turned by negation and contrast (the SST-2-like task)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from rosa_bench.embedded import lexicon_words as words
from rosa_bench.embedded.lexicon import AUDIENCE, REVIEWED, with_article

if TYPE_CHECKING:
    from rosa_bench.embedded.grammar import Grammar


class Polar:
    """The polar words of a half: each list is (negative words, positive words), so a polarity indexes it."""

    def __init__(self, half: int | None) -> None:
        def both(negative: str, positive: str) -> tuple[list[str], list[str]]:
            return tuple(  # type: ignore[return-value]
                [w for i, w in enumerate(text.split()) if half is None or i % 2 == half]
                for text in (negative, positive)
            )

        self.adjectives = both(words.NEGATIVE_ADJ, words.POSITIVE_ADJ)
        self.nouns = both(words.NEGATIVE_NOUN, words.POSITIVE_NOUN)
        self.verbs = both(words.NEGATIVE_VERB, words.POSITIVE_VERB)
        self.adverbs = both(words.NEGATIVE_ADV, words.POSITIVE_ADV)


@cache
def polar(half: int | None = None) -> Polar:
    """The polar words of a half (None for both)."""
    return Polar(half)


DEGREES = ("", "", "very ", "really ", "truly ", "quite ", "utterly ")
NEGATORS = ("not ", "hardly ", "never ", "far from ", "anything but ", "not at all ", "no longer ")


def quality(g: Grammar, p: Polar, good: bool, negate: float = 0.4) -> str:
    """Write a predicate adjective, a pair of them or a noun that says good or bad, often by negating its opposite."""
    x = g.u()
    if x < negate:
        return g.pick(NEGATORS) + g.pick(p.adjectives[not good])
    if x < 0.7:
        return g.pick(DEGREES) + g.pick(p.adjectives[good])
    if x < 0.8:
        return with_article(g.pick(p.nouns[good]))
    if x < 0.9:
        return f"{g.pick(p.adjectives[good])} rather than {g.pick(p.adjectives[not good])}"
    return f"{g.pick(p.adjectives[good])} and {g.pick(p.adjectives[good])}"


def verdict(g: Grammar, p: Polar, good: bool, negate: float = 0.4) -> str:
    """Write a simple clause that says that something reviewed is good or bad."""
    x, thing = g.u(), "the " + g.pick(REVIEWED)
    be = "is" if x < 0.35 else "was"
    if x < 0.7:
        return f"{thing} {be} {quality(g, p, good, negate)}"
    if x < 0.8:
        verb = g.pick(p.verbs[good]).split(":")[1]
        return f"{g.pick(AUDIENCE)} {verb} {thing}"
    if x < 0.9:
        verb = g.pick(p.verbs[not good]).split(":")[1]
        return f"nobody {verb} {thing}"
    return f"{thing} was {g.pick(p.adverbs[good])} {g.pick(('made', 'written', 'prepared', 'presented', 'done'))}"


def opinion(g: Grammar, p: Polar, good: bool, negate: float = 0.4, plain: float = 0.4) -> str:
    """Write an opinion, often with a clause of the other polarity that the main clause outweighs.

    ``negate`` is the share of negated adjectives, ``plain`` that of opinions without such a clause.
    """
    x = g.u()
    if x < plain:
        return verdict(g, p, good, negate)
    x = 0.4 + 0.6 * (x - plain) / (1 - plain)
    main, other = verdict(g, p, good, negate), verdict(g, p, not good, negate)
    if x < 0.6:
        return f"{other}, but {main}"
    if x < 0.7:
        return f"{main}, although {other}"
    if x < 0.8:
        return f"although {other}, {main}"
    if x < 0.9:
        return f"{g.pick(AUDIENCE)} claimed that {other}, but that is wrong"
    return f"{g.pick(AUDIENCE)} thought that {other}, but in truth {main}"


_UPSHOTS = (
    ("everyone hated it", "nobody liked it", "I cannot recommend it", "people left early", "it was a waste of time"),
    ("everyone liked it", "nobody hated it", "I can recommend it", "people cheered", "it was worth the time"),
)


def upshot(g: Grammar, good: bool) -> str:
    """Write what people did or felt after something good or bad."""
    return g.pick(_UPSHOTS[good])
