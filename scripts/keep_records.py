"""Copies `record.json` of a suite's finished cells to results/NAME, and draws its tables there: what a checkout ships.

    python -m rosa_bench.suite embedded --jobs 2
    python scripts/keep_records.py embedded [output_dir=DIR]

Predictions stay where they are; what was computed from them, the comparisons with the baseline, is kept as tests.json.
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
    print(f"{len(cells)} records of {name}: {target}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
