"""Claims and verdicts as text: the paper's numbers, effects with their intervals, and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rosa_bench.errors import UsageError
from rosa_bench.stats.effects import Effect
from rosa_bench.suite.claims import Claim
from rosa_bench.tables import papers
from rosa_bench.tables.claims.judge import Result, Verdict, text
from rosa_bench.tables.claims.measures import MEASURES
from rosa_bench.tables.grid import DASH


def printed(claim: Claim) -> str:
    """The paper's numbers, read from results/papers.

    Raises:
        UsageError: if a number is missing or not unique.
    """
    numbers = {name: _number(claim, where) for name, where in claim.numbers.items()}
    try:
        return claim.printed.format(**numbers)
    except (KeyError, IndexError) as error:
        raise UsageError(f"claim {claim.id}: printed names {error}, which is not in numbers") from error
    except (ValueError, AttributeError) as error:
        raise UsageError(f"claim {claim.id}: printed is not a valid format ({error})") from error


def _number(claim: Claim, where: str | Mapping[str, str]) -> str:
    """A printed score, selected by its columns in reported.csv, or "paper/table: path" of a number in sources.yaml."""
    if isinstance(where, Mapping):
        rows = papers.reported(where.get("paper", claim.paper))
        alike = [row for row in rows if all(str(getattr(row, key, None)) == value for key, value in where.items())]
        if len(alike) != 1 or alike[0].value is None:
            raise UsageError(f"claim {claim.id}: {len(alike)} rows of reported.csv have {dict(where)}, not one")
        return f"{alike[0].value:g}"
    paper_table, _, path = where.partition(": ")
    paper, _, table = paper_table.partition("/")
    source = papers.source(paper, table)
    try:
        value: Any = source["numbers"]
        for step in path.split("."):
            value = value[int(step) if isinstance(value, list) else step]
        return f"{value:g}"
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UsageError(f"claim {claim.id}: sources.yaml has no number {where}") from error


def amount(value: float, result: Result) -> str:
    """An effect in its unit: points with their sign, or a ratio with three significant digits."""
    if MEASURES[result.comparison.measure].unit == "points":
        return f"{value:+.2f}".replace("-", "−")
    return f"{math.exp(value) if result.is_ratio else value:#.3g}".rstrip(".").replace("-", "−")


def measured(result: Result, effect: Effect | None = None) -> str:
    """An effect and its 95 % interval; a dash without one."""
    effect = effect or result.effect
    if effect is None:
        return DASH
    low, high = effect.interval()
    unit = " points" if MEASURES[result.comparison.measure].unit == "points" else ""
    rank = "" if result.rank is None else f"rank {result.rank}: "
    return f"{rank}{amount(effect.value, result)}{unit} ({amount(low, result)} to {amount(high, result)})"


def verdict_text(verdict: Verdict) -> str:
    """The verdict, with the reason if it is undecided, and the tasks that are left out."""
    text = f"{verdict.word}: {verdict.reason}" if verdict.reason else verdict.word
    return f"{text} (without {', '.join(verdict.left_out)})" if verdict.left_out else text


def test_lines(verdict: Verdict) -> list[str]:
    """A line per comparison of a claim: what was tested, the effect, and the effect on each task."""
    lines = [f"left out: {task}, which does not meet the condition below" for task in verdict.left_out]
    for result in (*verdict.results, *verdict.given):
        tasks = "; ".join(f"{task} {measured(result, effect)}" for task, effect in result.tasks.items())
        found = measured(result) if result.effect is not None else result.absent
        lines.append(f"{text(result.comparison)}: {found}" + (f" [{tasks}]" if len(result.tasks) > 1 else ""))
    return lines


def table(columns: Mapping[str, Sequence[Verdict]]) -> str:
    """All claims in Markdown, with two columns per suite: the effect that decides and the verdict.

    `columns` maps a suite's title to its verdicts; all suites have the same claims.
    """
    heads = ["#", "claim", "paper"]
    for title in columns:
        heads += [title, "verdict"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for same in zip(*columns.values(), strict=True):
        claim = same[0].claim
        cells = [str(same[0].number), claim.claim, f"{printed(claim)} ({claim.place})"]
        for verdict in same:
            cells += [measured(verdict.deciding), verdict_text(verdict)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


NOTES = (
    "Ours: the effect that decides, with its 95 % interval for other seeds and other examples: the one that fails, or "
    "the one least sure to hold. Differences are in points, averaged over tasks and ranks; other effects are ratios.",
    "A claim holds, or does not hold, if p < 0.05 after Holm's correction over all claims of a suite, separately for "
    "each direction; the intervals are uncorrected. The margins were fixed before the runs (configs/suite), "
    "unless a limit below says otherwise.",
)


def limits(claims: Sequence[Claim]) -> list[str]:
    """What the verdicts do not say, claim by claim."""
    return [f"{number}. {claim.limits}" for number, claim in enumerate(claims, 1) if claim.limits]
