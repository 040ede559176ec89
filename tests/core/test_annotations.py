"""Checks of values against the annotations of another library's dataclass."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any, Literal, Union

import pytest

from rosa_bench.core.annotations import check
from rosa_bench.errors import UsageError

OLD_UNION = Union[list[str], str, None]  # noqa: UP007 (both ways to write one are to be read)


class Way(str, Enum):
    FAST = "FAST"
    SLOW = "SLOW"


@dataclasses.dataclass
class Inner:
    beta: float = 0.1


@dataclasses.dataclass
class Outer:
    rank: int = 8
    count: int = None  # type: ignore[assignment]
    share: float = 0.5
    modules: OLD_UNION = None
    layers: list[tuple[int, int]] | None = None
    pattern: dict[str, int | float] | None = None
    bias: Literal["none", "all"] = "none"
    start: bool | Literal["plain", "svd_[number]"] = True
    way: Way | str = Way.FAST
    inner: Inner | None = None
    free: Any = None
    made: int = dataclasses.field(default=0, init=False)


FITS = [
    {"rank": 4, "count": None, "share": 1, "free": {"any": [1, "x"]}},
    {"modules": "query"},
    {"modules": ["query", "value"]},
    {"layers": [[0, 2], [1, 4]], "pattern": {"query": 2.5}},
    {"bias": "all", "start": False, "way": "SLOW"},
    {"start": "svd_16"},
    {"inner": {"beta": 2}},
]
WRONG = [
    ({"rnk": 4}, "at.rnk is not a key of Outer (tests): did you mean at.rank"),
    ({"made": 1}, "at.made is not a key"),
    ({"rank": True}, "at.rank=True is not of type int"),
    ({"rank": None}, "at.rank=None is not of type int"),
    ({"rank": 4.0}, "at.rank=4.0 is not of type int"),
    ({"modules": [1]}, "at.modules=[1] is not of type list[str] or str or null"),
    ({"layers": [[0]]}, "at.layers=[[0]] is not of type"),
    ({"pattern": {"query": "x"}}, "at.pattern={'query': 'x'} is not of type"),
    ({"bias": "al"}, "at.bias='al' is not a known name: did you mean all?"),
    ({"bias": 5}, "at.bias=5 is not of type"),
    ({"start": 5}, "at.start=5 is not of type"),
    ({"way": "SLO"}, "at.way='SLO' is not a known name: did you mean SLOW?"),
    ({"inner": {"bta": 2}}, "at.inner.bta is not a key of Inner (tests): did you mean at.inner.beta"),
    ({"inner": {"beta": "x"}}, "at.inner.beta='x' is not of type float"),
    ({"inner": 5}, "at.inner=5 is not of type Inner or null"),
    ({"free": 1}, "at.free cannot be set"),
]


@pytest.mark.parametrize("values", FITS)
def test_valid_values_pass(values):
    check(Outer, values, "at")


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_an_invalid_value_is_one_line(values, message):
    kept = ["free"] if "free" in values else []
    with pytest.raises(UsageError) as error:
        check(Outer, values, "at", kept)
    assert message in str(error.value) and "\n" not in str(error.value)
