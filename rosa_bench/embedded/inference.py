"""Claims and what follows from them: the premise and hypothesis pairs of the MNLI- and RTE-like tasks.

A claim is a quantifier over a fact whose every slot can be told more or less exactly (spaniel, dog, animal; old dog,
dog). Each quantifier says which way a slot may move while truth is kept. The hypothesis is drawn first and the premise
is built for the label, so that the hypothesis by itself says nothing about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rosa_bench.embedded.events import VERB_SYNONYMS, WORD_SYNONYMS
from rosa_bench.embedded.lexicon import ALL_NOUNS, Noun, Verb, make_noun, with_article

if TYPE_CHECKING:
    from rosa_bench.embedded.grammar import Grammar

ENTAILED, NEUTRAL, CONTRADICTED = 0, 1, 2
TOPS = {kind: make_noun(kind, kind=kind) for kind in ("animal", "object")} | {"person": make_noun("person/people")}
# slots: subject noun, subject adjective, object noun, object adjective, place, manner
_SIZES = (3, 2, 3, 2, 2, 2)
# +1: a more exact slot entails a less exact one; -1: the other way
_UPWARD = {
    "some": (1, 1, 1, 1, 1, 1),
    "no": (-1, -1, -1, -1, -1, -1),
    "every": (-1, -1, 1, 1, 1, 1),
    "some_not": (1, 1, -1, -1, -1, -1),
    "the": (1, 1, 1, 1, 1, 1),
    "the_not": (1, 1, -1, -1, -1, -1),
}
OPPOSITE = {"some": "no", "no": "some", "every": "some_not", "some_not": "every", "the": "the_not", "the_not": "the"}
FACTIVE = ("noticed", "knew", "remembered", "discovered", "saw")
OPEN_VERBS = ("thought", "claimed", "hoped", "pretended", "imagined")
QUANTIFIERS = tuple(OPPOSITE)

Levels = tuple[int, int, int, int, int, int]


class Fact(NamedTuple):
    """The most exact wording of what happens; a claim about it may say less."""

    subject: Noun
    state: str
    verb: Verb
    target: Noun | None
    adjective: str
    place: str
    manner: str


def draw_fact(g: Grammar) -> Fact:
    """Draw a fact about a person or an animal."""
    w = g.words
    subject = g.pick(w.leaves)
    while subject.kind == "object":
        subject = g.pick(w.leaves)
    target = None
    if subject.kind == "person" and g.u() < 0.65:
        target = g.pick(w.leaves)
        while target.kind != "object":
            target = g.pick(w.leaves)
    return Fact(
        subject,
        g.pick(w.states),
        g.verb("transitive" if target else "intransitive"),
        target,
        g.pick(w.intersective),
        g.pick(w.places),
        g.pick(w.manners),
    )


def _name(noun: Noun, level: int) -> Noun:
    if level == 0:
        return noun
    return ALL_NOUNS[noun.parent] if level == 1 else TOPS[noun.kind]


def say(g: Grammar, f: Fact, quantifier: str, levels: Levels, many: bool) -> str:
    """Write a claim as a clause."""
    noun = _name(f.subject, levels[0])
    word = ("" if levels[1] else f.state + " ") + (noun.pl if many else noun.sg)
    negated = quantifier.endswith("_not")
    if quantifier.startswith("the"):
        subject = "the " + word
    elif quantifier == "every":
        subject = ("all " if many else ("every ", "each ")[g.u() < 0.4]) + word
    elif quantifier == "no":
        subject = "no " + word
    else:
        subject = "some " + word if many or g.u() < 0.3 else with_article(word)
    target = ""
    if f.target is not None:
        thing = _name(f.target, levels[2]).sg
        target = " " + with_article(thing if levels[3] else f"{f.adjective} {thing}")
    rest = ("" if levels[5] else " " + f.manner) + ("" if levels[4] else " " + f.place)
    verb = f"did not {f.verb.base}" if negated else f.verb.past
    return f"{subject} {verb}{target}{rest}"


def _move(g: Grammar, levels: Levels, directions: tuple[int, ...], slots: tuple[int, ...], p: float) -> Levels | None:
    """Move slots one or two steps in a direction each, at least one of them; None where none can move."""
    moved, changed = list(levels), False
    ways = [s for s in slots if 0 <= levels[s] + directions[s] < _SIZES[s]]
    if not ways:
        return None
    sure = g.pick(ways)
    for s in ways:
        if s == sure or g.u() < p:
            moved[s] += directions[s]
            changed = True
    return tuple(moved) if changed else None  # type: ignore[return-value]


def _slots(f: Fact) -> tuple[int, ...]:
    return (0, 1, 2, 3, 4, 5) if f.target is not None else (0, 1, 4, 5)


def draw_levels(g: Grammar) -> Levels:
    """Draw how exactly a claim tells each slot: nouns mostly at the middle level, additions mostly left out."""
    u = g.u
    noun = (0, 1, 1, 1, 1, 2)
    return (
        noun[int(u() * 6)],
        int(u() < 0.65),
        noun[int(u() * 6)],
        int(u() < 0.65),
        int(u() < 0.6),
        int(u() < 0.6),
    )


def _premise(g: Grammar, f: Fact, q: str, levels: Levels, label: int) -> tuple[str, Levels] | None:
    up, slots = _UPWARD[q], _slots(f)
    down = tuple(-d for d in up)
    if label == ENTAILED:
        stronger = _move(g, levels, down, slots, 0.25)
        return (q, stronger) if stronger else None
    if label == NEUTRAL:
        weaker = _move(g, levels, up, slots, 0.15)
        if weaker and g.u() < 0.5:  # stronger elsewhere does not make up for it
            same = tuple(s for s in slots if weaker[s] == levels[s])
            weaker = _move(g, weaker, down, same, 0.1) or weaker
        return (q, weaker) if weaker else None
    # the opposite of a claim is the denial of it or of anything it entails
    if g.u() < 0.25:
        return OPPOSITE[q], levels
    weaker = _move(g, levels, up, slots, 0.3)
    return (OPPOSITE[q], weaker) if weaker else None


def reword_fact(g: Grammar, f: Fact, p: float) -> Fact:
    """Say verb, adjectives and manner in other words of the same meaning, each with a probability."""

    def other(word: str) -> str:
        return g.pick(WORD_SYNONYMS[word]) if word in WORD_SYNONYMS and g.u() < p else word

    verbs = VERB_SYNONYMS.get(f.verb.base)
    verb = g.pick(verbs) if verbs and g.u() < p else f.verb
    return Fact(f.subject, other(f.state), verb, f.target, other(f.adjective), f.place, other(f.manner))


def draw_hypothesis(g: Grammar) -> tuple[Fact, str, Levels, bool]:
    """Draw a claim that leaves room to be both weakened and strengthened, whatever the label will be."""
    fact, q = draw_fact(g), g.pick(QUANTIFIERS)
    slots, up = _slots(fact), _UPWARD[q]
    while True:
        levels = draw_levels(g)
        ups = [s for s in slots if 0 <= levels[s] + up[s] < _SIZES[s]]
        downs = [s for s in slots if 0 <= levels[s] - up[s] < _SIZES[s]]
        if ups and downs:
            return fact, q, levels, g.u() < 0.3


def find_premise(g: Grammar, claim: tuple[Fact, str, Levels, bool], label: int) -> tuple[str, Levels]:
    """Find a quantifier and levels that make a claim entailed (0), open (1) or contradicted (2)."""
    fact, q, levels, _ = claim
    while True:
        found = _premise(g, fact, q, levels, label)
        if found is not None:
            return found


def draw_premise(g: Grammar, claim: tuple[Fact, str, Levels, bool], label: int, synonyms: float = 0.3) -> str:
    """Write a premise that makes a claim entailed (0), open (1) or contradicted (2)."""
    q, levels = find_premise(g, claim, label)
    return say(g, reword_fact(g, claim[0], synonyms), q, levels, claim[3])


def definition(g: Grammar) -> str:
    """Teach one step of the taxonomy."""
    leaf = g.pick(g.words.leaves)
    low, high = (leaf, ALL_NOUNS[leaf.parent]) if g.u() < 0.7 else (ALL_NOUNS[leaf.parent], TOPS[leaf.kind])
    if g.u() < 0.15:
        low, high = leaf, TOPS[leaf.kind]
    x = g.u()
    if x < 0.25:
        return f"every {low.sg} is {high.an}"
    if x < 0.5:
        return f"{low.an} is {high.an}"
    if x < 0.7:
        return f"{low.pl} are {high.pl}"
    if x < 0.85:
        return f"{low.an} is a kind of {high.sg}"
    return f"not every {high.sg} is {low.an}"
