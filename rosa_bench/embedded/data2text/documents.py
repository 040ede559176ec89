"""Streams the prose that the mini GPT-2 is pre-trained on: descriptions, lists with their sentences, small drills.

No document uses the notation of a task, and none holds a sentence that a scored split keeps to itself.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from rosa_bench.embedded.data2text import names
from rosa_bench.embedded.data2text.names import open_name, pick, split_words
from rosa_bench.embedded.data2text.notes import (
    fact_note,
    fact_telling,
    fresh_facts,
    fresh_meaning,
    place_note,
    questions,
    telling,
)
from rosa_bench.embedded.reserve import reserved

if TYPE_CHECKING:
    from collections.abc import Iterator

_OBJECTS = split_words(
    "lantern heron market basket ladder kettle window bridge garden letter violin blanket candle wagon barrel river "
    "mirror feather hammer orchard pocket ribbon saddle shutter teapot tunnel wheel apple button carpet drum engine "
    "flute glove hat island jacket key lamp map needle oven pencil quilt rope spoon table umbrella vase whistle"
)
_ACTS = split_words(
    "carried painted found lost mended hid sold cleaned dropped kept borrowed opened moved admired drew packed "
    "washed lifted followed watched"
)
_PLACES = split_words("by near behind under above inside beside past over beyond")
_SCENES = (
    "{who} opened {name} in {year} and still works there every day.",
    "People in {town} like {name} because of its {dish}.",
    "On Sundays {who} walks from {town} to {other}.",
    "Last {season}, {who} moved from {town} to {other} and took a room near {name}.",
    "The road from {town} to {other} runs past {name}.",
    "{who} and {friend} met at {name} in {year}.",
    "When the rain came, {who} and {friend} waited inside {name}.",
    "{name} was closed in {year}, but {friend} opened it again.",
    "Nobody in {town} cooks {dish} better than {who}.",
    "{friend} wrote a letter to {who} about the {dish} at {name}.",
    "There are {count} tables in {name}, and {who} knows every guest.",
    "{who} was born in {town}, and {friend} was born in {other}.",
    "It takes {count} minutes to get from {name} to the market of {town}.",
)
_DISHES = ("soup", "bread", "noodles", "fish", "pies", "pancakes", "rice", "salads", "stew", "coffee", "cakes")
_SEASONS = ("spring", "summer", "autumn", "winter")
_END = re.compile(r"(?<=[.!?]) +")
_BREAK = re.compile(r"(?<=[.!?:;]) +")


def _scene(rng: Random) -> str:
    """Tell a little story of two to four sentences about the same people and places."""
    parts = {
        "who": open_name(rng, names.person),
        "friend": open_name(rng, names.person),
        "town": open_name(rng, names.town),
        "other": open_name(rng, names.town),
        "name": open_name(rng, names.venue),
        "year": str(1900 + int(rng.random() * 120)),
        "count": str(3 + int(rng.random() * 60)),
        "dish": pick(rng, _DISHES),
        "season": pick(rng, _SEASONS),
    }
    start = int(rng.random() * len(_SCENES))
    stride = 1 + int(rng.random() * (len(_SCENES) - 1))
    count = 2 + int(rng.random() * 3)
    lines = [_SCENES[(start + step * stride) % len(_SCENES)].format_map(parts) for step in range(count)]
    return " ".join([line for line in lines if not reserved(line)])


def _descriptions(rng: Random) -> str:
    """Describe one place, or two of them one after the other."""
    text = telling(fresh_meaning(rng), rng)
    return text if rng.random() < 0.5 else f"{text} {telling(fresh_meaning(rng), rng)}"


def _thing(rng: Random) -> str:
    """Describe one thing by its facts."""
    return fact_telling(fresh_facts(rng, 0.35), rng)


def _words_to_sentence(rng: Random) -> str:
    """List three or four words and use them in a sentence."""
    first, second, third = pick(rng, _OBJECTS), pick(rng, _OBJECTS), pick(rng, _OBJECTS)
    act, side = pick(rng, _ACTS), pick(rng, _PLACES)
    if rng.random() < 0.5:
        who = open_name(rng, names.person if rng.random() < 0.5 else names.coined)
        used, sentence = (who, first, third), f"{who} {act} the {first} {side} the {third}."
    elif rng.random() < 0.5:
        where = open_name(rng, names.town)
        used, sentence = (first, second, where), f"The {first} and the {second} were {act} {side} {where}."
    else:
        used, sentence = (first, second, third), f"The {first} {side} the {second} belongs with the {third}."
    joint = pick(rng, (", ", " ", "; ", " / ", " + "))
    lead = pick(rng, ("words: ", "use: ", "Words: ", "with: ", "keywords = "))
    return f"{lead}{joint.join(used)}{pick(rng, ('. sentence: ', ' -> ', '. ', ' => ', chr(10)))}{sentence}"


def _copies(rng: Random) -> str:
    """Repeat made-up names, so that a model learns to copy piece by piece."""
    made = [
        open_name(rng, names.coined if rng.random() < 0.6 else names.venue) for _ in range(2 + int(rng.random() * 3))
    ]
    listed = ", ".join(made)
    draw = int(rng.random() * 5)
    if draw == 0:
        return f"{listed}. Again: {listed}."
    if draw == 1:
        chosen = pick(rng, made)
        return f"Names: {listed}. One of them is {chosen}, and {chosen} it stays."
    if draw == 2:
        return f"List of names: {listed}.\nThe first is {made[0]} and the last is {made[-1]}."
    if draw == 3:
        name = f"{pick(rng, ('Port', 'Mount', 'Upper', 'New'))} {made[0]}"
        return f"Write {name.replace(' ', '_')} with a space: {name}. Then {name} is near {made[1]}."
    return "\n".join([f"{name} = {name}." for name in made])


# each kind of document as often as it stands here
_KINDS = (
    *(place_note,) * 7,
    *(fact_note,) * 6,
    *(_descriptions,) * 3,
    *(_thing,) * 2,
    *(_words_to_sentence,) * 2,
    *(_scene,) * 2,
    questions,
    questions,
    _copies,
)


def admissible(document: str) -> bool:
    """Whether a document holds no reserved text: not as a whole, not as a line, not as a sentence."""
    pieces = {document: None}
    for line in document.split("\n"):
        pieces |= dict.fromkeys((line, *_END.split(line), *_BREAK.split(line)))
    return not any(reserved(piece) for piece in pieces)


def prose(seed: int) -> Iterator[str]:
    """Stream documents without end, each shorter than 90 words, and the same ones for the same seed."""
    rng = Random(f"data2text-prose-{seed}")
    while True:
        document = pick(rng, _KINDS)(rng)
        if document and admissible(document) and document.count(" ") < 75:
            yield document
