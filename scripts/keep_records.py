"""Archives the finished runs of a suite in results/NAME.jsonl.gz, which ships with a checkout.

    python -m rosa_bench.suite embedded --jobs 2
    python scripts/keep_records.py embedded [output_dir=DIR]
    python scripts/keep_records.py embedded --restore [output_dir=DIR]

With --restore, archived records go back to the output folder, where the suite continues from them.

The archive holds records, training curves and what tables compute from predictions: paired tests, and scores on
resampled examples for a suite with claims. Predictions stay in the runs. A damaged record is skipped with a message,
unless an intact copy exists. The suite's table replaces the lines between <!-- NAME: begin --> and <!-- NAME: end -->
in README.md or a page of docs/background; the verdicts on claims replace the lines between <!-- verdicts: begin --> and
<!-- verdicts: end -->. Archived records contain no paths of this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rosa_bench.config import Run
from rosa_bench.errors import EXIT_DONE, EXIT_USAGE, UsageError
from rosa_bench.records.archive import SUFFIX, read_archive, write_archive
from rosa_bench.records.collect import Collection, collect, read_valid
from rosa_bench.records.record import Record, write_record
from rosa_bench.suite import plan
from rosa_bench.system.console import complain
from rosa_bench.system.files import write_bytes
from rosa_bench.system.strict_json import loads
from rosa_bench.tables import __main__ as tables
from rosa_bench.tables.claims.__main__ import judged_suites
from rosa_bench.tables.claims.judge import Verdict
from rosa_bench.tables.claims.wording import measured
from rosa_bench.tables.comparison_cache import load_tests, plain_tests
from rosa_bench.tables.resampled import resampled_scores

DECIMALS = 4  # of resampled scores in an archive


def main(name: str, overrides: list[str]) -> int:
    """Archive the runs and write their table."""
    suite = plan.load(name)
    cells = plan.plan(suite, overrides)
    finished = finished_runs(cells)
    if not finished:
        print(f"no cell of {name} is done; run: python -m rosa_bench.suite {name}", file=sys.stderr)
        return EXIT_USAGE
    target = Path("results") / f"{name}{SUFFIX}"
    roots = list(dict.fromkeys(folder.parent for folder in finished))
    archive = read_archive(target)
    unknown = any(cell.state == "waiting" for cell in cells)  # their keys depend on runs that are not done
    keys = {cell.key for cell in cells if cell.state not in ("waiting", "skipped")}
    records = {record.key: record for record in archive.records if unknown or record.key in keys}
    records |= {record.key: portable(record) for record in finished.values()}
    events = archive.events | {folder.name: curve(folder) for folder in finished}
    resampled: dict[str, Mapping[str, list[float]]] = dict(archive.resampled)
    if suite.claims:
        collection = collect(roots)
        own = {record.key for record in finished.values()}
        resampled |= all_resampled(collection, [record for record in collection.records if record.key in own])
    write_archive(target, records.values(), events, archive.comparisons, resampled)
    with tempfile.TemporaryDirectory() as out:
        runs = [part for root in (*roots, target) for part in ("--runs", str(root))]
        code = tables.main([*runs, "--out", out, "--suite", name, "--no-plots"])
        if code != EXIT_DONE:
            return code
        tests = load_tests(target) | load_tests(Path(out))
        write_archive(target, records.values(), events, plain_tests(tests), resampled)
        table = (Path(out) / f"{name}.md").read_text(encoding="utf-8")
        put_into_pages(name, table.partition("\n\n")[2])
    if suite.claims:
        judged = judged_suites(collect(sorted(Path("results").glob(f"*{SUFFIX}"))))
        put_into_pages("verdicts", brief_table(judged))
    print(f"{len(records)} records of {name}: {target}")
    return EXIT_DONE


def restore(name: str, overrides: list[str]) -> int:
    """Write the archived records to the suite's output folder, where the suite continues from them."""
    target = Path("results") / f"{name}{SUFFIX}"
    archive = read_archive(target)
    output = Path(plan.plan(plan.load(name), overrides)[0].run.output_dir)
    missing = [record for record in archive.records if not (output / record.run_id / "record.json").exists()]
    for record in missing:
        folder = output / record.run_id
        folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(event) + "\n" for event in archive.events.get(record.run_id, []))
        write_bytes(folder / "events.jsonl", "".join(lines).encode())
        write_record(folder, record)
    print(f"{len(missing)} of {len(archive.records)} records of {target} written to {output}")
    return EXIT_DONE


def finished_runs(cells: Sequence[plan.Cell]) -> dict[Path, Record]:
    """The records of finished cells by folder; damaged records are skipped with a message.

    A failed run of a search counts, since it decides the search.
    """
    statuses = {False: ["done"], True: ["done", "failed", "oom"]}
    known = [cell for cell in cells if cell.state not in ("waiting", "skipped")]
    wanted = {(cell.folder, cell.key, status) for cell in known for status in statuses[cell.is_tuning]}
    collection = Collection([], {}, [])
    roots = dict.fromkeys(Path(cell.run.output_dir) for cell in cells)
    records = {folder: record for root in roots for record, folder in read_valid(root, collection)}
    for line in collection.broken:
        print(line, file=sys.stderr)
    return {folder: record for folder, record in records.items() if (folder, record.key, record.status) in wanted}


def all_resampled(collection: Collection, records: Iterable[Record]) -> dict[str, Mapping[str, list[float]]]:
    """The resampled scores of records by run id and variant, rounded for an archive; those without any are omitted."""
    entries: dict[str, Mapping[str, list[float]]] = {}
    for record in records:
        by_variant = {name: resampled_scores(collection, record, name) for name in record.variant_names}
        values = {name: np.round(v, DECIMALS).tolist() for name, v in by_variant.items() if v is not None}
        if values:
            entries[record.run_id] = values
    return entries


def brief_table(columns: Mapping[str, Sequence[Verdict]]) -> str:
    """All claims in Markdown, with one column per suite that has runs: the verdict and the effect that decides it."""
    columns = {title: judged for title, judged in columns.items() if any(verdict.records for verdict in judged)}
    lines = [f"| # | claim | {' | '.join(columns)} |", "|" + " --- |" * (2 + len(columns))]
    for same in zip(*columns.values(), strict=True):
        cells = [f"**{v.word}**" + (f" {measured(v.deciding)}" if v.deciding.effect else "") for v in same]
        lines.append(f"| {same[0].number} | {same[0].claim.claim} | {' | '.join(cells)} |")
    return "\n".join(lines)


def portable(record: Record) -> Record:
    """A copy with the default output folder, and with the name of its data folder but not its path."""
    data = dict(record.config["data"])
    if data.get("dir"):
        data["dir"] = Path(data["dir"]).name
    return replace(record, config={**record.config, "output_dir": Run.output_dir, "data": data})


def curve(folder: Path) -> list[dict[str, object]]:
    """The training curve of a run; empty if it has none."""
    path = folder / "events.jsonl"
    return [loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []


def put_into_pages(name: str, table: str) -> None:
    """Replace the text between two marker lines in README.md and docs/background, wherever they occur."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    for path in (Path("README.md"), *sorted(Path("docs/background").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        if begin in text and end in text:
            before, after = text.partition(begin)[0], text.partition(end)[2]
            write_bytes(path, f"{before}{begin}{table.strip()}\n{end}{after}".encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the suite")
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="as the runs were started")
    parser.add_argument("--restore", action="store_true", help="write archived records to the output folder")
    args = parser.parse_intermixed_args()
    try:
        sys.exit((restore if args.restore else main)(args.name, args.overrides))
    except UsageError as error:
        sys.exit(complain(str(error)))
