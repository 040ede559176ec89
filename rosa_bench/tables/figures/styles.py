"""Line styles of methods: a color-blind safe color, plus a marker and a dash pattern that work in grayscale."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

Dash = tuple[int, tuple[float, ...]]

# Okabe and Ito's palette without yellow, which is hardly visible on white.
COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("D", "o", "s", "^", "v", "P", "X", "<", ">", "h", "p", "*")
DASHES: tuple[Dash, ...] = ((0, (5, 2)), (0, ()), (0, (7, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
FIXED = 10  # looks reserved for methods that claim one (`Method.look`)
DISTINCT = len(MARKERS) * len(DASHES)  # number of distinct looks


@dataclass(frozen=True)
class Look:
    """The line style of a method. Marker and dash together are unique; the first twelve looks have unique markers."""

    color: str
    marker: str
    dash: Dash


def look(number: int) -> Look:
    turn, place = divmod(number % DISTINCT, len(MARKERS))
    return Look(COLOURS[number % len(COLOURS)], MARKERS[place], DASHES[(place + turn) % len(DASHES)])


def looks(methods: Mapping[str, int | None]) -> dict[str, Look]:
    """The look of each method: the number it claims, or a free one derived from its name."""
    names = sorted(methods)
    numbers: dict[str, int] = {}
    taken = set(range(FIXED))
    for name in names:
        if (claimed := methods[name]) is not None and claimed not in numbers.values():
            numbers[name] = claimed
    for name in names:
        if name not in numbers:
            start = int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big")
            order = [*range(FIXED, len(MARKERS)), *((start + i) % DISTINCT for i in range(DISTINCT))]
            numbers[name] = next((n for n in order if n not in taken), start % DISTINCT)
            taken.add(numbers[name])
    return {name: look(number) for name, number in numbers.items()}
