"""Telling whoever watches how things stand, also when nobody does any more."""

from __future__ import annotations

import os
import sys


def tell(text: str) -> None:
    """Print to standard output at once. Where its reader has ended (`| head`), nothing is lost but the text."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is printed from now on goes nowhere
