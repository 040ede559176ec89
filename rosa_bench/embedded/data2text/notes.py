"""Shows the same facts as notes and as a sentence, in many notations, none of which is that of a task.

Whoever has read these has learned to carry names and values from a list into a sentence, names by pieces included.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from rosa_bench.embedded.data2text import names
from rosa_bench.embedded.data2text.names import lean, open_name, pick, split_words
from rosa_bench.embedded.data2text.relations import NAME_KINDS, SEEN, UNSEEN, Relation, relation, words_of
from rosa_bench.embedded.data2text.restaurants import Meaning, draw_meaning, realise
from rosa_bench.embedded.data2text.triples import Fact, say
from rosa_bench.embedded.reserve import reserved

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_LABELS = {
    "name": ("name", "place", "called"),
    "eatType": ("kind", "sort", "what it is"),
    "food": ("food", "cuisine", "dishes"),
    "priceRange": ("cost", "prices", "bill"),
    "customer rating": ("rating", "score", "guests say"),
    "area": ("area", "where", "part of town"),
    "familyFriendly": ("children", "families", "kids"),
    "near": ("beside", "neighbour", "close by"),
}
_TRIES = 6
_ARROWS = (" -> ", " => ", "\n", " Text: ", " In words: ", "\nsentence: ", " That is: ")
_MODIFIERS = split_words(
    "engine wing roof garden river first last main top second surface body home current former early late inner "
    "outer winter summer average total official local record shirt party music moon orbit street tail stone window "
    "market speed fuel night morning deputy senior junior favourite usual final opening closing common hidden"
)
_HEADS = split_words(
    "type colour size length weight year shape speed style height depth width age rank price date period "
    "temperature capacity goal distance number position level material language genre profession subject brand"
)
_NAME_HEADS = [
    "name",
    "owner",
    "maker",
    "teacher",
    "partner",
    "rival",
    "club",
    "label",
    "district",
    "neighbour",
    "coach",
    "leader",
    "song",
    "street",
    "hall",
]
_DOERS = split_words(
    "painted built opened closed sold bought signed named observed elected assembled manufactured advised coached "
    "discovered trained owned founded written invented drawn found moved repaired planned guided funded"
)
_COUNTED = split_words(
    "rooms doors books seats goals moons songs albums votes members windows trees ships pupils bells"
)
_VALUES = split_words(
    "red blue green steel wood glass round square wide narrow early late double single soft hard jazz folk steam "
    "diesel teacher farmer lawyer keeper striker electric modern classic daily weekly"
)
_UNITS = split_words("metres hours days litres kilometres minutes kelvins centimetres km/h")
_MAKERS: dict[str, Callable[[Random], str]] = {
    "town": names.town,
    "person": names.person,
    "country": names.country,
    "company": names.company,
    "title": names.title,
    "venue": names.corner,
    "coined": names.coined,
    "university": lambda rng: f"{names.coined(rng)} University",
    "league": lambda rng: f"{names.coined(rng)} League",
    "team": lambda rng: f"{names.coined(rng)} Rovers",
}


def fresh_meaning(rng: Random) -> Meaning:
    """Draw a place to eat whose name and neighbour are composed on the spot and are in no scored split."""
    return draw_meaning(rng, open_name(rng, names.venue), open_name(rng, names.corner))


def telling(meaning: Meaning, rng: Random) -> str:
    """Say what a place is like, in words that no scored split holds; empty if none were found."""
    for _ in range(_TRIES):
        text = realise(meaning, rng)
        if not reserved(text):
            return text
    return ""


def fields(meaning: Meaning, rng: Random) -> list[tuple[str, str]]:
    """Label the attributes of a place with everyday words instead of the keys of the task, in a free order."""
    listed = [(pick(rng, _LABELS[key]), value) for key, value in meaning.items()]
    if rng.random() < 0.4:
        turn = int(rng.random() * len(listed))
        listed = listed[turn:] + listed[:turn]
    return listed


def write_list(listed: list[tuple[str, str]], rng: Random) -> str:
    """Write labelled values in one of many notations."""
    draw = int(rng.random() * 11)
    if draw < 4:
        between = (" = ", ": ", " is ", " - ")[draw]
        joint = pick(rng, (" / ", "; ", ", ", "\n"))
        return joint.join([f"{label}{between}{value}" for label, value in listed])
    if draw < 7:
        joint = (" ; ", ", ", " / ")[draw - 4]
        return joint.join([value for _, value in listed])
    if draw == 7:
        return " ".join([f"({value})" for _, value in listed])
    if draw == 8:
        return "\n".join([f"- {label}: {value}" for label, value in listed])
    if draw == 9:
        return ", ".join([f'"{label}": "{value}"' for label, value in listed])
    return " ".join([f"<{label}> {value}" for label, value in listed])


def place_note(rng: Random) -> str:
    """Write a list of a place's attributes and the sentence made of it, or the other way round."""
    meaning = fresh_meaning(rng)
    listed = write_list(fields(meaning, rng), rng)
    text = telling(meaning, rng)
    if not text:
        return ""
    if rng.random() < 0.12:
        return f"{text}\nNotes: {listed}."
    lead = pick(rng, ("", "", "Notes: ", "Given: ", "Facts. ", "List: "))
    return f"{lead}{listed}{pick(rng, _ARROWS)}{text}"


