"""Strict JSON parsing and checks of untrusted values. Imports only the standard library."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, TypeGuard


def short(value: object) -> str:
    """Format a value for an error message: one line, at most about 80 characters."""
    text = repr(value) if isinstance(value, (str, int, float, list, dict, type(None))) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number within the range of a float; booleans are not numbers."""
    largest = sys.float_info.max
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest


def loads(text: str | bytes, once: bool = False) -> Any:
    """Parse strict JSON. `once` also rejects duplicate keys, which is slower.

    Raises:
        ValueError: for invalid JSON, NaN, infinity, or too deep nesting; with `once`, for a duplicate key.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once if once else None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a valid number")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key {short(duplicate)}")
    return mapping


def depth(value: Any) -> int:
    """Levels of nesting, counted without recursion, since JSON can be nested deeper than the recursion limit."""
    level, levels = [value], 0
    while level:
        levels += 1
        nested = (outer for outer in level if isinstance(outer, (dict, list)))
        level = [inner for outer in nested for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return levels


def is_text(value: object) -> bool:
    """Whether all strings in a value can be encoded as UTF-8, that is, contain no unpaired surrogate."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
