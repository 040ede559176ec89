"""Copies `record.json` of a suite's finished cells to results/NAME, and draws its tables there: what a checkout ships.

    python -m rosa_bench.suite embedded --jobs 2
    python scripts/keep_records.py embedded [output_dir=DIR]

A damaged record is named and left out, unless the copy beside it is whole, which is then used. Predictions stay where
they are; what was computed from them, the comparisons with the baseline, is kept as tests.json.
README.md gets the table as well, between its lines <!-- NAME: begin --> and <!-- NAME: end -->.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rosa_bench.errors import EXIT_DONE, EXIT_USAGE, UsageError
from rosa_bench.records.record import Record, read_record
from rosa_bench.records.validate import checked
from rosa_bench.suite import plan
from rosa_bench.system.files import write_bytes, write_sealed_json
from rosa_bench.tables import __main__ as tables


def main(name: str, overrides: list[str]) -> int:
    """Copy, and draw."""
    kept = dict(whole(plan.plan(plan.load(name), overrides)))
    if not kept:
        print(f"no cell of {name} is done; run: python -m rosa_bench.suite {name}", file=sys.stderr)
        return EXIT_USAGE
    target = Path("results") / name
    for folder, record in kept.items():
        (target / folder.name).mkdir(parents=True, exist_ok=True)
        write_sealed_json(target / folder.name / "record.json", record.to_dict())
    runs = str(next(iter(kept)).parent)
    code = tables.main(["--runs", runs, "--runs", str(target), "--out", str(target / "tables"), "--suite", name])
    if code != EXIT_DONE:
        return code
    if (target / "tables" / "tests.json").is_file():
        shutil.move(target / "tables" / "tests.json", target / "tests.json")
    put_into_readme(name, (target / "tables" / f"{name}.md").read_text(encoding="utf-8"))
    print(f"{len(kept)} records of {name}: {target}")
    return EXIT_DONE


def whole(cells: Sequence[plan.Cell]) -> Iterator[tuple[Path, Record]]:
    """Folder and record of each cell that is done and whose checksum fits; one that is damaged is named."""
    for cell in cells:
        path = cell.folder / "record.json"
        if not path.is_file():
            continue
        try:
            record = checked(read_record(path), path)
        except UsageError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        if record.status == "done" and record.key == cell.key:
            yield cell.folder, record


def put_into_readme(name: str, table: str) -> None:
    """The table as it was printed, without its title."""
    path = Path("README.md")
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    if begin in text and end in text:
        before, after = text.partition(begin)[0], text.partition(end)[2]
        body = table.partition("\n\n")[2].strip()
        write_bytes(path, f"{before}{begin}{body}\n{end}{after}".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
