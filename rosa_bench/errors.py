"""The one error that is the user's to mend, and how near names are suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """Wrong usage or a missing input. Its text is one plain line that says what to do; the process exits with 2."""


def nearest(name: str, valid: Iterable[str], shown: int = 12) -> str:
    """A phrase that names the valid choices nearest to `name`, or all of them when none is near."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not names:
        return "there is none to choose from"
    return "choose from " + ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
