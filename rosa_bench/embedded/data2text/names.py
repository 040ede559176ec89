"""Composes the names of the embedded world: venues, towns, people, companies and made-up words.

A name is put together from parts, so that the names of a test split can be new to a model whose pre-training prose
used every part. Names stay clear of the words that realise an attribute ("riverside", "cheap", "English").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from rosa_bench.embedded.reserve import reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

T = TypeVar("T")


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text, for word lists that are easier to read in one string."""
    return tuple(text.split())


COLOURS = split_words("Blue Golden Green Silver Red White Black Crimson Amber Copper Ivory Scarlet")
MANNERS = split_words(
    "Rusty Hollow Merry Silent Gentle Wandering Crooked Hidden Lucky Proud Broken Dancing Sleepy Velvet Iron Wooden "
    "Winter Summer Northern Southern Twisted Painted Flying Laughing Lonely Royal"
)
THINGS = split_words(
    "Fox Lantern Anchor Heron Barrel Kettle Bell Crown Feather Harp Compass Badger Falcon Swan Otter Acorn Thistle "
    "Willow Maple Clover Pepper Saffron Ladle Spoon Cauldron Orchard Meadow Mill Bridge Tower Ship Wheel Hammer "
    "Arrow Star Moon Rose Lily Stag Hare Owl Raven Pheasant Salmon Trout Oyster Plough Hearth Chimney Candle"
)
TRADES = split_words(
    "Weavers Millers Coopers Drapers Fiddlers Gardeners Hunters Jugglers Masons Painters Pilgrims Ploughmen Riders "
    "Sailors Shepherds Smiths Tailors Tinkers Travellers Wrestlers Bakers Carters Dancers Clowns"
)
SHE = split_words(
    "Ada Clara Della Edith Freya Greta Hilda Ingrid Jana Klara Lena Mira Nora Olga Petra Runa Sonja Tilda Vera Wilma "
    "Alma Berit Cora Dagny"
)
HE = split_words(
    "Anton Boris Conrad Dmitri Edgar Felix Gustav Hector Igor Jasper Karl Leon Magnus Nils Oscar Pavel Quentin Rufus "
    "Stefan Tobias Ulric Viktor Walter Yorick"
)
_FAMILY_STARTS = split_words(
    "Hart Brad Col Wind Ash Thorn Lang Mar Kings Wood Holl Black Gran Stan Red Whit Fair Ald Burn Carl Dun El Fen Grim"
)
_FAMILY_ENDS = split_words("well ford ley low more ton wick worth by man field stone ridge croft shaw den")
_STARTS = split_words(
    "Vel Tar Mor Kel Dra Sil Bor Fen Gal Hal Jor Lun Nor Pel Quin Ros Sor Thal Ul Ver Wen Zan Bel Cas Dor Er Fal Gri "
    "Il Kor Lor Mel Nim Or Pra Ran Sta Tol Var Yor"
)
_MIDDLES = split_words("a e i o u mo ni ra le ti va do ri sa lo ma ne ka re bi ve ru da li go na")
_ENDS = split_words("ra ko la ria nia dor ven mar th ndo lia ska ren va tis lon mir sk na ros gard lle vik tta nzo")
_CORNERS = split_words("Hotel Theatre Museum Bakery Library Garden Inn Hall Bookshop Cinema Gallery Chapel")
_FIRMS = split_words("Works Motors Press Group Records Books Partners Studios Brothers Airlines")

_SHE_SET = frozenset(SHE)
_HE_SET = frozenset(HE)


def pick(rng: Random, options: Sequence[T]) -> T:
    """Draw one option, all alike; faster than ``rng.choice`` and the same on every version of Python."""
    return options[int(rng.random() * len(options))]


def lean(rng: Random, options: Sequence[T]) -> T:
    """Draw one option with a lean to the first ones, so that a task has a usual wording and rarer ones."""
    draw = rng.random()
    return options[int(draw * draw * len(options))]


def coined(rng: Random) -> str:
    """Make up a word such as "Velmora" or "Tarniko" from syllables; there are about 27,000."""
    middle = pick(rng, _MIDDLES) if rng.random() < 0.7 else ""
    return pick(rng, _STARTS) + middle + pick(rng, _ENDS)


