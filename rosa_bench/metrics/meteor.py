"""METEOR 1.5 (Denkowski and Lavie, 2014) as the official scripts run it, in one persistent Java process."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from rosa_bench.metrics.scores import AbsentError

NEEDS = "the extra nlg (pip install pycocoevalcap) and a Java runtime (e.g. apt install default-jre-headless)"


class UnavailableError(AbsentError):
    """METEOR is not available; the message says why and what to do."""


def missing() -> str | None:
    """Which requirement of METEOR is missing, in one line, or None."""
    if find_spec("pycocoevalcap") is None:
        return f"pycocoevalcap is not installed; METEOR needs {NEEDS}"
    if shutil.which("java") is None:
        return f"java not found on the PATH; METEOR needs {NEEDS}"
    return None


class Meteor:
    """A METEOR process, started on first use, restarted once if it dies, and ended by `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def evaluated(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[list[float]]]:
        """Corpus METEOR as a fraction, and the statistics of every output, from whose sums it is computed.

        Texts are in English; the caller tokenizes them as its convention requires.

        Raises:
            UnavailableError: if Java or the package is missing, or the process dies twice.
        """
        try:
            return self._evaluated(outputs, references)
        except (OSError, ValueError):
            self.close()
        try:
            return self._evaluated(outputs, references)
        except (OSError, ValueError) as error:
            stderr = self._last_stderr_line()
            self.close()
            raise UnavailableError(f"the METEOR process failed twice ({stderr or error})") from error

    def _evaluated(
        self, outputs: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[float, list[list[float]]]:
        statistics = []
        for output, refs in zip(outputs, references, strict=True):
            fields = ["SCORE", *map(_one_line, refs), _one_line(output).replace("  ", " ")]
            statistics.append(self._ask(" ||| ".join(fields)))
        self._send(" ||| ".join(["EVAL", *statistics]))
        for _ in outputs:
            float(self._receive())  # the scores of the segments come first
        return float(self._receive()), [[float(number) for number in line.split()] for line in statistics]

    def _ask(self, line: str) -> str:
        self._send(line)
        return self._receive()

    def _send(self, line: str) -> None:
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()

    def _receive(self) -> str:
        process = self._running()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ValueError("the process exited")
        return line.strip()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            if (reason := missing()) is not None:
                raise UnavailableError(reason)
            spec = find_spec("pycocoevalcap")
            assert spec is not None and spec.submodule_search_locations
            folder = Path(spec.submodule_search_locations[0]) / "meteor"
            self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (see close)
            command = ["java", "-Dfile.encoding=UTF-8", "-jar", "-Xmx2G", "meteor-1.5.jar"]
            self._process = subprocess.Popen(
                [*command, "-", "-", "-stdio", "-l", "en", "-norm"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                encoding="utf-8",
                errors="replace",
                bufsize=1,
            )
        return self._process

    def _last_stderr_line(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1][:200] if lines else ""

    def close(self) -> None:
        """End the process. The next score starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def _one_line(text: str) -> str:
    """Remove field separators and replace line breaks."""
    return text.replace("|||", "").replace("\n", " ").replace("\r", " ")


@cache
def shared() -> Meteor:
    """The METEOR process of this program, closed at exit."""
    meteor = Meteor()
    atexit.register(meteor.close)
    return meteor
