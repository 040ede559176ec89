"""Words sets of triples as sentences, and writes the WebNLG-like task out of them.

A set is a list of facts in an order that can be told: facts about the main thing, each followed by what is said about
its object. The same facts always hold of a thing, because an object is chosen by a checksum of subject and relation.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from rosa_bench.embedded.data2text import names
from rosa_bench.embedded.data2text.names import lean, pick, pronoun
from rosa_bench.embedded.data2text.relations import CHAINS, SEEN, UNSEEN, Relation
from rosa_bench.embedded.reserve import distinct, reserved

_SIZES = (1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5)
_NUM_TRAIN = 4000
_NUM_SCORED = 500
_MAKERS = {
    "town": (names.town, 100),
    "person": (names.person, 120),
    "country": (names.country, 30),
    "company": (names.company, 60),
    "title": (names.title, 60),
    "venue": (names.corner, 60),
    "coined": (names.coined, 100),
}
ALL = SEEN | UNSEEN
_SUFFIXES = {"university": "University", "league": "League", "team": "Rovers", "party": "Party"}


class Fact(NamedTuple):
    """One triple in the words of a text, without underscores or quotation marks."""

    subject: str
    relation: Relation
    value: str


@cache
def name_pools(scored: bool) -> dict[str, list[str]]:
    """The names of every kind that training rows use, or those that only scored rows use."""
    return {
        kind: names.pool(Random(f"triples-{kind}-{scored}"), maker, size, scored)
        for kind, (maker, size) in _MAKERS.items()
    }


@cache
def entities(category: str, scored: bool) -> list[str]:
    """The main things of a category that training rows tell of, or those that only scored rows tell of."""
    form, _ = ALL[category]
    maker = _MAKERS[form][0] if form in _MAKERS else lambda rng: form.replace("*", names.coined(rng))
    return names.pool(Random(f"triples-{category}-{scored}"), maker, 50, scored)


@cache
def fact_of(subject: str, relation: Relation, scored: bool) -> Fact:
    """The fact that a relation holds of a subject: there is only one, so rows never contradict each other."""
    return Fact(subject, relation, _object_of(subject, relation, scored))


def _object_of(subject: str, relation: Relation, scored: bool) -> str:
    draw = crc32(f"{subject}/{relation.name}".encode())
    kind, *rest = relation.kind.split(" ", 3)
    if kind == "number":
        return str(int(rest[0]) + draw % (int(rest[1]) - int(rest[0])))
    if kind == "unit":
        return f"{int(rest[0]) + draw % (int(rest[1]) - int(rest[0]))} {rest[2]}"
    if kind == "words":
        options = rest[0].split(",")
        return options[draw % len(options)]
    if kind == "runway":
        return f"{draw % 36 + 1:02d}{'LR'[draw % 2]}/{draw // 36 % 36 + 1:02d}{'RL'[draw % 2]}"
    pool = name_pools(scored)["coined" if kind in _SUFFIXES else kind]
    chosen = pool[draw % len(pool)]
    return f"{chosen} {_SUFFIXES[kind]}" if kind in _SUFFIXES else chosen


def draw_name(rng: Random, kind: str, scored: bool) -> str:
    """Draw a name of some kind, such as a town or a club, from the training names or from those of scored rows."""
    chosen = pick(rng, name_pools(scored)["coined" if kind in _SUFFIXES else kind])
    return f"{chosen} {_SUFFIXES[kind]}" if kind in _SUFFIXES else chosen


def draw_facts(rng: Random, category: str, subject: str, size: int, scored: bool) -> list[Fact]:
    """Draw up to ``size`` facts: a star around a thing, with chains that go on from the object of a fact."""
    relations = ALL[category][1]
    facts: list[Fact] = []
    start = int(rng.random() * len(relations))
    stride = 1 + int(rng.random() * (len(relations) - 1))
    told: set[str] = {subject}
    for step in range(len(relations)):
        if len(facts) >= size:
            break
        # a stride that divides the count would come back to a relation, and stops the star there
        relation = relations[(start + step * stride) % len(relations)]
        fact = fact_of(subject, relation, scored)
        if fact in facts:
            break
        facts.append(fact)
        while len(facts) < size and fact.relation.kind in CHAINS and fact.value not in told and rng.random() < 0.4:
            told.add(fact.value)
            follower = pick(rng, CHAINS[fact.relation.kind])
            fact = fact_of(fact.value, follower, scored)
            facts.append(fact)
    return facts


def say(facts: list[Fact], rng: Random) -> str:
    """Word the facts in their order, one or two of them to a sentence."""
    sentences: list[str] = []
    before = ""
    place = 0
    while place < len(facts):
        fact = facts[place]
        subject = pronoun(fact.subject) if fact.subject == before and rng.random() < 0.7 else fact.subject
        sentence = _together(fact, facts[place + 1], subject, rng) if place + 1 < len(facts) else ""
        if sentence:
            place += 2
            before = fact.subject
        else:
            sentence, before = _alone(fact, subject, rng)
            place += 1
        sentences.append(sentence)
    return " ".join(sentences)


def _together(fact: Fact, follower: Fact, subject: str, rng: Random) -> str:
    """Word two facts in one sentence, if they hang together and the draw is for it; else give an empty string."""
    draw = rng.random()
    if draw > 0.65 or follower.subject not in (fact.subject, fact.value):
        return ""
    phrase, second = _phrase(fact, rng), _phrase(follower, rng)
    if follower.subject == fact.subject:
        if draw > 0.15 or subject != fact.subject:
            return f"{subject} {phrase} and {second}."
        return f"{subject}, {'which' if pronoun(subject) == 'It' else 'who'} {phrase}, {second}."
    if not phrase.endswith(fact.value):
        return ""
    return f"{subject} {phrase}, {'who' if fact.relation.kind == 'person' else 'which'} {second}."


def _phrase(fact: Fact, rng: Random) -> str:
    return lean(rng, fact.relation.phrases).replace("{o}", fact.value)


def _alone(fact: Fact, subject: str, rng: Random) -> tuple[str, str]:
    """Word one fact, and say what a pronoun in the next sentence would stand for."""
    if fact.relation.sentences and subject == fact.subject and rng.random() < 0.45:
        sentence = lean(rng, fact.relation.sentences).replace("{s}", subject).replace("{o}", fact.value)
        return f"{sentence}.", ""
    return f"{subject} {_phrase(fact, rng)}.", fact.subject


def wordings(facts: list[Fact], rng: Random, count: int, scored: bool, opening: str = "") -> list[str]:
    """Word a set of facts in up to ``count`` different ways, all reserved for scored splits or none.

    ``opening`` goes before the first sentence; a sentence that starts with an article then goes on in lower case.
    """
    groups: list[list[Fact]] = []
    for fact in facts:
        if fact.subject == facts[0].subject:
            groups.append([fact])
        else:
            groups[-1].append(fact)

    def sentence() -> str:
        if len(groups) > 1 and rng.random() < 0.3:
            groups.insert(0, groups.pop())
        text = say([fact for group in groups for fact in group], rng)
        if opening:
            lower = text.startswith(("The number", "The best", "The director"))
            text = f"{opening}{text[0].lower() if lower else text[0]}{text[1:]}"
        return text

    return distinct((sentence() for _ in range(count * 7 if scored else count * 3)), count, scored)


def write_triple(fact: Fact) -> str:
    """Write a fact in the notation of the WebNLG files."""
    value = fact.value.replace(" ", "_")
    if fact.relation.kind.startswith(("unit", "runway")):
        value = f'"{fact.value}"'
    return f"{fact.subject.replace(' ', '_')} | {fact.relation.name} | {value}"


def key_of(triples: list[str]) -> str:
    """The string that stands for a set of triples in any order; it decides which splits may hold the set."""
    return "\n".join(sorted(triples))


@cache
def write_rows(split: str) -> list[dict[str, Any]]:
    """Write one split; half of the test rows are of categories that no other split has."""
    rng = Random(f"web_nlg-{split}")
    scored = split != "train"
    seen, unseen = tuple(SEEN), tuple(UNSEEN)
    total = _NUM_SCORED if scored else _NUM_TRAIN
    known = {key_of(row["triples"]) for row in write_rows("validation")} if split == "test" else set()
    written: list[dict[str, Any]] = []
    while len(written) < total:
        is_seen = split != "test" or len(written) < total // 2
        category = pick(rng, seen if is_seen else unseen)
        fresh = not is_seen or (scored and rng.random() < 0.5)
        facts = draw_facts(rng, category, pick(rng, entities(category, fresh)), pick(rng, _SIZES), fresh)
        triples = [write_triple(fact) for fact in facts]
        key = key_of(triples)
        if key in known or reserved(key) != scored:
            continue
        count = pick(rng, (1, 2, 3)) if scored else pick(rng, (1, 1, 1, 1, 1, 2, 2, 3))
        references = wordings(facts, rng, count, scored)
        if not references:
            continue
        known.add(key)
        if rng.random() < 0.5:
            rng.shuffle(triples)
        written.append(_row(category, triples, references, len(written) + 1))
        if split == "test":
            written[-1]["seen"] = is_seen
    return written


def _row(category: str, triples: list[str], references: list[str], number: int) -> dict[str, Any]:
    return {
        "category": category,
        "size": len(triples),
        "eid": f"Id{number}",
        "triples": triples,
        "references": references,
        "lids": [f"Id{index + 1}" for index in range(len(references))],
        "comments": ["good"] * len(references),
    }
