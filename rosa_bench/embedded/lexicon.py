"""Builds the words of the embedded language from their lists, with their forms, topics and halves.

Every open-class word belongs to one of two halves. Train rows of a task that needs lexical knowledge draw from half 0
and scored rows from half 1, so what a word is and does must come from pre-training on the prose, which uses both.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from rosa_bench.embedded import lexicon_nouns as nouns
from rosa_bench.embedded import lexicon_words as words
from rosa_bench.embedded.lexicon_verbs import VERBS

_VOWELS = "aeiou"
# these also take somebody as a first object: "bought Magnus the pan"
_FOR_SOMEBODY = (
    *(
        "buy",
        "purchase",
        "construct",
        "erect",
        "find",
        "locate",
        "fetch",
        "retrieve",
        "get",
        "obtain",
        "bring",
        "convey",
    ),
    *(
        "make",
        "fabricate",
        "carry",
        "catch",
        "grab",
        "seize",
        "borrow",
        "acquire",
        "unlock",
        "unbolt",
        "wrap",
        "unwrap",
    ),
    *("polish", "sharpen", "manufacture", "bind", "mend", "repair", "require", "inherit"),
)
_SILENT_H = ("heir", "honest", "hour")


class Noun(NamedTuple):
    """A noun with its forms, its gender (``m``, ``f`` or empty), its kind and the noun one level above it."""

    sg: str
    pl: str
    an: str
    gender: str = ""
    kind: str = "object"
    parent: str = ""
    topic: str = "any"
    half: int = 0


class Verb(NamedTuple):
    """A verb with its five forms."""

    base: str
    s: str
    past: str
    part: str
    ing: str
    half: int = 0


class Adjective(NamedTuple):
    """An adjective with its comparative (empty when there is none in ``-er``)."""

    word: str
    more: str = ""
    half: int = 0


def with_article(word: str) -> str:
    """Put ``a`` or ``an`` before a word."""
    vowel = word[0] in _VOWELS or word.startswith(_SILENT_H)
    return ("an " if vowel else "a ") + word


def plural(word: str) -> str:
    """Form the regular plural of a noun."""
    if word.endswith("y") and word[-2] not in _VOWELS:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def make_noun(item: str, **features: str | int) -> Noun:
    """Read a noun from its list entry ``word/plural:gender``."""
    item, _, gender = item.partition(":")
    sg, _, pl = item.partition("/")
    return Noun(sg, pl or plural(sg), with_article(sg), gender, **features)  # type: ignore[arg-type]


def make_verb(item: str, half: int) -> Verb:
    """Read a verb from its list entry ``base:past:participle`` or ``base*``."""
    base, _, rest = item.partition(":")
    stem = base
    if base.endswith("*"):
        base = base[:-1]
        stem = base + base[-1]
    after_consonant_y = base.endswith("y") and base[-2] not in _VOWELS
    s = base[:-1] + "ies" if after_consonant_y else base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) else "s")
    if base.endswith("e"):
        past, ing = base + "d", base + "ing" if base.endswith(("ee", "oe", "ye")) else base[:-1] + "ing"
    else:
        past, ing = (base[:-1] + "ied" if after_consonant_y else stem + "ed"), stem + "ing"
    part = past
    if rest:
        past, part = rest.split(":")
    return Verb(base, s, past, part, ing, half)


def _read_taxonomy() -> tuple[list[Noun], list[Noun]]:
    mids, leaves = [], []
    for i, line in enumerate(nouns.TAXONOMY.strip().splitlines()):
        left, right = line.split(": ", 1)
        kind, _, rest = left.partition(" > ")
        mid, _, topic = rest.partition(" @")
        mids.append(make_noun(mid, kind=kind, parent=kind, topic=topic, half=i % 2))
        leaves += [
            make_noun(leaf, kind=kind, parent=mids[-1].sg, topic=topic, half=(i + j) % 2)
            for j, leaf in enumerate(right.split())
        ]
    return mids, leaves


def _plain(text: str, kind: str) -> list[Noun]:
    return [make_noun(item, kind=kind, half=i // 2 % 2) for i, item in enumerate(text.split())]


def _read_pairs(text: str) -> list[tuple[list[str], list[str]]]:
    """Read ``a=b|c=d``: two sides of antonyms, each a list of synonyms."""
    sides = [[side.split("=") for side in item.split("|")] for item in text.split()]
    return [(s[0], s[1] if len(s) > 1 else []) for s in sides]


_COMPARATIVES = dict(item.split(":") for item in words.COMPARATIVES.split())
MIDS, LEAVES = _read_taxonomy()
GENDERED = _plain(nouns.GENDERED, "person")
COMMON = _plain(nouns.COMMON_PEOPLE, "person")
NAMES_M = tuple(nouns.NAMES_M.split())
NAMES_F = tuple(nouns.NAMES_F.split())
MASS = tuple(nouns.MASS.split())
CONTENTS = _plain(nouns.CONTENTS, "content")
EVENTS = _plain(nouns.EVENTS, "event")
PLACES = {line.split(": ")[0]: tuple(line.split(": ")[1].split("|")) for line in nouns.PLACES.strip().splitlines()}
TIMES = tuple(item.strip().split("=") for item in words.TIMES.replace("\n", "").split("|"))
MANNERS = tuple(item.split("=") for item in words.MANNERS.split())
GRADED = _read_pairs(words.GRADED_PAIRS)
STATES = tuple(item.split("=") for item in words.STATES.split())
UNGRADED = tuple(words.UNGRADED.split())
REVIEWED = tuple(words.REVIEWED.split())
AUDIENCE = tuple(words.AUDIENCE.replace("\n", "").split("|"))
PREPOSITIONS = ("near", "beside", "behind", "with", "opposite")
VERB_GROUPS = {
    name: [[make_verb(word, i % 2) for word in item.split("=")] for i, item in enumerate(text.split())]
    for name, text in VERBS.items()
}
ALL_NOUNS = {n.sg: n for n in [*COMMON, *GENDERED, *LEAVES, *MIDS]}


def _read_synonym_nouns() -> dict[str, Noun]:
    table = {}
    for item in nouns.SYNONYM_NOUNS.split():
        new, _, old = item.partition("=")
        known = ALL_NOUNS[old]
        table[old] = make_noun(new, kind=known.kind, parent=known.parent, topic=known.topic, half=known.half)
    return table


NOUN_SYNONYMS = _read_synonym_nouns()


class Words:
    """The words that one kind of text draws from: a topic (or all) and a half (or both)."""

    def __init__(self, topic: str, half: int | None) -> None:
        def fits(n: Noun) -> bool:
            return (half is None or n.half == half) and (topic == "all" or n.topic in (topic, "any"))

        def halve(items: list[str] | tuple[str, ...]) -> list[str]:
            return [w for i, w in enumerate(items) if half is None or i % 2 == half]

        self.leaves = [n for n in LEAVES if fits(n)]
        self.mids = [n for n in MIDS if fits(n)]
        known = [n for n in [*COMMON, *GENDERED, *self.leaves, *self.mids, *NOUN_SYNONYMS.values()] if fits(n)]
        self.people = [n for n in known if n.kind == "person"]
        self.animals = [n for n in known if n.kind == "animal"]
        self.objects = [n for n in known if n.kind == "object"]
        gendered = [n for n in [*GENDERED, *LEAVES] if n.kind == "person" and (half is None or n.half == half)]
        self.men = [n for n in gendered if n.gender == "m"]
        self.women = [n for n in gendered if n.gender == "f"]
        self.names_m, self.names_f = halve(NAMES_M), halve(NAMES_F)
        self.mass = halve(MASS)
        self.contents, self.events = [n for n in CONTENTS if fits(n)], [n for n in EVENTS if fits(n)]
        places = [p for t, ps in PLACES.items() if topic == "all" or t in (topic, "any") for p in ps]
        self.places = places
        self.times = [t[0] for t in TIMES]
        self.timeless = [t for t in self.times if not t.startswith(("last", "yesterday"))]
        self.manners = halve([w for group in MANNERS for w in group])
        self.states = halve([w for group in STATES for w in group])
        graded = [w for i, pair in enumerate(GRADED) if half is None or i % 2 == half for side in pair for w in side]
        self.graded = [Adjective(w, _COMPARATIVES.get(w, "")) for w in graded]
        self.comparable = [a for a in self.graded if a.more]
        self.intersective = halve(UNGRADED)
        self.object_adjectives = graded + self.intersective
        self.verbs = {
            name: [v for group in groups for v in group if half is None or v.half == half]
            for name, groups in VERB_GROUPS.items()
        }
        self.verbs["monotransitive"] = [v for v in self.verbs["transitive"] if v.base not in _FOR_SOMEBODY]


@cache
def pool(topic: str = "all", half: int | None = None) -> Words:
    """The words of a topic (``all`` for every topic) and a half (None for both)."""
    return Words(topic, half)
