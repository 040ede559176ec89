"""Terminal output that never fails a run."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TextIO

from rosa_bench.errors import EXIT_USAGE


def in_utf8() -> None:
    """Restart the process in Python's UTF-8 mode if the locale uses another encoding for file names."""
    if sys.getfilesystemencoding().lower() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def tell(text: str) -> None:
    """Print to standard output and flush.

    A closed pipe (`| head`) or a full disk discards the text and raises nothing. Characters that the terminal cannot
    encode are escaped.
    """
    _print(text, sys.stdout)


def warn(text: str) -> None:
    """Print to standard error, with the guarantees of `tell`."""
    _print(text, sys.stderr)


@cache
def warn_once(text: str) -> None:
    """Print to standard error unless this process has already printed the same text."""
    warn(text)


def _print(text: str, stream: TextIO) -> None:
    try:
        try:
            print(text, file=stream, flush=True)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # discard all further output


def complain(line: str) -> int:
    """Print an error as one line on standard error and return the exit code for wrong usage."""
    warn(f"rosa_bench: {' '.join(line.split())}")
    return EXIT_USAGE


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 run`, `1,200 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain_os(error: OSError) -> str:
    """An operating system error as one line that names the file."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the working directory no longer exists; change to another one"
    return f"{error.filename or 'a file'}: {error.strerror or error}"
