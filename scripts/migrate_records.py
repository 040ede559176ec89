"""Writes the runs of a folder or an archive to an archive, with the keys of this version.

    python scripts/migrate_records.py results/old_runs results/embedded.jsonl.gz [--drop PATTERN ...]

Needed once after a release that changes how keys are computed. Scores stay as they are. Each configuration gets the
names of its choices, its key and run id are recomputed, and its paired tests move to the new keys. Skips runs whose
task has another version and runs whose id matches a `--drop` pattern: results that this version would not produce. Also
skips runs that start from another run, since their keys depend on its weights. Prints the number of changes.
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
from rosa_bench.records.archive import write_archive
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record
from rosa_bench.records.run_key import config_key, run_id
from rosa_bench.suite import plan
from rosa_bench.tables import against_baseline, comparison_cache
from rosa_bench.tables.build import build
from rosa_bench.tables.convergence import reader


def main() -> int:
    """Migrate the records and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--drop", action="append", default=[], metavar="PATTERN")
    args = parser.parse_args()
    collection = collect([args.source])
    events = reader(collection)
    old_keys: dict[str, str] = {}
    records: list[Record] = []
    curves: dict[str, Any] = {}
    resampled: dict[str, Any] = {}
    counts = dict.fromkeys(("migrated", "unchanged", "dropped", "not of this version"), 0)
    for record in collection.records:
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
        curves[migrated.run_id] = events(record)
        resampled[migrated.run_id] = collection.resampled.get(id(record))
    write_archive(args.target, records, curves, {}, resampled)
    tests = dict(rekeyed(args.target, comparison_cache.load_tests(args.source), old_keys))
    write_archive(args.target, records, curves, comparison_cache.plain_tests(tests), resampled)
    print(", ".join(f"{count} {name}" for name, count in counts.items() if count) + f"; {len(tests)} paired tests")
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
    """The record with the names of its choices, and the key and run id of this version.

    Raises:
        UsageError: if this version does not accept its configuration, or it starts from another run.
    """
    if "start" in record.facts:
        raise UsageError("its key depends on the weights of the run that it starts from")
    values = {"output_dir": "results/runs", "resume": "auto", "force": False, "seed": record.seed} | record.config
    values["choices"] = {**dict(choices_of(record)), **(record.config.get("choices") or {})}
    run = config.resolve(values)
    key = config_key(run)
    return dataclasses.replace(record, config=run.to_dict(), key=key, run_id=run_id(run, key))


def choices_of(record: Record) -> Iterator[tuple[str, str]]:
    """Yield group and choice of a record's configuration, where a yaml of this version matches it."""
    for group in config.GROUPS:
        node = record.config[group]
        name = node.get("name") or node.get("preset") or node.get("source")
        target = str(node.get("_target_", ""))
        candidates = [name, target.rpartition(".")[2].lower(), target.split(".")[-2], "standard"]
        if (choice := next((c for c in candidates if c in config.choices(group)), None)) is not None:
            yield group, choice


def rekeyed(
    archive: Path, tests: Mapping[str, comparison_cache.Test], old_keys: Mapping[str, str]
) -> Iterator[tuple[str, comparison_cache.Test]]:
    """Yield the comparisons that the tables of the archive's records use, with their new identity."""
    renamed: dict[str, comparison_cache.Test] = {}
    identity = comparison_cache.identity

    def recording(
        method: Iterable[str], baseline: Iterable[str], metric: str, split: str, variants: tuple[str, str] = ("", "")
    ) -> str:
        groups = list(method), list(baseline)
        new = identity(*groups, metric, split, variants)
        old = identity(*([old_keys[key] for key in group] for group in groups), metric, split, variants)
        if old in tests:
            renamed[new] = tests[old]
        return new

    comparison_cache.identity = recording  # type: ignore[assignment]
    collection = collect([archive])
    comparer = against_baseline.Comparer(collection, {}, [])
    for grid in build(collection, {name: plan.load(name) for name in config.choices("suite")}):
        comparer.compared(grid)
    yield from renamed.items()


if __name__ == "__main__":
    sys.exit(main())
