"""The parts of `scripts/benchmark.py`, one module each, and what both benchmark commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def parser(description: str | None, parts: Iterable[str], rounds: int) -> argparse.ArgumentParser:
    """The options that both commands share."""
    command = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--part", choices=[*parts], action="append", help="a part to measure (default: all)")
    command.add_argument("--quick", action="store_true", help="run every line in toy size, without meaningful figures")
    command.add_argument("--rounds", type=int, default=rounds)
    command.add_argument("--out", type=Path, default=Path("results/bench"))
    return command


def exit_code(failed: Sequence[str]) -> int:
    """Print the failed parts; return 1 if there are any, else 0."""
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))
