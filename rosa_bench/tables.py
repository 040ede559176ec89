"""Records to tables: one per backbone and data source, methods by tasks, mean and spread over seeds."""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rosa_bench.errors import EXIT_DONE, EXIT_USAGE, UsageError
from rosa_bench.files import write_bytes
from rosa_bench.record import Record, read_record

DASH = "–"  # a number that was not measured


@dataclass(frozen=True)
class Table:
    """One table as rows of text; the first row is the head."""

    title: str
    rows: tuple[tuple[str, ...], ...]
    note: str


def records(folder: Path) -> tuple[list[Record], list[str]]:
    """Every finished record below a folder, and a line for each one that could not be read."""
    found, broken = [], []
    for path in sorted(folder.glob("*/record.json")):
        try:
            record = read_record(path)
        except UsageError as error:
            broken.append(f"left out: {error}")
            continue
        if record.status == "done" and "last" in record.primary:
            found.append(record)
    return found, broken


def method_label(record: Record) -> str:
    """The method with its rank or ranks, where it has any."""
    options = record.config["method"]
    rank = f"{options['rank_min']}-{options['rank_max']}" if "rank_max" in options else options.get("rank")
    label = record.method if rank is None else f"{record.method} r={rank}"
    return label + (" (random backbone)" if record.config["model"]["random_init"] else "")


def setting(record: Record) -> tuple[object, ...]:
    """What two records must share to stand in one cell: all of the configuration but the seed and where it ran."""
    train = {k: v for k, v in record.config["train"].items() if k not in ("device", "threads", "num_workers")}
    return (
        method_label(record),
        str(record.config["method"]),
        str(train),
        str(record.config["task"]),
        str(record.data["sha256"]),
    )


def build(found: Iterable[Record]) -> list[Table]:
    """The tables of all records. Embedded rows never share a table with real ones."""
    groups: dict[tuple[str, str], dict[str, dict[tuple[object, ...], list[Record]]]] = {}
    for record in found:
        by_task = groups.setdefault((record.model, str(record.data["source"])), {}).setdefault(record.task, {})
        by_task.setdefault(setting(record), []).append(record)
    return [_table(model, source, tasks) for (model, source), tasks in sorted(groups.items())]


def _table(model: str, source: str, tasks: dict[str, dict[tuple[object, ...], list[Record]]]) -> Table:
    cells: dict[str, dict[str, list[str]]] = {}
    sizes: dict[str, set[str]] = {}
    for task, settings in tasks.items():
        for group in settings.values():
            label = method_label(group[0])
            cells.setdefault(label, {}).setdefault(task, []).append(cell(group))
            sizes.setdefault(label, set()).add(f"{group[0].params['trainable']:,}")
    heads = [f"{task} ({next(iter(tasks[task].values()))[0].primary['metric']})" for task in sorted(tasks)]
    rows = [("method", "trainable", *heads)]
    for label in sorted(cells):
        values = [" / ".join(sorted(cells[label].get(task, [DASH]))) for task in sorted(tasks)]
        rows.append((label, " / ".join(sorted(sizes[label])), *values))
    note = "Last epoch, mean ± standard deviation over n seeds. Several values in a cell: other settings of a method."
    for task, settings in sorted(tasks.items()):
        used = {
            str(r.config["task"]["scoring"])
            for group in settings.values()
            for r in group
            if "scoring" in r.config["task"]
        }
        note += f" {task} is scored by the convention {' and '.join(sorted(used))}." if used else ""
    return Table(f"{model} on {source}", tuple(rows), note)


def cell(group: Sequence[Record]) -> str:
    """Mean ± standard deviation (n) of the last epoch's primary score; one seed has no spread."""
    by_seed = {record.seed: float(record.primary["last"]) for record in group}
    values = list(by_seed.values())
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread} (n={len(values)})"


def markdown(table: Table) -> str:
    """GitHub Markdown."""
    head, *body = table.rows
    lines = ["| " + " | ".join(row) + " |" for row in [head, ("---",) * len(head), *body]]
    return "\n".join([f"## {table.title}", "", *lines, "", table.note, ""])


def comma_separated(table: Table) -> str:
    """CSV with the head row."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table.rows)
    return out.getvalue()


def latex(table: Table) -> str:
    """A booktabs tabular."""
    escape = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "±": r"$\pm$", "–": "--", "#": r"\#"})
    head, *body = ([text.translate(escape) for text in row] for row in table.rows)
    lines = [" & ".join(row) + r" \\" for row in body]
    columns = "l" * len(head)
    return "\n".join(
        [
            f"% {table.title}. {table.note}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables of all records below --runs to --out, and print them."""
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.tables", description=main.__doc__)
    parser.add_argument("--runs", type=Path, default=Path("results/runs"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("results/tables"), metavar="DIR")
    args = parser.parse_args(argv)
    found, broken = records(args.runs)
    for line in broken:
        print(line, file=sys.stderr)
    if not found:
        print(f"rosa_bench.tables: no finished record below {args.runs}; make one with: make run", file=sys.stderr)
        return EXIT_USAGE
    args.out.mkdir(parents=True, exist_ok=True)
    for table in build(found):
        name = table.title.replace(" ", "_")
        for suffix, render in (("md", markdown), ("csv", comma_separated), ("tex", latex)):
            write_bytes(args.out / f"{name}.{suffix}", render(table).encode())
        print(markdown(table))
    print(f"tables of {len(found)} records: {args.out}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
