"""How a configuration node is declared: a frozen, keyword-only dataclass, its types and ranges checked strictly."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar, cast

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=1, le=2**53)]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]
Bias = Literal["none", "adapted", "all"]  # which biases of a backbone train; `adapted`: those of adapted modules


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configured(cls: type[T]) -> type[T]:
    """Make `cls` a configuration node: unknown keys, wrong types and values out of range raise a ValidationError."""
    return cast(type[T], dataclass(frozen=True, kw_only=True, config=STRICT)(cls))
