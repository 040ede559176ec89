"""Comparisons in a file, so that tables can be rendered again without predictions and without computing.

An entry is found by what was compared (`identity`): the keys of the runs, metric, split and variants. It also holds a
hash of the predictions it came from (`content`), so that it is not used once they have changed.
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
    """A comparison, and of what: names as the table has them, and the hash of the predictions."""

    __test__ = False  # for pytest: this is no test case

    method: str
    baseline: str
    task: str
    split: str
    content: str
    comparison: Comparison

    def current(self, content: str | None) -> bool:
        """Whether it is of predictions with this hash; None if they are not there any more."""
        return content is None or content == self.content


def identity(
    method: Iterable[str], baseline: Iterable[str], metric: str, split: str, variants: tuple[str, str] = ("", "")
) -> str:
    """What identifies a comparison: the keys of both groups' runs, in any order, metric, split and variant of each."""
    told = [sorted(method), sorted(baseline), metric, split, *variants]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def content(method: Sequence[Path], baseline: Sequence[Path]) -> str | None:
    """A hash of the files of predictions of both groups; None unless all are there."""
    if not all(path.is_file() for path in (*method, *baseline)):
        return None
    told = [sorted(map(file_sha256, method)), sorted(map(file_sha256, baseline))]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def load_tests(place: Path) -> dict[str, Test]:
    """The comparisons that a folder (in `tests.json`) or an archive holds, by their identity.

    Raises:
        UsageError: naming the file, if it is damaged or of another version.
    """
    path = place if is_archive(place) else place / FILE
    if not path.exists():
        return {}
    try:
        whole = read_archive(path).comparisons if is_archive(path) else loads(path.read_text(encoding="utf-8"))
        if is_archive(path) and not whole:
            return {}
        if not isinstance(whole, dict) or whole.get("schema") != SCHEMA:
            raise ValueError(f"schema is not {SCHEMA}")
        return {key: _test(entry) for key, entry in whole["tests"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{path} holds no comparisons of this version ({error}); delete it to compute again"
        ) from error


def _test(entry: Mapping[str, Any]) -> Test:
    values = dict(entry)
    of = {f.name: values.pop(f.name) for f in dataclasses.fields(Test) if f.name != "comparison"}
    comparison = Comparison(**{f.name: values.pop(f.name, None) for f in dataclasses.fields(Comparison)})
    texts = (*of.values(), comparison.metric, comparison.test, comparison.seed_test)
    numbers = (comparison.difference, comparison.n_examples, comparison.n_seeds, comparison.n_seeds_baseline)
    maybe = (comparison.low, comparison.high, comparison.p, comparison.seeds_low, comparison.seeds_high)
    if values or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"an entry has other fields: {', '.join(entry)}")
    if not all(map(is_number, (*numbers, *(n for n in maybe if n is not None)))):
        raise ValueError(f"an entry has no numbers: {json.dumps(entry)[:120]}")
    return Test(**of, comparison=comparison)


def save_tests(path: Path, tests: Mapping[str, Test]) -> None:
    """Write comparisons in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, plain_tests(tests))


def plain_tests(tests: Mapping[str, Test]) -> dict[str, Any]:
    """Comparisons as plain values, by task, split, metric, baseline and method; what is absent is left out."""

    def order(item: tuple[str, Test]) -> tuple[str, ...]:
        key, test = item
        return test.task, test.split, test.comparison.metric, test.baseline, test.method, key

    return {"schema": SCHEMA, "tests": {key: _entry(test) for key, test in sorted(tests.items(), key=order)}}


def _entry(test: Test) -> dict[str, Any]:
    values = {f.name: getattr(test, f.name) for f in dataclasses.fields(test) if f.name != "comparison"}
    values |= dataclasses.asdict(test.comparison)
    return {name: value for name, value in values.items() if value is not None}
