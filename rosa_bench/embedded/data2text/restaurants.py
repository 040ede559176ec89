"""Writes the E2E-like task: meaning representations of places to eat, each with several ways to say it.

A value has up to three kinds of wording: an adjective before the noun, a tail after it, and a clause of its own.
``realise`` allots the attributes to those places and joins them; the first wording of each tuple is the usual one.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from rosa_bench.embedded.data2text.names import corner, lean, pick, pool, venue
from rosa_bench.embedded.reserve import distinct, reserved

Meaning = dict[str, str]
Wordings = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]

KEYS = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
CUISINES = ("Chinese", "English", "French", "Indian", "Italian", "Japanese", "Greek", "Mexican")
HEADS = {
    "restaurant": ("restaurant", "eatery"),
    "pub": ("pub", "public house"),
    "coffee shop": ("coffee shop", "coffee house"),
}
PLAIN_HEADS = ("place", "venue", "spot")


def _money(phrase: str, loose: str) -> Wordings:
    return (), (f"costing {phrase}", f"charging {loose}"), (f"charges {phrase}", f"costs {loose}")


def _stars(number: int, word: str) -> Wordings:
    plural = "s" if number > 1 else ""
    tails = (f"rated {number} out of 5", f"with {word} star{plural}")
    return (f"{word}-star",), tails, (f"holds {word} star{plural}", f"scores {number} out of 5")


def _rank(word: str, adjectives: tuple[str, ...]) -> Wordings:
    verb = {"low": "gets", "average": "earns", "high": "enjoys"}[word]
    clauses = (f"{verb} {word} ratings", f"is rated {word} by customers")
    return adjectives, (f"with {word} customer ratings",), clauses


def _spot(*phrases: str) -> Wordings:
    return (), phrases, (*(f"is {phrase}" for phrase in phrases), f"is located {phrases[0]}")


def _dish(cuisine: str) -> Wordings:
    food = f"{cuisine} food" if cuisine != "fast food" else cuisine
    tails = (f"serving {food}", f"that serves {food}")
    return (cuisine,), tails, (f"serves {food}", f"offers {food}")


FORMS: dict[str, dict[str, Wordings]] = {
    "area": {
        "city centre": _spot("in the city centre", "in the centre of the city"),
        "riverside": _spot("by the river", "in the riverside area"),
        "old town": _spot("in the old town", "in the old quarter"),
        "harbour": _spot("at the harbour", "on the waterfront"),
    },
    "priceRange": {
        "cheap": (("cheap", "low-priced", "inexpensive"), ("with low prices",), ("keeps prices low", "is cheap")),
        "moderate": (
            ("moderately priced", "mid-priced"),
            ("with moderate prices",),
            ("asks moderate prices", "is moderately priced"),
        ),
        "high": (("expensive", "high-priced"), ("with high prices",), ("asks high prices", "is expensive")),
        "less than £20": _money("less than £20", "under £20"),
        "£20-25": _money("£20-25", "£20 to £25"),
        "more than £30": _money("more than £30", "over £30"),
    },
    "customer rating": {
        "low": _rank("low", ("poorly rated", "low-rated")),
        "average": _rank("average", ("average-rated",)),
        "high": _rank("high", ("highly rated",)),
        "1 out of 5": _stars(1, "one"),
        "3 out of 5": _stars(3, "three"),
        "5 out of 5": _stars(5, "five"),
    },
    "familyFriendly": {
        "yes": (
            ("family-friendly", "kid-friendly", "child-friendly"),
            ("that welcomes children", "for the whole family"),
            ("welcomes children", "is family-friendly", "suits the whole family", "caters for kids"),
        ),
        "no": (
            ("adults-only",),
            ("for adults only", "without room for children"),
            ("suits adults only", "is not family-friendly", "turns children away", "does not suit families"),
        ),
    },
    "food": {**{cuisine: _dish(cuisine) for cuisine in CUISINES}, "Fast food": _dish("fast food")},
}
_FRONTS = ("in ", "by ", "at ", "on ", "near ", "close ", "not far ")
NEAR = ("near", "close to", "not far from")
VALUES = {"eatType": tuple(HEADS), **{key: tuple(forms) for key, forms in FORMS.items()}}
# the order in which the places of a sentence are filled, and the share of adjectives and of adjectives plus tails
_SHARES = (
    ("area", 0.0, 0.65),
    ("priceRange", 0.5, 0.7),
    ("customer rating", 0.3, 0.6),
    ("familyFriendly", 0.45, 0.65),
    ("food", 0.7, 0.85),
)
# how often a meaning representation holds an attribute, and how many attributes it has beside the name
_PRESENCE = (0.85, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5)
_SIZES = (2, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 7)
_NUM_TRAIN = 4000
_NUM_SCORED = 500
_REFERENCES = (3, 3, 3, 4, 4, 4, 5, 5, 6, 8)


def meaning_string(meaning: Meaning) -> str:
    """Write a meaning in the notation of the E2E files, keys in their fixed order."""
    return ", ".join(f"{key}[{meaning[key]}]" for key in KEYS if key in meaning)


def parse_meaning(text: str) -> Meaning:
    """Read the notation of the E2E files back; a value may hold any character but a closing bracket."""
    return dict(part.split("[", 1) for part in text.removesuffix("]").split("], "))


def draw_meaning(rng: Random, name: str, near: str) -> Meaning:
    """Draw two to seven attributes for a place; ``near`` is one of them in about half of the cases."""
    size = pick(rng, _SIZES)
    keys = sorted(range(1, 8), key=lambda index: rng.random() / _PRESENCE[index - 1])[:size]
    meaning = {"name": name}
    for index in sorted(keys):
        key = KEYS[index]
        meaning[key] = near if key == "near" else pick(rng, VALUES[key])
    return meaning


def realise(meaning: Meaning, rng: Random) -> str:
    """Say a meaning in one or two sentences, with one of many sentence plans."""
    adjectives, tails, clauses = _allot(meaning, rng)
    kind = meaning.get("eatType")
    head = lean(rng, HEADS[kind] if kind else PLAIN_HEADS)
    name = meaning["name"]
    if clauses and rng.random() < 0.4:
        clauses.reverse()
    if kind is None and not adjectives and not tails:
        return _sentences(name, "", clauses)
    noun = " ".join([*adjectives, head])
    noun = f"an {noun}" if noun[0] in "aeiEI" else f"a {noun}"
    front = tails.pop(0) if tails and tails[0].startswith(_FRONTS) and rng.random() < 0.25 else ""
    tail = "".join(f" {tail}" for tail in tails)
    subject = lean(rng, ("It", name, f"This {head}"))
    plan = rng.random()
    if front:
        opening = f"{front[0].upper()}{front[1:]}, {name} is {noun}{tail}"
        if plan < 0.5:
            opening = f"{front[0].upper()}{front[1:]} there is {noun} called {name}{tail}"
        return _sentences(subject, opening, clauses)
    if plan < 0.25 and clauses:
        return _sentences(f"{name}, {noun}{tail},", "", clauses)
    if plan < 0.35:
        return _sentences(subject, f"There is {noun} called {name}{tail}", clauses)
    if plan < 0.45 and clauses and not tail:
        return _sentences(f"The {' '.join([*adjectives, head])} {name}", "", clauses)
    return _sentences(subject, f"{name} is {noun}{tail}", clauses)


def _allot(meaning: Meaning, rng: Random) -> tuple[list[str], list[str], list[str]]:
    """Give every attribute but the name and the kind its place: adjective, tail or clause."""
    adjectives: list[str] = []
    tails: list[str] = []
    clauses: list[str] = []
    near = meaning.get("near")
    if near:
        phrase = f"{lean(rng, NEAR)} {near}"
        if rng.random() < 0.65:
            tails.append(phrase)
        else:
            clauses.append(f"is {phrase}")
    for key, before, after in _SHARES:
        if key not in meaning:
            continue
        forms = FORMS[key][meaning[key]]
        draw = rng.random()
        if draw < before and forms[0] and len(adjectives) < 3:
            adjectives.append(lean(rng, forms[0]))
        elif draw < after and len(tails) < 2 and not (tails and tails[-1].startswith(("with", "that", "for", "rated"))):
            tails.append(lean(rng, forms[1]))
        else:
            clauses.append(lean(rng, forms[2]))
    return adjectives, tails, clauses


def _sentences(subject: str, first: str, clauses: list[str]) -> str:
    """Join a first sentence, which may be empty, and one made of the clauses."""
    if not clauses:
        return f"{first}."
    rest = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
    return f"{first}. {subject} {rest}." if first else f"{subject} {rest}."


@cache
def _known_names() -> tuple[list[str], list[str]]:
    venues = pool(Random("e2e-venues"), venue, 300, scored=False)
    return venues, pool(Random("e2e-corners"), corner, 120, scored=False)


@cache
def name_pools(split: str) -> tuple[list[str], list[str]]:
    """The venues and the near places that a split draws from: in a scored split, about 60 % are new ones."""
    venues, corners = _known_names()
    if split == "train":
        return venues, corners
    # validation and test have two halves of one list, so that neither knows the other's names
    half = slice(0, 180) if split == "validation" else slice(180, 360)
    new_venues = pool(Random("e2e-new-venues"), venue, 360, scored=True)[half]
    new_corners = pool(Random("e2e-new-corners"), corner, 360, scored=True)[half]
    return new_venues + venues[:120], new_corners + corners


@cache
def write_rows(split: str) -> list[dict[str, Any]]:
    """Write one split: 4,000 rows of one reference for training, 500 meanings of 3 to 8 references for scoring."""
    rng = Random(f"e2e-{split}")
    names, corners = name_pools(split)
    if split == "train":
        return _train_rows(rng, names, corners)
    written: list[dict[str, Any]] = []
    # validation comes first; the test split leaves out what validation holds
    known = {row["meaning_representation"] for row in write_rows("validation")} if split == "test" else set()
    while len(written) < _NUM_SCORED:
        meaning = draw_meaning(rng, pick(rng, names), pick(rng, corners))
        text = meaning_string(meaning)
        if text in known or not reserved(text):
            continue
        known.add(text)
        references = wordings(meaning, rng, pick(rng, _REFERENCES), scored=True)
        if len(references) >= 3:
            written.append({"meaning_representation": text, "human_references": references})
    return written


def _train_rows(rng: Random, names: list[str], corners: list[str]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    known: set[str] = set()
    while len(written) < _NUM_TRAIN:
        meaning = draw_meaning(rng, pick(rng, names), pick(rng, corners))
        text = meaning_string(meaning)
        if text in known or reserved(text):
            continue
        known.add(text)
        found = wordings(meaning, rng, pick(rng, (2, 3, 4, 4, 5, 6)), scored=False)
        written += [{"meaning_representation": text, "human_reference": sentence} for sentence in found]
    del written[_NUM_TRAIN:]
    rng.shuffle(written)
    return written


def wordings(meaning: Meaning, rng: Random, count: int, scored: bool) -> list[str]:
    """Say a meaning in up to ``count`` different ways, all of them reserved for scored splits or none."""
    return distinct((realise(meaning, rng) for _ in range(count * 12)), count, scored)
