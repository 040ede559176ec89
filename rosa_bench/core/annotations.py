"""Check values against the annotations of another library's dataclass, which would accept any value and fail later.

A string annotation accepts every value if the annotations of its class cannot be resolved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import types
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from rosa_bench.errors import UsageError, nearest
from rosa_bench.system.strict_json import short


def check(cls: type, values: Mapping[str, Any], prefix: str, derived: Collection[str] = ()) -> None:
    """Check values for the fields of a dataclass and of the dataclasses nested in it.

    Args:
        cls: the dataclass.
        values: values by field name.
        prefix: the configuration key of `values`, for messages.
        derived: fields that are derived and cannot be set.

    Raises:
        UsageError: for an unknown key, with the nearest valid keys, or a value that its annotation does not allow.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init and field.name not in derived}
    hints = _hints(cls)
    for name, value in values.items():
        key = f"{prefix}.{name}"
        if name in derived:
            raise UsageError(f"{key} cannot be set; it is derived from the model and the task")
        if name not in fields:
            near = nearest(key, [f"{prefix}.{name}" for name in fields])
            raise UsageError(f"{key} is not a key of {cls.__name__} ({_origin(cls)}): {near}")
        hint = hints.get(name, Any)
        inner = [kind for kind in _members(hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
        if inner and isinstance(value, Mapping):
            check(inner[0], value, key)
        elif not fits(hint, json.dumps(value)) and (value is not None or fields[name].default is not None):
            raise UsageError(f"{key}={short(value)} is not {expected(hint, value)}")


def _origin(cls: type) -> str:
    """The package that defines a class, with its version if it is installed."""
    package = cls.__module__.partition(".")[0]
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a class; without string annotations if they cannot be resolved."""
    try:
        return get_type_hints(cls)
    except (NameError, TypeError, AttributeError):
        return {field.name: field.type for field in dataclasses.fields(cls) if not isinstance(field.type, str)}


def _members(hint: Any) -> list[Any]:
    """The members of a union, or the annotation. Omits `str` next to an enumeration: it stands for its values."""
    members = list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]
    return [kind for kind in members if kind is not str or not any(map(_names, members))]


def _names(kind: Any) -> list[Any]:
    """The values of an enumeration; empty for other types."""
    is_class = isinstance(kind, type) and not get_args(kind)
    return [member.value for member in kind] if is_class and issubclass(kind, Enum) else []


def _choices(kind: Any) -> Sequence[Any]:
    """The values of a `Literal` or an enumeration; empty for other types."""
    return get_args(kind) if get_origin(kind) is Literal else _names(kind)


def fits(hint: Any, text: str) -> bool:
    """Whether a JSON value is valid. JSON has lists for sets and tuples, and values for enumeration members."""
    for kind in _members(hint):
        if dataclasses.is_dataclass(kind):
            continue
        adapter = TypeAdapter[Any](str if _is_open(kind) else kind, config=ConfigDict(arbitrary_types_allowed=True))
        with contextlib.suppress(ValidationError):
            adapter.validate_json(text, strict=True)
            return True
    return False


def _is_open(kind: Any) -> bool:
    """Whether a `Literal` allows names that it does not list, by a pattern such as `name_[number]`."""
    return get_origin(kind) is Literal and any("[" in str(name) for name in get_args(kind))


def expected(hint: Any, value: Any) -> str:
    """A description of valid values that completes the message "... is not"."""
    members = _members(hint)
    names = [name for kind in members for name in _choices(kind)]
    if names and isinstance(value, str):
        return f"a known name: {nearest(value, map(str, names))}"
    kinds = [kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind) for kind in members]
    return "of type " + " or ".join("null" if kind == "NoneType" else kind.replace("typing.", "") for kind in kinds)
