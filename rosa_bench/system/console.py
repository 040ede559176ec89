"""Telling whoever watches how things stand, also when nobody does any more. Nothing here can fail a run."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TextIO

from rosa_bench.errors import EXIT_USAGE


def in_utf8() -> None:
    """Start the process again in Python's UTF-8 mode where the locale has another encoding for names and texts."""
    if sys.getfilesystemencoding().lower() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def tell(text: str) -> None:
    """Print to standard output at once.

    Where its reader has ended (`| head`) or its disk is full, nothing is lost but the text; a sign that the terminal's
    encoding does not have becomes its escape.
    """
    _print(text, sys.stdout)


def warn(text: str) -> None:
    """Print to standard error, as `tell` does to standard output."""
    _print(text, sys.stderr)


@cache
def warn_once(text: str) -> None:
    """Print to standard error what was not said there before by this process."""
    warn(text)


def _print(text: str, stream: TextIO) -> None:
    try:
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is printed from now on goes nowhere


def complain(line: str) -> int:
    """One plain line on standard error."""
    warn(f"rosa_bench: {' '.join(line.split())}")
    return EXIT_USAGE


def plain_os(error: OSError) -> str:
    """What a file or folder refused, as one line."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the working directory does not exist any more; go to another one"
    return f"{error.filename or 'a file'}: {error.strerror or error}"
