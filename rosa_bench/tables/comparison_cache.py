"""A file cache of comparisons, so that tables can be rendered again without predictions or computation.

The key of an entry (`identity`) covers the keys of the compared runs, metric, split and variants. An entry also stores
a hash of its predictions (`content`) and is not used once they have changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosa_bench.errors import UsageError
from rosa_bench.records.archive import is_archive, read_archive
from rosa_bench.system.files import file_sha256, write_json
from rosa_bench.system.strict_json import is_number, loads
from rosa_bench.tables.paired_tests import Comparison

SCHEMA = 1
FILE = "tests.json"


@dataclass(frozen=True)
class Test:
    """A comparison, its names in the table, and the hash of its predictions."""

    __test__ = False  # not a pytest test class

    method: str
    baseline: str
    task: str
    split: str
    content: str
    comparison: Comparison

    def current(self, content: str | None) -> bool:
        """Whether the comparison comes from predictions with this hash; True for None (they no longer exist)."""
        return content is None or content == self.content


def identity(
    method: Iterable[str], baseline: Iterable[str], metric: str, split: str, variants: tuple[str, str] = ("", "")
) -> str:
    """The key of a comparison: a hash of both groups' run keys (in any order), metric, split and both variants."""
    parts = [sorted(method), sorted(baseline), metric, split, *variants]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def content(method: Sequence[Path], baseline: Sequence[Path]) -> str | None:
    """A hash of both groups' prediction files; None unless all exist."""
    if not all(path.is_file() for path in (*method, *baseline)):
        return None
    hashes = [sorted(map(file_sha256, method)), sorted(map(file_sha256, baseline))]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def load_tests(place: Path) -> dict[str, Test]:
    """Load the comparisons of a folder (`tests.json`) or an archive, by identity.

    Raises:
        UsageError: if the file is damaged or has another version; the message names it.
    """
    path = place if is_archive(place) else place / FILE
    if not path.exists():
        return {}
    try:
        document = read_archive(path).comparisons if is_archive(path) else loads(path.read_text(encoding="utf-8"))
        if is_archive(path) and not document:
            return {}
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"schema is not {SCHEMA}")
        return {key: _test(entry) for key, entry in document["tests"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path} holds no comparisons of this version ({error}); delete it to recompute them"
        ) from error


def _test(entry: Mapping[str, Any]) -> Test:
    values = dict(entry)
    names = {f.name: values.pop(f.name) for f in dataclasses.fields(Test) if f.name != "comparison"}
    comparison = Comparison(**{f.name: values.pop(f.name, None) for f in dataclasses.fields(Comparison)})
    texts = (*names.values(), comparison.metric, comparison.test, comparison.seed_test)
    numbers = (comparison.difference, comparison.n_examples, comparison.n_seeds, comparison.n_seeds_baseline)
    optional = (comparison.low, comparison.high, comparison.p, comparison.seeds_low, comparison.seeds_high)
    if values or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"unexpected fields in an entry: {', '.join(entry)}")
    if not all(map(is_number, (*numbers, *(n for n in optional if n is not None)))):
        raise ValueError(f"invalid numbers in an entry: {json.dumps(entry)[:120]}")
    return Test(**names, comparison=comparison)


def save_tests(path: Path, tests: Mapping[str, Test]) -> None:
    """Write comparisons atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, plain_tests(tests))


def plain_tests(tests: Mapping[str, Test]) -> dict[str, Any]:
    """Comparisons as plain values, sorted by task, split, metric, baseline and method. Absent values are omitted."""

    def order(item: tuple[str, Test]) -> tuple[str, ...]:
        key, test = item
        return test.task, test.split, test.comparison.metric, test.baseline, test.method, key

    return {"schema": SCHEMA, "tests": {key: _entry(test) for key, test in sorted(tests.items(), key=order)}}


def _entry(test: Test) -> dict[str, Any]:
    values = {f.name: getattr(test, f.name) for f in dataclasses.fields(test) if f.name != "comparison"}
    values |= dataclasses.asdict(test.comparison)
    return {name: value for name, value in values.items() if value is not None}
