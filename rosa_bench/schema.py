"""How a configuration node is declared: a frozen, keyword-only dataclass, its types and ranges checked strictly."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=1, le=2**53)]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]


def _file_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError("must be up to 64 letters, digits, '_', '.' and '-', as it becomes part of a file's name")
    return value


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.parts or not value.isprintable():
        raise ValueError("must be a relative folder without '..'")
    return value


FileName = Annotated[str, AfterValidator(_file_name)]  # what becomes part of the names of a run's files
Folder = Annotated[str, AfterValidator(_inside)]  # below another one
Bias = Literal["none", "adapted", "all"]  # which biases of a backbone train; `adapted`: those of adapted modules


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configured(cls: type[T]) -> type[T]:
    """Make `cls` a configuration node: unknown keys, wrong types and values out of range raise a ValidationError."""
    return cast(type[T], dataclass(frozen=True, kw_only=True, config=STRICT)(cls))
