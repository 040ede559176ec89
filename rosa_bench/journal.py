"""Outputs of a decoding written down as they come, so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rosa_bench.checked import loads


class Journal:
    """A file of lines {index: text}, one per batch, under a first line that says what they are outputs of."""

    def __init__(self, path: Path, of: str) -> None:
        self.path, self.of = path, of
        self.known = self._read()
        if not self.known:
            path.write_text(json.dumps(of) + "\n", encoding="utf-8")

    def _read(self) -> dict[int, str]:
        """The outputs of an earlier decoding of the same; none if the file is damaged or of another."""
        try:
            head, *lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # what has no end is half a line
            batches = [loads(line) for line in lines] if loads(head) == self.of else []
            return {int(index): str(text) for batch in batches for index, text in batch.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def add(self, texts: Mapping[int, str]) -> None:
        """Append the outputs of a batch."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(texts, ensure_ascii=False) + "\n")
        self.known |= texts

    def close(self) -> None:
        """Remove the file: its outputs stand elsewhere now."""
        self.path.unlink(missing_ok=True)
