"""Whether rows are those of the public release of a data set, as results/papers/releases.yaml has them."""

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
    """`rows` and, where it is known, `sha256` of each split, by task and split."""
    content = (papers_dir() / "releases.yaml").read_text(encoding="utf-8")
    known: Mapping[str, Mapping[str, Mapping[str, Any]]] = yaml.safe_load(content)
    return known


class Comparison:
    """Compares the rows of a split, one after another, with the release."""

    def __init__(self, task: Task, split: str) -> None:
        self.task, self.rows, self.digest = task, 0, hashlib.sha256()
        self.release = releases().get(task.name, {}).get(split, {})

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row, and hash what the task reads of it."""
        self.rows += 1
        if "sha256" in self.release:
            fields = plain(self.task.released_fields(row))
            self.digest.update(json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

    @property
    def same(self) -> bool | None:
        """Whether number and content of the rows are those of the release; None if there is nothing to compare with."""
        if not self.release:
            return None
        return self.rows == self.release["rows"] and self.release.get("sha256") in (None, self.digest.hexdigest())


def plain(value: Any) -> Any:
    """A value without what differs between copies: outer white space, and the digits that float32 does not hold."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        return round(value, 5)
    return [plain(item) for item in value] if isinstance(value, list) else value
