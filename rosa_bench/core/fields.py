"""Checks of the fields of a raw row; a fault names file, line and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rosa_bench.errors import UsageError
from rosa_bench.system.strict_json import is_number, short

MOST = 100  # choices that a question may have


def field(row: Mapping[str, Any], name: str, wanted: type | tuple[type, ...], where: str) -> Any:
    """`row[name]`, checked. Raises UsageError that names file, line and field unless it has the wanted type."""
    if name not in row:
        known = [str(key) if str(key).isprintable() else repr(key) for key in list(row)[:20]]
        there = ", ".join(name[:40] for name in known) + (", ..." if len(row) > 20 else "")
        raise UsageError(f"{where}: field {name!r} is missing (there are: {there or 'none'})")
    value = row[name]
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise UsageError(f"{where}: field {name!r} is {type(value).__name__}, not {names}")
    return value


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """A text field that holds more than white space."""
    text: str = field(row, name, str, where)
    if not text.strip():
        raise UsageError(f"{where}: field {name!r} is empty")
    return text


def number_field(row: Mapping[str, Any], name: str, where: str) -> float:
    """A field that is a finite number."""
    value = field(row, name, (int, float), where)
    if not is_number(value):
        raise UsageError(f"{where}: field {name!r} is {short(value)}, not a finite number")
    return float(value)


def class_field(row: Mapping[str, Any], name: str, count: int | None, where: str) -> int:
    """A field that is one of `count` classes or choices, counted from 0; None where a row alone knows their number."""
    label: int = field(row, name, int, where)
    if not 0 <= label < (count or MOST):
        raise UsageError(f"{where}: field {name!r} is {short(label)}, not one of 0..{(count or MOST) - 1}")
    return label


def identity_field(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """What a row is called: a text or a whole number in the first of the fields that it has, else its place."""
    name = next((name for name in names if row.get(name) not in (None, "")), None)
    return where if name is None else str(field(row, name, (str, int), where))


def texts_field(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """A list field of at least one non-empty text."""
    values = field(row, name, list, where)
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise UsageError(f"{where}: field {name!r} is not a list of non-empty texts")
    return list(values)
