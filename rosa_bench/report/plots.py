"""Figures of the records, as PNG and PDF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plot:
    """A figure that was drawn."""

    png: Path
    pdf: Path
    caption: str  # what it shows, how many seeds, what was left out
    alt: str  # what it says, for those who do not see it
