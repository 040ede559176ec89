"""`make tables`: all records to tables, plots and one page in results/tables/. Needs no network and no tracker."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rosa_bench import config
from rosa_bench.errors import EXIT_DONE, UsageError, nearest
from rosa_bench.records.archive import SUFFIX
from rosa_bench.records.collect import Collection, collect
from rosa_bench.suite import plan
from rosa_bench.system.console import complain, tell
from rosa_bench.system.files import write_bytes
from rosa_bench.system.signals import command
from rosa_bench.tables.against_baseline import Comparer, is_baseline, known_tests
from rosa_bench.tables.build import build
from rosa_bench.tables.comparison_cache import save_tests
from rosa_bench.tables.figures.figures import draw
from rosa_bench.tables.formats import comma_separated, latex, long_csv, markdown
from rosa_bench.tables.grid import Grid
from rosa_bench.tables.html.page import page

PRINTED = 10  # tables that are shown on the terminal; all are written


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.tables", description=__doc__)
    told = "a folder of runs or an archive; repeatable (default: results/runs and results/*.jsonl.gz)"
    parser.add_argument("--runs", type=Path, action="append", metavar="PLACE", help=told)
    parser.add_argument("--out", type=Path, default=Path("results/tables"), metavar="DIR")
    parser.add_argument("--epoch", choices=["last", "best"], help="in place of each suite's own rule")
    parser.add_argument("--baseline", metavar="ROW", help="the row or method that the others are tested against")
    parser.add_argument("--suite", metavar="NAME", help="the table of this suite alone")
    parser.add_argument("--elsewhere", action="store_true", help="beside ours, what other papers report")
    parser.add_argument("--no-plots", action="store_true", help="tables and page only")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables of all records below --runs to --out, and print them."""
    try:
        return render(parsed(argv))
    except UsageError as error:
        return complain(str(error))
    except OSError as error:
        return complain(f"{error.filename or '--out'}: {error.strerror or error}")


def render(args: argparse.Namespace) -> int:
    """Collect, build, compare, write."""
    roots = args.runs or [Path("results/runs"), *sorted(Path("results").glob(f"*{SUFFIX}"))]
    found = collect(roots)
    for line in found.broken:
        print(line, file=sys.stderr)
    if not found.groups:
        places = " or ".join(map(str, roots))
        raise UsageError(f"no finished record below {places}; make one with: make run")
    suites = {name: plan.load(name) for name in ([args.suite] if args.suite else config.choices("suite"))}
    grids = build(found, suites, args.epoch, args.baseline, args.elsewhere)
    if args.suite:
        found, grids = alone(found, [grid for grid in grids if grid.name == args.suite], args.suite)
    if args.baseline:
        check_baseline(args.baseline, grids)
    grids = compared(grids, found, args.out, roots)
    args.out.mkdir(parents=True, exist_ok=True)
    for grid in grids:
        write(grid, args.out)
    baseline = next((grid.baseline for grid in grids if grid.baseline), None)
    plots, left_out = ([], []) if args.no_plots else draw(found, args.out, baseline)
    for line in left_out:
        print(line, file=sys.stderr)
    write_bytes(args.out / "index.html", page(grids, plots, [*found.broken, *left_out]).encode())
    tell("\n".join(map(markdown, grids[:PRINTED])))
    if len(grids) > PRINTED:
        tell(f"and {len(grids) - PRINTED} more tables\n")
    tell(f"{len(grids)} tables of {len(found.records)} records, all on one page: {args.out / 'index.html'}")
    return EXIT_DONE


def alone(found: Collection, grids: list[Grid], suite: str) -> tuple[Collection, list[Grid]]:
    """The records and the table of one suite. Raises UsageError if it has none."""
    places = [place for grid in grids for row in grid.rows for place in row.places.values()]
    shown = {id(record) for place in places for record in (*place.records, *place.ended)}
    if not shown:
        raise UsageError(f"no record of the suite {suite}; make some with: python -m rosa_bench.suite {suite}")
    groups = [g for g in found.groups if shown & {id(r) for r in (*g.records.values(), *g.unfinished.values())}]
    return dataclasses.replace(found, groups=groups), grids


def check_baseline(baseline: str, grids: Sequence[Grid]) -> None:
    """Raise UsageError, with the nearest names, if no table has a row or method of this name."""
    rows = [row for grid in grids for row in grid.rows]
    if not any(is_baseline(row, baseline) for row in rows):
        methods = {record.method for row in rows for place in row.places.values() for record in place.records}
        known = sorted(methods | {row.label for row in rows})
        raise UsageError(f"--baseline {baseline} is no row and no method of a table: {nearest(baseline, known)}")


def compared(grids: Sequence[Grid], found: Collection, out: Path, roots: Sequence[Path]) -> list[Grid]:
    """The grids with each row tested against the baseline; what was computed is kept beside the tables."""
    known, complaints = known_tests([*roots, out])
    before = len(known)
    comparer = Comparer(found, known, complaints)
    grids = [comparer.compared(grid) for grid in grids]
    for line in comparer.complaints:
        print(line, file=sys.stderr)
    if len(comparer.known) > before:
        save_tests(out / "tests.json", comparer.known)
    return grids


def write(grid: Grid, out: Path) -> None:
    """One table in every format."""
    written = {"md": markdown, "csv": comma_separated, "long.csv": long_csv, "tex": latex}
    for suffix, render_as in written.items():
        write_bytes(out / f"{grid.name}.{suffix}", render_as(grid).encode())


if __name__ == "__main__":
    sys.exit(command(main))
