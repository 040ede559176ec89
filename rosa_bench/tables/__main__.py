"""`make tables`: render all records as tables, plots and an HTML page in results/tables/. Works offline."""

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
from rosa_bench.system.console import complain, counted, tell
from rosa_bench.system.files import typed_path, write_bytes
from rosa_bench.system.signals import command
from rosa_bench.tables.against_baseline import Comparer, is_baseline, known_tests
from rosa_bench.tables.build import build
from rosa_bench.tables.claims.judge import Verdict, judge_suite
from rosa_bench.tables.claims.wording import NOTES, measured, printed, test_lines, verdict_text
from rosa_bench.tables.comparison_cache import save_tests
from rosa_bench.tables.convergence import reader, with_gains
from rosa_bench.tables.figures.figures import draw
from rosa_bench.tables.formats import comma_separated, long_csv, markdown
from rosa_bench.tables.grid import Grid
from rosa_bench.tables.html.page import Claim, page
from rosa_bench.tables.latex import latex

PRINTED = 10  # tables printed on the terminal; all are written


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.tables", description=__doc__)
    places = "a folder of runs or an archive; repeatable (default: results/runs and results/*.jsonl.gz)"
    parser.add_argument("--runs", type=typed_path, action="append", metavar="PLACE", help=places)
    parser.add_argument("--out", type=typed_path, default=Path("results/tables"), metavar="DIR", help="where to write")
    parser.add_argument("--epoch", choices=["last", "best"], help="epoch to report (default: each suite's rule)")
    parser.add_argument("--baseline", metavar="ROW", help="row or method to test the others against")
    parser.add_argument("--suite", metavar="NAME", help="render only the table of this suite")
    parser.add_argument("--elsewhere", action="store_true", help="add results that other papers report")
    parser.add_argument("--no-plots", action="store_true", help="render only tables and the page")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables of all records below --runs to --out and print them."""
    try:
        return render(parsed(argv))
    except UsageError as error:
        return complain(str(error))
    except OSError as error:
        return complain(f"{error.filename or '--out'}: {error.strerror or error}")


def render(args: argparse.Namespace) -> int:
    """Collect records, build and compare tables, and write all output. Returns the exit code."""
    roots = args.runs or [Path("results/runs"), *sorted(Path("results").glob(f"*{SUFFIX}"))]
    collection = collect(roots)
    for line in collection.broken:
        print(line, file=sys.stderr)
    if not collection.groups:
        places = " or ".join(map(str, roots))
        raise UsageError(f"no finished record below {places}; create one with: make run")
    suites = {name: plan.load(name) for name in ([args.suite] if args.suite else config.choices("suite"))}
    grids = build(collection, suites, args.epoch, args.baseline, args.elsewhere)
    claims, unjudged = judged(collection, [suites[grid.name] for grid in grids if grid.name in suites])
    if args.suite:
        grids = [grid for grid in grids if grid.name == args.suite]
        collection = alone(collection, grids, args.suite)
    if args.baseline:
        check_baseline(args.baseline, grids)
    grids = [with_gains(grid, reader(collection)) for grid in compared(grids, collection, args.out, roots)]
    args.out.mkdir(parents=True, exist_ok=True)
    for grid in grids:
        write(grid, args.out)
    baseline = next((grid.baseline for grid in grids if grid.baseline), None)
    plots, omitted = ([], []) if args.no_plots else draw(collection, args.out, baseline)
    for line in (*omitted, *unjudged):
        print(line, file=sys.stderr)
    remarks = [*collection.broken, *omitted, *unjudged]
    write_bytes(args.out / "index.html", page(grids, plots, remarks, claims, NOTES).encode())
    tell("\n".join(map(markdown, grids[:PRINTED])))
    if len(grids) > PRINTED:
        tell(f"and {counted(len(grids) - PRINTED, 'more table')}\n")
    count = f"{counted(len(grids), 'table')} of {counted(len(collection.records), 'record')}"
    tell(f"{count}; open {args.out / 'index.html'}")
    return EXIT_DONE


def judged(collection: Collection, suites: Sequence[plan.Suite]) -> tuple[dict[str, list[Claim]], list[str]]:
    """The verdicts on each suite's claims, by suite title, and a message for each suite that cannot be judged."""
    claims: dict[str, list[Claim]] = {}
    unjudged = []
    for suite in suites:
        if suite.claims:
            try:
                title, verdicts = judge_suite(collection, suite)
                claims[title] = [as_claim(verdict) for verdict in verdicts]
            except UsageError as error:
                unjudged.append(f"claims of {suite.name} not judged: {error}")
    return claims, unjudged


def as_claim(verdict: Verdict) -> Claim:
    """A verdict as the page shows it."""
    claim = verdict.claim
    limits = [f"What the verdict does not say: {claim.limits}"] if claim.limits else []
    return Claim(
        number=verdict.number,
        sentence=claim.claim,
        paper=f"{printed(claim)} ({claim.place})",
        ours=measured(verdict.deciding),
        verdict=verdict_text(verdict),
        word=verdict.word,
        lines=[*test_lines(verdict), *limits],
        records=verdict.records,
    )


def alone(collection: Collection, grids: Sequence[Grid], suite: str) -> Collection:
    """Keep only the records in the table of one suite. Raises UsageError if there are none."""
    shown = {id(r) for grid in grids for place in grid.places for r in (*place.records, *place.ended)}
    if not shown:
        raise UsageError(f"suite {suite} has too few runs for a table; run: python -m rosa_bench.suite {suite}")
    groups = [g for g in collection.groups if shown & set(map(id, g.all_records))]
    return dataclasses.replace(collection, groups=groups)


def check_baseline(baseline: str, grids: Sequence[Grid]) -> None:
    """Raise UsageError with suggestions if no table has a row or method of this name."""
    rows = [row for grid in grids for row in grid.rows]
    if not any(is_baseline(row, baseline) for row in rows):
        methods = {record.method for grid in grids for place in grid.places for record in place.records}
        names = sorted(methods | {row.label for row in rows})
        raise UsageError(f"--baseline {baseline} is not a row or method of any table: {nearest(baseline, names)}")


def compared(grids: Sequence[Grid], collection: Collection, out: Path, roots: Sequence[Path]) -> list[Grid]:
    """Test each row of the grids against the baseline, and cache new comparisons in the output folder."""
    tests, complaints = known_tests([*roots, out])
    cached = dict(tests)
    comparer = Comparer(collection, tests, complaints)
    grids = [comparer.compared(grid) for grid in grids]
    for line in comparer.complaints:
        print(line, file=sys.stderr)
    if comparer.tests != cached:
        save_tests(out / "tests.json", comparer.tests)
    return grids


def write(grid: Grid, out: Path) -> None:
    """Write a table in every format."""
    formats = {"md": markdown, "csv": comma_separated, "long.csv": long_csv, "tex": latex}
    for suffix, render_as in formats.items():
        write_bytes(out / f"{grid.name}.{suffix}", render_as(grid).encode())


if __name__ == "__main__":
    sys.exit(command(main))
