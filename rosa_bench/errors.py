"""The error that a user can fix, exit codes, and suggestions for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """Wrong usage or a missing input. The message is one line that says what to do; the process exits with code 2."""


PACKAGES = {"hydra": "hydra-core", "sklearn": "scikit-learn", "yaml": "PyYAML"}  # of modules with another name


def not_installed(error: ModuleNotFoundError) -> str:
    """A missing Python package as one line that says what to install. Raises the error if our own module is missing."""
    if error.name is None:
        return first_line(error)
    module = error.name.partition(".")[0]
    if module == "rosa_bench":
        raise error
    package = PACKAGES.get(module, module)
    return f"the Python package {package} is not installed: pip install {package}"


def first_line(error: object) -> str:
    """The first line of an exception's or warning's message, at most 200 characters; its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def nearest(name: str, valid: Iterable[str], shown: int = 12) -> str:
    """Suggest the valid choices closest to `name`, or list the first `shown` if none is close."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not names:
        return "no choices are available"
    return "choose from " + ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
