"""The examples run as their texts say: the notebook, a method and a task of the user's own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from support import SMALL

from rosa_bench.records.record import read_record

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
EXECUTE = """
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("quickstart.ipynb", as_version=4)
NotebookClient(notebook, timeout=500).execute()
nbformat.write(notebook, "quickstart.ipynb")
"""


@pytest.fixture
def checkout(tmp_path):
    """A working directory with a copy of the examples."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path


def run(folder: Path, file: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a file's docstring."""
    arguments = re.search(r"python -m (rosa_bench .*)", (EXAMPLES / file).read_text(encoding="utf-8"))[1]
    command = [sys.executable, "-m", *shlex.split(arguments), *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def trained(folder: Path):
    (path,) = folder.glob("results/runs/*/record.json")
    return read_record(path)


def test_the_notebook_runs(tmp_path):
    shutil.copy(EXAMPLES / "quickstart.ipynb", tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", EXECUTE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "86,594 of 2,842,370 parameters train" in printed and "rosa: matthews" in printed
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_a_method_of_the_users_own(checkout):
    done = run(checkout, "own_method.py", *SMALL)
    assert done.returncode == 0, done.stderr
    record = trained(checkout)
    assert record.config["choices"]["method"] == "mine"
    assert record.params["trainable"] == 2 * 9 * 192 + 37_442  # weight and bias of nine norms, and the head


def test_a_task_of_the_users_own(checkout):
    done = run(checkout, "own_task/own_task.py", *SMALL, "train.limit_train=null")
    assert done.returncode == 0, done.stderr
    record = trained(checkout)
    assert record.task == "tickets" and record.data["rows"] == {"train": 32, "validation": 16}
    assert 0 <= record.primary["last"] <= 100


def test_a_wrong_row_is_named(checkout):
    path = checkout / "examples" / "own_task" / "data" / "tickets" / "train.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([json.dumps(json.loads(rows[0]) | {"priority": "high"}), *rows[1:]]), encoding="utf-8")
    done = run(checkout, "own_task/own_task.py", *SMALL)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "train.jsonl" in done.stderr and "'high', not one of normal, urgent" in done.stderr
