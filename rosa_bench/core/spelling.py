"""Suggest the override that was probably meant by a value of the wrong type."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")  # strings that Hydra reads as strings without quotes
NOT_TEXT = {"null", "true", "false", "nan", "inf"}
PLAIN = re.compile(r"[^\x00-\x1f\x7f\"$`!\\]*")  # what a shell does not expand between double quotes
LONGEST = 200  # characters of a suggestion
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def suggestion(key: str, value: Any, text: str | None, fits: Callable[[Any], bool]) -> str | None:
    """An override that gives `key` a valid value, quoted for a shell; None if there is no such value.

    Args:
        key: the key, dotted.
        value: the parsed value.
        text: the text after the equals sign, if known; it keeps the spelling of a number.
        fits: whether a value is valid for the key.
    """
    valid = (word for word in _candidates(value, text) if repr(word) != repr(value) and fits(word))
    candidate = next(valid, None)
    override = f"{key}={_in_grammar(candidate)}"
    return None if candidate is None or len(override) > LONGEST or not PLAIN.fullmatch(override) else _quoted(override)


def _candidates(value: Any, text: str | None) -> Iterator[Any]:
    """Values of other types that `value` may stand for, the likeliest first."""
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        typed = [] if text is None else [_unquoted(word) for word in text.strip("[]").split(",")]
        words = typed if len(typed) == len(value) else [_text(item) for item in value]
        yield words
        yield [_number(word) for word in words]
    elif isinstance(value, (str, int, float)):
        word = _text(value) if text is None else _unquoted(text)
        yield from (word, word.lower(), _number(word))
        if word.lower() in WORDS:
            yield WORDS[word.lower()]
        yield from ([value], [word], [part.strip() for part in word.split(",")], [_number(word)])


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _unquoted(word: str) -> str:
    word = word.strip()
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word


def _number(word: str) -> Any:
    """The number in a string, as an int if it is whole; the string itself if it is not a number."""
    try:
        number = float(word)
        return int(number) if number.is_integer() else number
    except (ValueError, OverflowError):
        return word


def _in_grammar(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_in_grammar, value))}]"
    if isinstance(value, str) and (not BARE.fullmatch(value) or value.lower() in NOT_TEXT):
        return "'" + value.replace("'", "\\'") + "'"
    return _text(value)


def _quoted(override: str) -> str:
    """An override, quoted for a shell if necessary."""
    return override if re.fullmatch(r"[\w.=/,:+-]*", override) else f'"{override}"'
