"""What was read from a file or given by a user, before it is believed or shown. Light: nothing but the library."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, TypeGuard


def short(value: object) -> str:
    """A value as an error shows it: on one line, and not for pages."""
    shown = repr(value) if isinstance(value, (str, int, float, list, dict, type(None))) else type(value).__name__
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown)} characters)"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether something is a finite number that a float can hold; true and false are none."""
    largest = sys.float_info.max
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest


def loads(text: str | bytes, once: bool = False) -> Any:
    """JSON that means one thing; with `once`, a key that an object has twice is a fault too, which takes time to see.

    Raises:
        ValueError: for what is no JSON, for NaN and infinity, and for what is nested too deep.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once if once else None)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {short(twice)} stands there twice")
    return found


def depth(value: Any) -> int:
    """Levels of nesting, counted without recursion, which ends before JSON does."""
    level, levels = [value], 0
    while level:
        levels += 1
        nested = (outer for outer in level if isinstance(outer, (dict, list)))
        level = [inner for outer in nested for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return levels


def is_text(value: object) -> bool:
    """Whether all that is text in a value can be written down: half of a surrogate pair cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
