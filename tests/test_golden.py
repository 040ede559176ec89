"""`make golden` reports exactly the differences between two trees. The trees here are stand-ins."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "golden.py"
# Trains nothing: writes a run's folder whose key is the tree's name and whose score is in a file next to the package.
RUN = """
import gzip, json, pathlib, sys
arguments = dict(argument.split("=") for argument in sys.argv[1:])
score = json.loads(pathlib.Path("score").read_text())
if score is None:
    sys.exit("rosa_bench: no score")
name = arguments["task"] + "-s1-" + pathlib.Path().resolve().name[0] * 8
folder = pathlib.Path(arguments["output_dir"], name)
folder.mkdir(parents=True)
cost = {"train_s": id(name), "tokens_per_s": id(folder), "inference": {"ratio": id(score)}, "memory": {"weights": 8}}
scores = {"validation": {"": {"accuracy": score}}}
record = {"status": "done", "key": name, "scores": scores, "primary": {}, "cost": cost}
(folder / "record.json").write_text(json.dumps(record))
(folder / "events.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5, "lr": 0.1, "examples_per_s": id(name)}))
with gzip.open(folder / "predictions-validation.jsonl.gz", "wt") as stream:
    stream.write(json.dumps({"id": "a", "prediction": 1}) + "\\n")
"""
TABLES = """
import json, pathlib, sys
out, runs = pathlib.Path(sys.argv[-2]), pathlib.Path(sys.argv[2])
out.mkdir(parents=True)
paths = sorted(runs.rglob("*-s1-*"))
costs = [json.loads((path / "record.json").read_text())["cost"] for path in paths]
(out / "all.md").write_text("\\n".join(f"{path.name} {cost}" for path, cost in zip(paths, costs)))
"""


@pytest.fixture(scope="module")
def golden():
    spec = importlib.util.spec_from_file_location("golden", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["golden"]


@pytest.fixture
def tree(golden, tmp_path):
    def make(name: str, score: str) -> golden.Tree:
        package = tmp_path / name / "rosa_bench"
        package.mkdir(parents=True)
        (tmp_path / name / "results" / "embedded").mkdir(parents=True)
        (tmp_path / name / "score").write_text(score)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(RUN)
        (package / "tables.py").write_text(TABLES)
        return golden.Tree(tmp_path / name, tmp_path / f"{name}-out")

    return make


def test_equal_scores_under_other_keys_are_equal(golden, tree, capsys):
    before, now = tree("before", "91.5"), tree("changed", "91.5")
    assert golden.report(golden.compare(before, now, golden.CELLS[:1], 2))
    printed = capsys.readouterr().out
    assert "DIFFERS" not in printed
    assert "run key changed" in printed


def test_a_changed_score_is_shown(golden, tree, capsys):
    before, now = tree("before", "91.5"), tree("changed", "91.50000000000001")
    assert not golden.report(golden.compare(before, now, golden.CELLS[:1], 2))
    printed = capsys.readouterr().out
    assert "91.50000000000001" in printed
    assert printed.count("DIFFERS") == 1


def test_a_cell_that_fails_in_both_trees_is_not_equal(golden, tree, capsys):
    before, now = tree("before", "null"), tree("changed", "null")
    assert not golden.report(golden.compare(before, now, golden.CELLS[:1], 2))
    assert "rosa_bench: no score" in capsys.readouterr().out


def test_each_tree_imports_its_own_package(tree):
    made = tree("before", "1")
    assert made.imported() == made.folder


def test_missing_and_empty_artefacts_are_differences(golden):
    same = {"key": "a", "scores": "1"}
    assert golden.differences(same, dict(same, key="b")) == []
    assert golden.differences(same, dict(same, losses="2")) == ["  losses exists only now"]
    assert golden.differences({}, {}) == ["  nothing to compare"]
    assert golden.differences({"scores": "1\n"}, {"scores": "1"})
