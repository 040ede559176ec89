"""Every command of README.md runs, and the names and files that it mentions exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from keep_records import brief_table
from support import METHODS, SMALL, TASKS

from rosa_bench import embedded
from rosa_bench.records.collect import collect
from rosa_bench.tables import __main__ as tables
from rosa_bench.tables.claims.__main__ import judged_suites

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
PYTHON = [command for command in COMMANDS if command.startswith("python ")]
(SWEEP,) = [command for command in PYTHON if command.startswith("python -m rosa_bench -m ")]


def test_the_readme_has_only_known_kinds_of_commands():
    assert sorted(MAKE + PYTHON) == sorted(COMMANDS) and len(PYTHON) > 5


def run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(tmp_path, backbone):
    """A working directory whose DIR holds local rows and a backbone."""
    local = tmp_path / "DIR"
    (local / "glue" / "cola").mkdir(parents=True)
    for split in ("train", "validation"):
        rows = "".join(json.dumps(row) + "\n" for row in embedded.rows("cola", split)[:100])
        (local / "glue" / "cola" / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    for path in backbone("gpt2").iterdir():
        (local / path.name).write_bytes(path.read_bytes())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.parametrize("command", [command for command in PYTHON if command != SWEEP])
def test_every_python_command_runs(command, folder):
    arguments = shlex.split(command)[1:]
    if "--gpus" in command or "--cluster" in command:  # without a GPU or a cluster: planned, or refused in one line
        done = run([*arguments, "--dry-run"], folder)
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr and done.stderr.count("\n") <= 1
        return
    small = [] if "doctor" in command else [s for s in SMALL if s.partition("=")[0] + "=" not in command]
    done = run([*arguments, *small], folder)
    if "roberta_base" in command or "data=hub" in command:
        assert done.returncode == 2 and "=FOLDER" in done.stderr and "Traceback" not in done.stderr
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", MAKE)
def test_every_make_command_has_a_recipe(command):
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    expected = {
        "make run": "rosa_bench method=rosa task=cola",
        "make test": "pytest",
        "make tables": "rosa_bench.tables",
    }
    assert expected[command] in done.stdout


def test_the_three_uses_in_sequence(folder):
    sweep = [*shlex.split(SWEEP)[1:], *SMALL[:-1]]
    assert run([*sweep, "task=sst2", "train.max_steps=2", "train.checkpoint_steps=9"], folder).returncode == 0
    assert len(list(folder.glob("results/runs/*/record.json"))) == 4
    done = run(["-m", "rosa_bench.tables"], folder)
    assert done.returncode == 0 and done.stdout.count("rosa r=") == 2, done.stderr
    written = {p.suffix for p in (folder / "results" / "tables").iterdir()}
    assert written == {".md", ".csv", ".tex", ".html", ".png", ".pdf"}


def test_tables_without_records_say_what_to_do(tmp_path):
    done = run(["-m", "rosa_bench.tables"], tmp_path)
    assert done.returncode == 2 and "make run" in done.stderr


def test_the_readme_is_short_and_its_links_exist():
    assert len(README.splitlines()) <= 120 and len(README.encode()) <= 7168
    for path in re.findall(r"[\](]((?:docs|examples)/[^)#\s`]+)", README):
        assert (ROOT / path).is_file(), path


def test_every_method_and_task_is_documented():
    for names, page in ((METHODS, "background/methods.md"), (TASKS, "reference/tasks.md")):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for name in names:
            assert re.search(rf"\b{name}\b", text), name


def test_the_own_method_is_that_of_the_examples():
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Mine" in block)
    file = re.sub(
        r"  # on embedded backbones and on others", "", (ROOT / "examples" / "own_method.py").read_text("utf-8")
    )
    assert code in file


def between(text: str, name: str) -> str:
    """The block of a page that `scripts/keep_records.py` writes."""
    return text.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0].strip()


@pytest.mark.parametrize(
    ("name", "page"), [("claims", "claims"), ("embedded", "claims"), ("embedded_more", "embedded")]
)
def test_tables_match_the_records(name, page, tmp_path, capsys):
    page = (ROOT / "docs" / "background" / f"{page}.md").read_text(encoding="utf-8")
    arguments = ["--runs", str(ROOT / "results" / f"{name}.jsonl.gz"), "--suite", name, "--no-plots"]
    assert tables.main([*arguments, "--out", str(tmp_path)]) == 0
    assert between(page, name) == (tmp_path / f"{name}.md").read_text(encoding="utf-8").partition("\n\n")[2].strip()
    assert between(page, name) in capsys.readouterr().out


def test_the_verdicts_match_the_records():
    archives = sorted((ROOT / "results").glob("*.jsonl.gz"))
    assert between(README, "verdicts") == brief_table(judged_suites(collect(archives)))