def family(rng: Random) -> str:
    """Compose a family name such as "Hartwell"."""
    return pick(rng, _FAMILY_STARTS) + pick(rng, _FAMILY_ENDS) if rng.random() < 0.7 else coined(rng)


def person(rng: Random) -> str:
    """Compose a person's name; ``pronoun`` knows from its first word whether it is a "he" or a "she"."""
    return f"{pick(rng, SHE if rng.random() < 0.5 else HE)} {family(rng)}"


def pronoun(name: str) -> str:
    """The pronoun of a subject in a sentence's first place: "She" or "He" for a person, else "It"."""
    first = name.split(" ", 1)[0]
    if first in _SHE_SET:
        return "She"
    return "He" if first in _HE_SET else "It"


def venue(rng: Random) -> str:
    """Compose the name of a place to eat: "Blue Fox", "The Weavers", "Marlow's", "Velmora Kitchen"."""
    draw = rng.random()
    if draw < 0.3:
        return f"{pick(rng, COLOURS if rng.random() < 0.5 else MANNERS)} {pick(rng, THINGS)}"
    if draw < 0.5:
        return f"The {pick(rng, COLOURS if rng.random() < 0.5 else MANNERS)} {pick(rng, THINGS)}"
    if draw < 0.6:
        return f"The {pick(rng, TRADES)}"
    if draw < 0.7:
        return f"{family(rng)}'s"
    if draw < 0.9:
        return coined(rng)
    return f"{coined(rng)} {pick(rng, ('Kitchen', 'House', 'Table', 'Lounge'))}"


def corner(rng: Random) -> str:
    """Compose the name of a known spot that something else is near to: "Velmora Hotel", "Cafe Tarniko"."""
    draw = rng.random()
    if draw < 0.5:
        return f"{coined(rng)} {pick(rng, _CORNERS)}"
    if draw < 0.75:
        return f"{pick(rng, THINGS)} {pick(rng, _CORNERS)}"
    return f"Café {coined(rng)}" if draw < 0.9 else f"The {pick(rng, COLOURS)} {pick(rng, _CORNERS)}"


def town(rng: Random) -> str:
    """Compose the name of a town: "Velmora", "Port Tarniko", "Hartford"."""
    draw = rng.random()
    if draw < 0.6:
        return coined(rng)
    if draw < 0.8:
        return f"{pick(rng, ('Port', 'Saint', 'Mount', 'Upper', 'Lower', 'New'))} {coined(rng)}"
    return pick(rng, _FAMILY_STARTS) + pick(rng, ("ford", "ham", "bridge", "port", "mouth", "stead", "haven"))


def country(rng: Random) -> str:
    """Compose the name of a country: "Velland", "Tarnia"."""
    return pick(rng, _STARTS) + pick(rng, ("land", "onia", "avia", "istan", "aria", "mark"))


def company(rng: Random) -> str:
    """Compose the name of a firm: "Tarniko Motors", "Hartwell Press"."""
    return f"{coined(rng) if rng.random() < 0.6 else family(rng)} {pick(rng, _FIRMS)}"


def title(rng: Random) -> str:
    """Compose the title of a book, a film or a record: "The Silent Heron", "Velmora Rising"."""
    if rng.random() < 0.6:
        return f"{pick(rng, ('The', 'Our'))} {pick(rng, MANNERS)} {pick(rng, THINGS)}"
    return f"{coined(rng)} {pick(rng, ('Rising', 'Returns', 'Nights', 'Stories', 'Road', 'Dreams'))}"


def pool(rng: Random, maker: Callable[[Random], str], size: int, scored: bool) -> list[str]:
    """Compose ``size`` different names, all reserved for scored splits or none of them."""
    names: dict[str, None] = {}
    while len(names) < size:
        name = maker(rng)
        if reserved(name) == scored:
            names[name] = None
    return list(names)


def open_name(rng: Random, maker: Callable[[Random], str]) -> str:
    """Compose a name that no scored split keeps to itself, for the prose."""
    while True:
        name = maker(rng)
        if not reserved(name):
            return name
