"""Unusual values for property tests: few examples in `make test`, many in the slow tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SAID = 1200  # characters that one plain line may have


def tried(few: int, many: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a property with `few` fixed examples and, marked as slow, with `many` new ones."""

    def both(check: Callable[..., None]) -> Callable[..., None]:
        quiet = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
        return pytest.mark.parametrize(
            "examples",
            [
                pytest.param(settings(max_examples=few, derandomize=True, **quiet), id="few"),
                pytest.param(settings(max_examples=many, **quiet), id="many", marks=pytest.mark.slow),
            ],
        )(check)

    return both


TEXTS = st.one_of(
    st.sampled_from(["", " ", "\x00", "a\nb", "\t", "\u2028", "\ud800", "../../x", "/", "~", "null", "true", "nan"]),
    st.sampled_from(["${seed}", "${oc.env:HOME}", "???", "__import__('os').getcwd()", "a" * 3000, "é" * 200, "<b>"]),
    st.text(max_size=20),
    st.text(st.characters(), max_size=8),
)
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 2**31, 2**53 + 1, 10**30, -(10**400), 0.0, -0.0, 0.5, 1.0, 1.5, -1.5, 1e-320, 1e308]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.integers(),
    st.floats(),
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES: st.SearchStrategy[Any] = st.one_of(
    PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(st.text(max_size=5), PLAIN, max_size=3)
)


def is_plain(line: str) -> bool:
    """Whether an error is one short line without a traceback."""
    return 0 < len(line) <= SAID and "Traceback" not in line and "\n" not in line
