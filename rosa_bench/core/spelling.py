"""The spelling that works: for a value of the wrong type, the override that was probably meant."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")  # texts that Hydra reads as texts without quotes
NOT_TEXT = {"null", "true", "false", "nan", "inf"}
PLAIN = re.compile(r"[^\x00-\x1f\x7f\"$`!\\]*")  # what a shell leaves alone between double quotes
LONGEST = 200  # characters of a suggestion
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def suggestion(key: str, value: Any, text: str | None, fits: Callable[[Any], bool]) -> str | None:
    """The override that gives `key` a value that fits, as typed in a shell; None if none was found.

    Args:
        value: what was given, after parsing.
        text: what was typed after the equals sign, if known; it keeps the spelling of a number.
        fits: whether a value is valid for the key.
    """
    meant = next((other for other in _candidates(value, text) if repr(other) != repr(value) and fits(other)), None)
    override = f"{key}={_written(meant)}"
    return None if meant is None or len(override) > LONGEST or not PLAIN.fullmatch(override) else _quoted(override)


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
    """The number that a text stands for, whole if it is; the text itself if it is none."""
    try:
        number = float(word)
        return int(number) if number.is_integer() else number
    except (ValueError, OverflowError):
        return word


def _written(value: Any) -> str:
    """A value as Hydra's grammar reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str) and (not BARE.fullmatch(value) or value.lower() in NOT_TEXT):
        return "'" + value.replace("'", "\\'") + "'"
    return _text(value)


def _quoted(override: str) -> str:
    """An override as typed in a shell."""
    return override if re.fullmatch(r"[\w.=/,:+-]*", override) else f'"{override}"'
