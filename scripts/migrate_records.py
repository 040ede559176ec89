"""Gives the runs of a folder or an archive the keys of this version, and writes them to an archive.

    python scripts/migrate_records.py results/old_runs results/embedded.jsonl.gz [--drop PATTERN ...]

Needed once after a release that changes how keys are made. Every record keeps its scores. Its configuration gets the
names of its choices, its key and run id are computed anew, and its paired tests are found again under the new keys.
Runs of a task of another version are left out, and so are those whose run id matches a `--drop` pattern: results that
this version would not produce. Prints what changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from rosa_bench import config
from rosa_bench.config.compose import compose
from rosa_bench.errors import EXIT_DONE, UsageError
from rosa_bench.records.archive import is_archive, read_archive, write_archive
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record
from rosa_bench.records.run_key import config_key, run_id
from rosa_bench.suite import plan
from rosa_bench.tables import against_baseline, comparison_cache
from rosa_bench.tables.build import build


def main() -> int:
    """Migrate, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--drop", action="append", default=[], metavar="PATTERN")
    args = parser.parse_args()
    found = collect([args.source])
    events = read_archive(args.source).events if is_archive(args.source) else {}
    old_keys: dict[str, str] = {}
    records: list[Record] = []
    curves: dict[str, Any] = {}
    counts = dict.fromkeys(("migrated", "unchanged", "dropped", "not of this version"), 0)
    for record in found.records:
        if any(fnmatch(record.run_id, pattern) for pattern in args.drop) or not of_this_version(record):
            counts["dropped"] += 1
            continue
        try:
            migrated = with_new_key(record)
        except UsageError as error:
            print(f"skipped: {record.run_id}: {error}", file=sys.stderr)
            counts["not of this version"] += 1
            continue
        counts["unchanged" if migrated.key == record.key else "migrated"] += 1
        old_keys[migrated.key] = record.key
        records.append(migrated)
        if record.run_id in events:
            curves[migrated.run_id] = events[record.run_id]
    write_archive(args.target, records, curves, {})
    tests = dict(rekeyed(args.target, comparison_cache.load_tests(args.source), old_keys))
    write_archive(args.target, records, curves, comparison_cache.plain_tests(tests))
    print(", ".join(f"{count} {name}" for name, count in counts.items() if count) + f"; {len(tests)} paired tests kept")
    return EXIT_DONE


def of_this_version(record: Record) -> bool:
    """Whether a record's task parses and scores as the choice of the same name does now."""
    task = record.config["task"]
    return task["name"] not in config.choices("task") or task["version"] == version_of(task["name"])


@cache
def version_of(task: str) -> int:
    """The version of a task."""
    return compose([f"task={task}"]).task.version


def with_new_key(record: Record) -> Record:
    """The record with the names of its choices, and the key and run id of this version."""
    values = {"output_dir": "results/runs", "resume": "auto", "force": False, "seed": record.seed} | record.config
    values["choices"] = {**dict(named(record)), **(record.config.get("choices") or {})}
    run = config.resolve(values)
    key = config_key(run)
    return dataclasses.replace(record, config=run.to_dict(), key=key, run_id=run_id(run, key))


def named(record: Record) -> Iterator[tuple[str, str]]:
    """The choice of each group that a record's configuration comes from, as far as a yaml here matches it."""
    for group in config.GROUPS:
        node = record.config[group]
        name = node.get("name") or node.get("preset") or node.get("source")
        target = str(node.get("_target_", ""))
        candidates = [name, target.rpartition(".")[2].lower(), target.split(".")[-2], "standard"]
        if (choice := next((c for c in candidates if c in config.choices(group)), None)) is not None:
            yield group, choice


def rekeyed(
    archive: Path, known: Mapping[str, comparison_cache.Test], old_keys: Mapping[str, str]
) -> Iterator[tuple[str, comparison_cache.Test]]:
    """The comparisons that the tables of the archive's records ask for, under their new identity."""
    asked: dict[str, comparison_cache.Test] = {}
    identity = comparison_cache.identity

    def noting(
        method: Iterable[str], baseline: Iterable[str], metric: str, split: str, variants: tuple[str, str] = ("", "")
    ) -> str:
        groups = list(method), list(baseline)
        new = identity(*groups, metric, split, variants)
        old = identity(*([old_keys[key] for key in group] for group in groups), metric, split, variants)
        if old in known:
            asked[new] = known[old]
        return new

    comparison_cache.identity = noting  # type: ignore[assignment]
    found = collect([archive])
    comparer = against_baseline.Comparer(found, {}, [])
    for grid in build(found, {name: plan.load(name) for name in config.choices("suite")}):
        comparer.compared(grid)
    yield from asked.items()


if __name__ == "__main__":
    sys.exit(main())
