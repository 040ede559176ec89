"""`make claims`: judge the papers' claims by the committed records and by the runs of this checkout.

    python -m rosa_bench.tables.claims                        # every suite with claims, side by side
    python -m rosa_bench.tables.claims claims --details       # one suite, with every comparison on every task
    python -m rosa_bench.tables.claims claims task=mrpc       # runs of a suite started with this override

docs/background/statistics.md explains the verdicts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rosa_bench import config
from rosa_bench.errors import EXIT_DONE, UsageError
from rosa_bench.records.archive import SUFFIX
from rosa_bench.records.collect import Collection, collect
from rosa_bench.suite import plan
from rosa_bench.system.console import complain, tell
from rosa_bench.system.files import typed_path
from rosa_bench.system.signals import command
from rosa_bench.tables.claims.judge import Verdict, claims_of, judge_suite
from rosa_bench.tables.claims.wording import NOTES, limits, table, test_lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table of all claims, with two columns per suite."""
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.tables.claims", description=__doc__)
    places = "a folder of runs or an archive; repeatable (default: results/runs and results/*.jsonl.gz)"
    parser.add_argument("suites", nargs="*", metavar="SUITE|KEY=VALUE", help="default: every suite with claims")
    parser.add_argument("--runs", type=typed_path, action="append", metavar="PLACE", help=places)
    parser.add_argument("--details", action="store_true", help="also print every comparison, task by task")
    args = parser.parse_args(argv)
    names = [name for name in args.suites if "=" not in name]
    overrides = [name for name in args.suites if "=" in name]
    try:
        roots = args.runs or [Path("results/runs"), *sorted(Path("results").glob(f"*{SUFFIX}"))]
        tell(report(collect(roots), names, overrides, args.details))
    except UsageError as error:
        return complain(str(error))
    return EXIT_DONE


def report(collection: Collection, names: Sequence[str], overrides: Sequence[str] = (), details: bool = False) -> str:
    """The table, its notes and the limits of the claims. Raises UsageError as `judged_suites` does."""
    columns = judged_suites(collection, names, overrides)
    claims = [verdict.claim for verdict in next(iter(columns.values()))]
    lines = [table(columns), "", *NOTES, *limits(claims)]
    for title, judged in columns.items() if details else ():
        lines += ["", title, *(f"  {v.number}. {line}" for v in judged for line in _details(v))]
    return "\n".join(lines)


def judged_suites(
    collection: Collection, names: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, Sequence[Verdict]]:
    """The verdicts of the named suites, or of every suite with claims that `overrides` fit, by title.

    Raises:
        UsageError: if a suite does not exist, has no claims, or has other claims than the first, or if the overrides
            fit none of them.
    """
    suites = [plan.load(name) for name in names or config.choices("suite")]
    suites = [suite for suite in suites if suite.claims]
    if not suites or any(name not in [suite.name for suite in suites] for name in names):
        raise UsageError(f"no claims in {', '.join(names) or 'any suite'}; add `claims:` to configs/suite/NAME.yaml")
    claims = claims_of(suites[0])
    if other := next((suite.name for suite in suites if claims_of(suite) != claims), None):
        raise UsageError(f"{suites[0].name} and {other} have different claims; name one of them")
    columns: dict[str, Sequence[Verdict]] = {}
    unfit: list[UsageError] = []
    for suite in suites:
        try:
            title, judged = judge_suite(collection, suite, overrides)
        except UsageError as error:
            if names:
                raise
            unfit.append(error)
        else:
            columns[f"{title} ({suite.name})" if title in columns else title] = judged
    if not columns:
        raise unfit[0]
    return columns


def _details(verdict: Verdict) -> list[str]:
    return [f"{verdict.word} (p = {min(verdict.p_holds, verdict.p_fails):.2g})", *test_lines(verdict)]


if __name__ == "__main__":
    sys.exit(command(main))
