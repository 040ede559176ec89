"""Compares rows with the public release of a data set, as described in results/papers/releases.yaml."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml

from rosa_bench.config import papers_dir
from rosa_bench.core.task import Task


@functools.cache
def releases() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """`rows` and, if known, `sha256` of each split, by task and split."""
    text = (papers_dir() / "releases.yaml").read_text(encoding="utf-8")
    content: Mapping[str, Mapping[str, Mapping[str, Any]]] = yaml.safe_load(text)
    return content


class Comparison:
    """Compares the rows of a split with the release, row by row."""

    def __init__(self, task: Task, split: str) -> None:
        self.task, self.rows, self.digest = task, 0, hashlib.sha256()
        self.release = releases().get(task.name, {}).get(split, {})

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row and hash the fields that the task reads."""
        self.rows += 1
        if "sha256" in self.release:
            fields = plain(self.task.released_fields(row))
            self.digest.update(json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

    @property
    def same(self) -> bool | None:
        """Whether number and content of the rows match the release; None if the release is unknown."""
        if not self.release:
            return None
        return self.rows == self.release["rows"] and self.release.get("sha256") in (None, self.digest.hexdigest())


def plain(value: Any) -> Any:
    """Remove differences between copies of a value: strip outer white space, round floats to 5 decimals (float32)."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        return round(value, 5)
    return [plain(item) for item in value] if isinstance(value, list) else value
