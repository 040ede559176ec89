"""Progress of long work: one updating line on a terminal, plain lines elsewhere.

Work creates a `Task` and advances it, or iterates over `each`. The line appears only inside `showing`, and only if
standard output and standard error are both terminals; all other output then erases the line first and continues above
it. Showing progress never raises an error.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from rosa_bench.system.console import tell
from rosa_bench.system.distributed import is_first

DRAW_S = 0.2  # between two updates of the line
DELAY_S = 0.5  # before work gets a line, so that short work does not flicker
REPORT_S = 10.0  # between two plain lines
ERASE = "\r\x1b[K"
NARROWEST_BAR = 12  # columns
WIDEST_BAR = 60
T = TypeVar("T")


class Terminal:
    """The terminal that shows the line; each update is a single write to its file descriptor."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.descriptor, self.encoding = descriptor, encoding
        self.drawn = self.broken = False
        self.in_line = False  # whether other output ended inside a line, which the progress line would overwrite

    @property
    def columns(self) -> int:
        """The width; 0 if the terminal is gone."""
        try:
            return os.get_terminal_size(self.descriptor).columns or 80  # terminals without a size report 0
        except OSError:
            return 0

    @property
    def is_unicode(self) -> bool:
        """Whether the terminal can show block characters."""
        return self.encoding.lower().replace("-", "").startswith("utf")

    def draw(self, text: str) -> None:
        if not self.in_line:
            self._write(ERASE + text)
            self.drawn = True

    def erase(self) -> None:
        if self.drawn:
            self._write(ERASE)
            self.drawn = False

    def _write(self, text: str) -> None:
        if not self.broken:
            try:
                os.write(self.descriptor, text.encode(self.encoding, "replace"))
            except (OSError, LookupError):
                self.broken = True


class Above:
    """A stream to the terminal that erases the progress line before it writes."""

    def __init__(self, stream: Any, terminal: Terminal) -> None:
        self._stream, self._terminal = stream, terminal

    def write(self, text: str) -> int:
        """Write text above the line."""
        with _LOCK:
            self._terminal.erase()
            if text:
                self._terminal.in_line = not text.endswith("\n")
            return int(self._stream.write(text))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_LOCK = threading.RLock()
_terminal: Terminal | None = None
_plain_lines = True


@contextlib.contextmanager
def showing(setting: Literal["auto", "off"] = "auto", plain_lines: bool = True) -> Iterator[None]:
    """Show progress in the block: as an updating line with `auto` on a terminal, else as plain lines or not at all.

    Only the first process of a distributed run shows anything.
    """
    global _terminal, _plain_lines
    before, streams = (_terminal, _plain_lines), (sys.stdout, sys.stderr)
    terminal = _found_terminal() if setting == "auto" else None
    _terminal, _plain_lines = terminal, plain_lines
    if terminal is not None:
        sys.stdout, sys.stderr = (Above(stream, terminal) for stream in streams)
    try:
        yield
    finally:
        if terminal is not None:
            with _LOCK:
                terminal.erase()
            sys.stdout, sys.stderr = streams
        _terminal, _plain_lines = before


def _found_terminal() -> Terminal | None:
    """The terminal of standard error; None unless it and standard output are terminals that can erase a line."""
    if os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return None
    try:
        if not (is_first() and sys.stdout.isatty() and sys.stderr.isatty()):
            return None
        return Terminal(sys.stderr.fileno(), sys.stderr.encoding or "ascii")
    except (AttributeError, OSError, ValueError):  # no stream, or a closed one
        return None


def on_terminal() -> bool:
    """Whether progress is an updating line."""
    return _terminal is not None


class Task:
    """Work of `total` parts, of which `done` are done at the start.

    `details` returns more values for the line, the most important first; if the line is too long, the last are dropped.
    With `details`, the line appears at once, and there are no plain lines. `unit` is the unit of counts, such as "B".
    """

    def __init__(
        self,
        what: str,
        total: float,
        *,
        done: float = 0,
        unit: str = "",
        details: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self.what, self.total, self.done, self.unit, self.details = what, total, done, unit, details
        self._first, self._began = done, time.monotonic()
        self._due = math.inf
        if _terminal is not None:
            self._due = self._began + (DELAY_S if details is None else 0.0)
        elif _plain_lines and details is None and is_first():
            self._due = self._began + REPORT_S

    def advance(self, count: float = 1) -> None:
        """Add to the finished parts and show them if it is time. The line disappears with the last part."""
        self.done += count
        finished = self.done >= self.total > 0
        if time.monotonic() < self._due and not finished:
            return
        with _LOCK:
            if _terminal is None:
                self._report()
            elif finished:
                _terminal.erase()
            elif (columns := _terminal.columns) > 0:
                _terminal.draw(self.line(columns, _terminal.is_unicode))
                self._due = time.monotonic() + DRAW_S

    def _report(self) -> None:
        """Print a plain line, if one is due."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + REPORT_S
            tell(f"  {self.what}: {self._share or self._amount(self.done)}")

    def line(self, columns: int, is_unicode: bool = True) -> str:
        """The line for a terminal, at least one column shorter than `columns`."""
        from tqdm.std import Bar
        from tqdm.utils import disp_len, disp_trim

        counts = self._amount(self.done) + (f"/{self._amount(self.total)}" if self.total else "")
        details = [] if self.details is None else self.details()
        parts = [part for part in (" ".join(self.what.split()), self._share, counts, self._left, *details) if part]
        while len(parts) > 1 and disp_len("  ".join(parts)) > columns - 1:
            parts.pop()
        free = min(columns - 1 - disp_len("  ".join(parts)) - len("  "), WIDEST_BAR)
        if self._share in parts and free >= NARROWEST_BAR:
            bar = Bar(min(1.0, self.done / self.total), free - 2, Bar.UTF if is_unicode else Bar.ASCII)
            parts.insert(parts.index(self._share) + 1, f"|{bar}|")
        return str(disp_trim("  ".join(parts), columns - 1))

    @property
    def _share(self) -> str:
        return f"{min(1.0, self.done / self.total):.0%}" if self.total else ""

    @property
    def _left(self) -> str:
        """The remaining time at the average speed so far."""
        from tqdm import tqdm

        finished = self.done - self._first
        if not self.total or finished <= 0:
            return ""
        seconds = (time.monotonic() - self._began) / finished * max(0.0, self.total - self.done)
        return f"{tqdm.format_interval(round(seconds))} left"

    def _amount(self, count: float) -> str:
        from tqdm import tqdm

        return f"{tqdm.format_sizeof(count, divisor=1000)}{self.unit}" if self.unit else f"{count:g}"


def each(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the items and show how many have been used."""
    task = Task(what, total)
    for item in items:
        yield item
        task.advance()
