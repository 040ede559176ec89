"""Outputs of a decoding written down as they come, so that one that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rosa_bench.system.console import warn
from rosa_bench.system.files import write_bytes
from rosa_bench.system.strict_json import loads


class Journal:
    """A file of lines {index: text}, one per batch, under a first line that says what they are outputs of.

    Every line begins with the sha256 of the rest of it. What comes after a damaged line is not believed.
    """

    def __init__(self, path: Path, of: str) -> None:
        self.path, self.of = path, of
        self.known: dict[int, str] = {}
        lines = list(self._whole())
        for line in lines[1:]:
            self.known |= {int(index): str(text) for index, text in loads(line).items()}
        write_bytes(path, "".join(map(_sealed, lines or [json.dumps(of)])).encode())  # without what half a line was

    def _whole(self) -> Iterator[str]:
        """The whole lines of an earlier decoding of the same; none if the file is of another."""
        try:
            *written, rest = self.path.read_bytes().split(b"\n")
        except OSError:
            return
        for number, raw in enumerate(written):
            seal, _, line = raw.partition(b" ")
            if hashlib.sha256(line).hexdigest().encode() != seal:
                warn(f"rosa_bench: {self.path}:{number + 1} is damaged; the texts from there on are decoded again")
                return
            text = line.decode()
            if number == 0 and loads(text) != self.of:
                return
            yield text
        if rest:
            warn(f"rosa_bench: {self.path} ends in half a line; its texts are decoded again")

    def add(self, texts: Mapping[int, str]) -> None:
        """Append the outputs of a batch."""
        with self.path.open("ab") as stream:
            stream.write(_sealed(json.dumps(texts, ensure_ascii=False)).encode())
        self.known |= texts

    def close(self) -> None:
        """Remove the file: its outputs stand elsewhere now."""
        self.path.unlink(missing_ok=True)


def _sealed(line: str) -> str:
    return f"{hashlib.sha256(line.encode()).hexdigest()} {line}\n"
