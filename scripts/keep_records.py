"""Copies `record.json` of a suite's finished cells to results/NAME, and draws its tables there: what a checkout ships.

    python -m rosa_bench.suite embedded --jobs 2
    python scripts/keep_records.py embedded [output_dir=DIR]

Predictions stay where they are; what was computed from them, the comparisons with the baseline, is kept as tests.json.
README.md gets the table as well, between its lines <!-- NAME: begin --> and <!-- NAME: end -->.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rosa_bench import plan, tables
from rosa_bench.files import write_bytes


def main(name: str, overrides: list[str]) -> int:
    """Copy, and draw."""
    cells = [cell for cell in plan.plan(plan.load(name), overrides) if cell.state == "done"]
    if not cells:
        print(f"no cell of {name} is done; run: python -m rosa_bench.suite {name}", file=sys.stderr)
        return 2
    target = Path("results") / name
    for cell in cells:
        (target / cell.folder.name).mkdir(parents=True, exist_ok=True)
        write_bytes(target / cell.folder.name / "record.json", (cell.folder / "record.json").read_bytes())
    runs = str(cells[0].folder.parent)
    code = tables.main(["--runs", runs, "--runs", str(target), "--out", str(target / "tables"), "--suite", name])
    if (target / "tables" / "tests.json").is_file():
        shutil.move(target / "tables" / "tests.json", target / "tests.json")
    put_into_readme(name, (target / "tables" / f"{name}.md").read_text(encoding="utf-8"))
    print(f"{len(cells)} records of {name}: {target}")
    return code


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
