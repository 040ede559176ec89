"""A process on a pseudo-terminal, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from dataclasses import dataclass

KEPT = re.compile(r"\r\n|\n|\r|\x1b\[K|[^\r\n\x1b]+")


@dataclass
class Shown:
    """What a process wrote: its exit code, the screen at the end, and every state of the last line on the way."""

    code: int
    lines: list[str]
    states: list[str]


def shown(output: str, code: int = 0) -> Shown:
    """Interpret output as a terminal without wrapping does: carriage returns, line feeds, and "erase to the end"."""
    lines, states, column = [""], [], 0
    parts = KEPT.findall(output)
    assert "".join(parts) == output, "an escape sequence other than erase"
    for part in parts:
        if part in ("\n", "\r\n"):
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column].ljust(column) + part + lines[-1][column + len(part) :]
            column += len(part)
            states.append(lines[-1])
    return Shown(code, lines, states)


def on_terminal(
    command: list[str], columns: int, environment: dict[str, str] | None = None, close_after: str | None = None
) -> Shown:
    """Run a command on a pseudo-terminal; with `close_after`, close the terminal once that text has appeared."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "COLUMNS")}
    env |= {"TERM": "xterm"} | (environment or {})
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    output, end = b"", time.monotonic() + 300
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                received = os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
            output += received
            if not received or (close_after is not None and close_after.encode() in output):
                break
    os.close(leader)
    return shown(output.decode("utf-8", "replace"), process.wait(timeout=300))