def questions(rng: Random) -> str:
    """Describe a place and ask for two of its attributes."""
    meaning = fresh_meaning(rng)
    told = telling(meaning, rng)
    if not told:
        return ""
    lines = [told]
    keys = list(meaning)
    asked = (pick(rng, keys), "name") if rng.random() < 0.7 else ("name", pick(rng, keys))
    lines += [f"Q: what is the {pick(rng, _LABELS[key][:2])}? A: {meaning[key]}." for key in asked]
    if lines[1] == lines[2]:
        del lines[2]
    return "\n".join(lines)


@cache
def _noun_relation(name: str, kind: str) -> Relation:
    return relation(name, kind)


# the relations that only the unseen categories have are left to be worded from their parts
_HELD_OUT = frozenset(link.name for _, relations in UNSEEN.values() for link in relations)
_SEEN = tuple(relations for _, relations in SEEN.values())


def _compound(rng: Random) -> tuple[str, str]:
    """Make up the name of a relation in camel case and the kind of its objects."""
    draw = rng.random()
    if draw < 0.2:
        doer = pick(rng, _DOERS)
        return (f"{doer}By", pick(rng, ("person", "company"))) if rng.random() < 0.6 else (f"{doer}In", "year")
    if draw < 0.35:
        return f"numberOf{pick(rng, _COUNTED).capitalize()}", "count"
    if draw < 0.6:
        head = pick(rng, _NAME_HEADS).capitalize()
        return f"{pick(rng, _MODIFIERS)}{head}", pick(rng, ("person", "coined", "town", "team", "company", "title"))
    return f"{pick(rng, _MODIFIERS)}{pick(rng, _HEADS).capitalize()}", pick(rng, ("word", "unit", "count", "year"))


def _value(rng: Random, kind: str) -> str:
    """Make up an object of some kind."""
    if kind in _MAKERS:
        return open_name(rng, _MAKERS[kind])
    if kind.startswith("words "):
        return pick(rng, kind.removeprefix("words ").split(","))
    if kind == "word":
        return pick(rng, _VALUES)
    if kind == "year":
        return str(1400 + int(rng.random() * 620))
    if kind.startswith("unit"):
        return f"{1 + int(rng.random() * 999)} {kind.split(' ')[3] if ' ' in kind else pick(rng, _UNITS)}"
    draw = rng.random()
    return str(int(10 ** (0.5 + 5 * draw)))


def fresh_facts(rng: Random, made_up: float = 0.65) -> list[Fact]:
    """Draw one to four facts about a made-up thing, most of them by relations that are made up as well."""
    subject = open_name(rng, _MAKERS[pick(rng, ("town", "person", "coined", "coined", "title", "venue", "team"))])
    number = 1 + int(rng.random() * 4)
    facts: dict[str, Fact] = {}
    known = pick(rng, _SEEN)
    for _ in range(number):
        name, kind = _compound(rng)
        if rng.random() < made_up and name not in _HELD_OUT:
            link = _noun_relation(name, kind if kind in NAME_KINDS else "literal")
        else:
            link = pick(rng, known)
            kind = link.kind
        facts[link.name] = Fact(subject, link, _value(rng, kind))
    return list(facts.values())


def fact_telling(facts: list[Fact], rng: Random) -> str:
    """Word facts in sentences that no scored split holds; empty if none were found."""
    for _ in range(_TRIES):
        text = say(facts, rng)
        if not reserved(text):
            return text
    return ""


def fact_note(rng: Random) -> str:
    """Write facts as subject, relation and object in some notation, followed by sentences that word them."""
    facts = fresh_facts(rng)
    style = rng.random()
    between = pick(rng, (" :: ", " > ", " - ", ", ", " / ", "; "))
    snake = rng.random() < 0.4
    lines = []
    for fact in facts:
        label = fact.relation.name
        if style < 0.3:
            label = "_".join(_split(label)).upper()
        elif style < 0.5:
            label = " ".join(_split(label))
        subject, value = fact.subject, fact.value
        if snake:
            subject, value = subject.replace(" ", "_"), value.replace(" ", "_")
        lines.append(f"{subject}{between}{label}{between}{value}")
    if style > 0.8:
        shown = f"{facts[0].subject}: " + pick(rng, (", ", "; ", " / ")).join(
            [f"{fact.relation.name} {lean(rng, ('=', '->', 'is'))} {fact.value}" for fact in facts]
        )
    else:
        shown = pick(rng, ("\n", " ~ ", " + ", ". ")).join(lines)
    told = fact_telling(facts, rng)
    return f"{shown}{pick(rng, _ARROWS)}{told}" if told else ""


@cache
def _split(name: str) -> tuple[str, ...]:
    return tuple(words_of(name).split())
