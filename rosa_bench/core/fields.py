"""Checked access to the fields of a raw row. Errors name the file, the line and the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rosa_bench.errors import UsageError
from rosa_bench.system.strict_json import is_number, short

MOST = 100  # choices per question


def field(row: Mapping[str, Any], name: str, expected: type | tuple[type, ...], where: str) -> Any:
    """`row[name]`, checked. Raises UsageError if the field is missing or not of the type `expected`."""
    if name not in row:
        fields = [str(key) if str(key).isprintable() else repr(key) for key in list(row)[:20]]
        shown = ", ".join(name[:40] for name in fields) + (", ..." if len(row) > 20 else "")
        raise UsageError(f"{where}: field {name!r} is missing (fields: {shown or 'none'})")
    value = row[name]
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise UsageError(f"{where}: field {name!r} is {type(value).__name__}, not {names}")
    return value


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """A string field that is not blank."""
    text: str = field(row, name, str, where)
    if not text.strip():
        raise UsageError(f"{where}: field {name!r} is empty")
    return text


def number_field(row: Mapping[str, Any], name: str, where: str) -> float:
    """A finite number."""
    value = field(row, name, (int, float), where)
    if not is_number(value):
        raise UsageError(f"{where}: field {name!r} is {short(value)}, not a finite number")
    return float(value)


def class_field(row: Mapping[str, Any], name: str, count: int | None, where: str) -> int:
    """A class or choice in 0..count-1. Pass `count=None` if the number of choices differs between rows."""
    label: int = field(row, name, int, where)
    if not 0 <= label < (count or MOST):
        raise UsageError(f"{where}: field {name!r} is {short(label)}, not one of 0..{(count or MOST) - 1}")
    return label


def identity_field(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The id of a row: the first of the fields `names` that is set (a string or an integer), else `where`."""
    name = next((name for name in names if row.get(name) not in (None, "")), None)
    return where if name is None else str(field(row, name, (str, int), where))


def texts_field(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """A non-empty list of strings that are not blank."""
    values = field(row, name, list, where)
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise UsageError(f"{where}: field {name!r} is not a list of non-empty strings")
    return list(values)
