"""`scripts/lora_e2e.py`: microsoft/LoRA's E2E files as rows of `data=local`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import composed

from rosa_bench.data.source import load_split

SCRIPT = Path(__file__).parents[2] / "scripts" / "lora_e2e.py"
LINES = """name : Blue Spice | Type : pub || A pub , Blue Spice .
name : Blue Spice | Type : pub||Blue Spice is a pub .
name : The Mill | price : £ 20 - 25||The Mill costs £ 20 - 25 .
"""


def convert(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, source, target], capture_output=True, text=True, check=False)


def test_converted_rows_load(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(LINES, encoding="utf-8")
    assert convert(tmp_path, tmp_path / "out").returncode == 0
    run = composed("task=e2e", "data=local", f"data.dir={tmp_path / 'out'}")
    rows = {split: load_split(run.task, run.data, split, None).examples for split in run.task.splits}
    assert [len(split) for split in rows.values()] == [3, 2, 2]
    assert [row.texts[0] for row in rows["test"]] == [
        "name : Blue Spice | Type : pub",
        "name : The Mill | price : £ 20 - 25",
    ]
    assert rows["test"][0].references == ("A pub , Blue Spice .", "Blue Spice is a pub .")
    (tmp_path / "valid.txt").write_text("name : Blue Spice\n", encoding="utf-8")
    failed = convert(tmp_path, tmp_path / "out")
    assert failed.returncode == 1 and "valid.txt: line 1" in failed.stderr and "Traceback" not in failed.stderr
