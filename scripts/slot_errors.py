"""Counts the attributes that a generated text omits, contradicts or invents.

BLEU barely reflects a wrong name or rating. The embedded grammar lists every wording of every value, so the check is
exact for its own references, which have no errors. Texts of real sets use other wordings, so use it for the embedded
tasks only.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from rosa_bench.embedded.data2text.restaurants import CUISINES, HEADS, parse_meaning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# All wordings of each value, in lower case and with spaces instead of hyphens between words.
SURFACES: dict[str, dict[str, tuple[str, ...]]] = {
    "eatType": {**HEADS},
    "food": {**{cuisine: (cuisine.lower(),) for cuisine in CUISINES}, "Fast food": ("fast food",)},
    "priceRange": {
        "cheap": ("cheap", "low priced", "low prices", "prices low", "inexpensive"),
        "moderate": ("moderately priced", "mid priced", "moderate prices"),
        "high": ("expensive", "high priced", "high prices"),
        "less than £20": ("less than £20", "under £20"),
        "£20-25": ("£20 25", "£20 to £25"),
        "more than £30": ("more than £30", "over £30"),
    },
    "customer rating": {
        "low": ("poorly rated", "low rated", "rated low", "low ratings", "low customer ratings"),
        "average": ("average rated", "rated average", "average ratings", "average customer ratings"),
        "high": ("highly rated", "high rated", "rated high", "high ratings", "high customer ratings"),
        "1 out of 5": ("1 out of 5", "one out of five", "one star", "1 star"),
        "3 out of 5": ("3 out of 5", "three out of five", "three star", "three stars", "3 stars"),
        "5 out of 5": ("5 out of 5", "five out of five", "five star", "five stars", "5 stars"),
    },
    "area": {
        "city centre": ("city centre", "centre of the city", "city center"),
        "riverside": ("riverside", "by the river"),
        "old town": ("old town", "old quarter"),
        "harbour": ("harbour", "waterfront"),
    },
    "familyFriendly": {
        "no": (
            "not family friendly",
            "not kid friendly",
            "not child friendly",
            "adults only",
            "does not welcome children",
            "without room for children",
            "turns children away",
            "does not suit families",
        ),
        "yes": (
            "family friendly",
            "kid friendly",
            "child friendly",
            "welcomes children",
            "for the whole family",
            "suits the whole family",
            "caters for kids",
        ),
    },
}
_NEAR = re.compile(r"\b(?:near|close to|not far from)\b")
_HYPHEN = re.compile(r"(?<=\w)-(?=\w)")


@cache
def _patterns(key: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """One pattern for all wordings of an attribute, longest first, and the value of each wording."""
    values = {wording: value for value, wordings in SURFACES[key].items() for wording in wordings}
    longest_first = sorted(values, key=lambda wording: (-len(wording), wording))
    choices = "|".join(re.escape(wording) for wording in longest_first)
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)"), values


def slot_errors(task: str, row_or_mr: Mapping[str, Any] | str, text: str) -> tuple[int, int]:
    """Count the attributes of a row that a text gets wrong, and all attributes of the row.

    For ``e2e`` an attribute is wrong if it is missing, if the text asserts another value, or if the text invents it;
    because of inventions there can be more errors than attributes. For ``web_nlg`` and ``dart`` a triple is wrong if
    the text lacks its subject or its object.
    """
    if task == "e2e":
        meaning = row_or_mr if isinstance(row_or_mr, str) else row_or_mr["meaning_representation"]
        return _meaning_errors(parse_meaning(meaning), text)
    if task not in ("web_nlg", "dart"):
        raise ValueError(f"task {task!r} has no attributes to check; choose from e2e, web_nlg, dart")
    if isinstance(row_or_mr, str):
        raise ValueError(f"task {task!r} is checked against a row, not against the string {row_or_mr!r}")
    if row_or_mr.get("source") == "e2e":
        meaning = {key: value for _, key, value in row_or_mr["tripleset"]}
        errors, number = _meaning_errors({"name": row_or_mr["tripleset"][0][0], **meaning}, text)
        return errors, number - 1
    triples = list(_triples(task, row_or_mr))
    return sum(not (_contains(text, subject) and _contains(text, value)) for subject, value in triples), len(triples)


def _contains(text: str, name: str) -> bool:
    """Whether a text contains a name as whole words: "Velmorando" does not contain "Velmora"."""
    if not name:
        return True  # DART's [TABLECONTEXT] names nothing
    place = text.find(name)
    while place >= 0:
        end = place + len(name)
        if not (text[place - 1 : place].isalnum() or text[end : end + 1].isalnum()):
            return True
        place = text.find(name, place + 1)
    return False


def _meaning_errors(meaning: dict[str, str], text: str) -> tuple[int, int]:
    name, near = meaning["name"], meaning.get("near")
    errors = int(not _contains(text, name))
    masked = text.replace(name, "@")
    if near:
        errors += not _contains(masked, near)
        masked = masked.replace(near, "@")
    masked = _HYPHEN.sub(" ", masked).lower()
    if not near:
        errors += bool(_NEAR.search(masked))
    for key in SURFACES:
        pattern, values = _patterns(key)
        asserted = {values[wording] for wording in pattern.findall(masked)}
        expected = {meaning[key]} if key in meaning else set()
        errors += asserted != expected
    return errors, len(meaning)


def _triples(task: str, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield subject and object of each triple as texts spell them; the subject is empty for a table's root node."""
    if task == "web_nlg":
        for triple in row["triples"]:
            subject, _, value = triple.split(" | ")
            yield subject.replace("_", " "), value.strip('"').replace("_", " ")
        return
    for subject, _, value in row["tripleset"]:
        yield "" if subject == "[TABLECONTEXT]" else subject, value.strip('"')
