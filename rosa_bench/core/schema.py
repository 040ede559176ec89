"""Configuration nodes: frozen, keyword-only dataclasses with strict validation."""

from __future__ import annotations

import dataclasses
import functools
import re
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from rosa_bench.core.aliases import meant
from rosa_bench.core.spelling import suggestion
from rosa_bench.system.files import typed_path
from rosa_bench.system.strict_json import short

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)

LONGEST_MESSAGE = 600  # characters per error


@dataclasses.dataclass(frozen=True)
class Neutral:
    """Marks a field that cannot change a result. A run's key leaves it out."""


@dataclasses.dataclass(frozen=True)
class Added:
    """Marks a field that existing records may lack. A run's key leaves it out while it equals `value`.

    With this value, a run must give the same result as before the field existed.
    """

    value: Any


NEUTRAL = Neutral()

Count = Annotated[int, Field(ge=1, le=2**53)]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]


def _file_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("must be at most 64 letters, digits, '_', '.' and '-', because it becomes part of a file name")
    return value


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.parts or not value.isprintable():
        raise ValueError("must be a relative folder without '..'")
    return value


def _home(value: str) -> str:
    try:
        return str(typed_path(value)) if value.startswith("~") else value
    except ArgumentTypeError as error:
        raise ValueError(str(error)) from error


Location = Annotated[str, AfterValidator(_home)]  # a file or folder; `~` is the home folder
FileName = Annotated[str, AfterValidator(_file_name)]  # part of the names of a run's files
Folder = Annotated[str, AfterValidator(_inside)]  # relative to another folder
Bias = Literal["none", "adapted", "all"]  # biases of the backbone to train; `adapted`: those of adapted modules


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configured(cls: type[T]) -> type[T]:
    """Make `cls` a configuration node: unknown keys, wrong types and values out of range raise a ValidationError."""
    return cast(type[T], dataclass(frozen=True, kw_only=True, config=STRICT)(cls))


def constructed(
    prefix: str, cls: type, values: Mapping[str, Any], typed: Mapping[str, str] | None = None
) -> tuple[Any, list[str]]:
    """Create a configuration node, or list every error in its values as a phrase that starts with the key.

    `typed` maps keys to the text of their command-line overrides; errors show values as they were typed.
    """
    try:
        return cls(**values), []
    except ValidationError as error:
        return None, _phrases(prefix, cls, values, error, typed or {})


def _phrases(
    prefix: str, cls: Any, values: Mapping[str, Any], error: ValidationError, typed: Mapping[str, str]
) -> list[str]:
    """One phrase per field; the errors of a union's branches are joined."""
    names = [field.name for field in dataclasses.fields(cls)]
    faults: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        key = _place(values, item["loc"])
        message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        if len(message) > LONGEST_MESSAGE:  # it contains a value
            message = f"{message[: LONGEST_MESSAGE // 2]} ... {message[-LONGEST_MESSAGE // 2 :]}"
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            faults[f"{prefix}{key} is not a key"] = [meant(f"{prefix}{key}", [f"{prefix}{name}" for name in names])]
            continue
        full, text = f"{prefix}{key}", typed.get(f"{prefix}{key}")
        shown = f"{full}={short(item.get('input'))}" if key else prefix.rstrip(".")
        if key in values and (right := suggestion(full, values[key], text, partial(_fits, cls, values, key))):
            shown = f"{full}={short(values[key]) if text is None else text[:80]}"
            message = f"{message}, write {right}"
        faults.setdefault(shown, []).append(message)
    return [f"{shown}: {' or '.join(dict.fromkeys(messages))}".lstrip(": ") for shown, messages in faults.items()]


def _fits(cls: Any, values: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether a field is valid with this value, regardless of the other fields."""
    try:
        cls(**{**values, name: value})
    except ValidationError as error:
        return not any(item["loc"][:1] == (name,) for item in error.errors(include_url=False))
    return True


def _place(values: Mapping[str, Any], location: Sequence[int | str]) -> str:
    """The dotted key of an error, without the types that pydantic inserts into its location."""
    node: Any = values
    keys: list[str] = []
    for step in location:
        if not keys or (isinstance(node, Mapping) and step in node):
            keys.append(str(step)[:80])
            node = node.get(step)
    return ".".join(keys)


@functools.cache
def key_marks(cls: type) -> tuple[frozenset[str], Mapping[str, Any]]:
    """The fields of a configuration class that are marked `Neutral`, and the values of those marked `Added`."""
    neutral, added = set(), {}
    for name, field in cast(Any, cls).__pydantic_fields__.items():
        for mark in field.metadata:
            if isinstance(mark, Neutral):
                neutral.add(name)
            elif isinstance(mark, Added):
                added[name] = mark.value
    return frozenset(neutral), added
