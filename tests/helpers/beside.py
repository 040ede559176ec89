"""Real rows and official scores in a folder beside the checkout, where there is one. Light: no torch."""

from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared"
