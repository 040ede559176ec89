"""Decoded outputs, written batch by batch, so that interrupted decoding resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rosa_bench.system.console import warn
from rosa_bench.system.files import write_bytes
from rosa_bench.system.strict_json import loads


class Journal:
    """A file of JSON lines {index: text}, one per batch, after a first line that identifies the decoding.

    Every line starts with the sha256 of its content. Lines from the first damaged one on are discarded.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        self.texts: dict[int, str] = {}
        lines = list(self._intact())
        for line in lines[1:]:
            self.texts |= {int(index): str(text) for index, text in loads(line).items()}
        write_bytes(path, "".join(map(_sealed, lines or [json.dumps(identity)])).encode())  # drops damaged lines

    def _intact(self) -> Iterator[str]:
        """The intact lines of an earlier part of the same decoding; empty if the file belongs to another decoding."""
        try:
            *lines, unfinished = self.path.read_bytes().split(b"\n")
        except OSError:
            return
        for number, raw in enumerate(lines):
            seal, _, line = raw.partition(b" ")
            if hashlib.sha256(line).hexdigest().encode() != seal:
                warn(f"rosa_bench: {self.path}:{number + 1} is damaged; decoding again from this line")
                return
            text = line.decode()
            if number == 0 and loads(text) != self.identity:
                return
            yield text
        if unfinished:
            warn(f"rosa_bench: {self.path} ends in an incomplete line; decoding its texts again")

    def add(self, texts: Mapping[int, str]) -> None:
        """Append the outputs of a batch."""
        with self.path.open("ab") as stream:
            stream.write(_sealed(json.dumps(texts, ensure_ascii=False)).encode())
        self.texts |= texts

    def close(self) -> None:
        """Delete the file once its outputs are stored elsewhere."""
        self.path.unlink(missing_ok=True)


def _sealed(line: str) -> str:
    return f"{hashlib.sha256(line.encode()).hexdigest()} {line}\n"
