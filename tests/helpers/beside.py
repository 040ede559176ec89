"""Optional real rows and official scores next to the checkout. Does not import torch."""

from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared"
