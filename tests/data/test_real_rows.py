"""Real data sets next to the checkout, if present: counts and balance against their manifest, and short runs."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from beside import SHARED
from support import small

from rosa_bench.data.source import load_split, split_file
from rosa_bench.metrics import find
from rosa_bench.metrics.metric import score_all
from rosa_bench.run import run as run_experiment

GLUE = re.compile(r"^\| glue/(\w+)/(\w+)\.jsonl\S* \| (\d+) \| ([^|]+) \|", re.MULTILINE)
MANIFEST = SHARED / "data" / "MANIFEST.md"
ROWS = GLUE.findall(MANIFEST.read_text(encoding="utf-8")) if MANIFEST.is_file() else []


def local(task: str, *overrides: str):
    return small(SHARED, f"task={task}", "data=local", f"data.dir='{SHARED / 'data'}'", *overrides)


@pytest.mark.skipif(not ROWS, reason="no folder of real rows next to the checkout")
@pytest.mark.parametrize(("task", "split", "count", "balance"), ROWS)
def test_glue_files_match_the_manifest(task, split, count, balance):
    run = local(task)
    loaded = load_split(run.task, run.data, split)
    assert loaded.rows == len(loaded.examples) == int(count)
    output = dict(re.findall(r"(\d+): (\d+)", balance))
    if output:
        assert Counter(example.label for example in loaded.examples) == {int(k): int(v) for k, v in output.items()}
    else:
        assert run.task.kind.name == "regress" and all(0 <= example.label <= 5 for example in loaded.examples)


def test_matthews_of_the_majority_class_is_undefined(shared_data):
    run = local("cola")
    labels = [example.label for example in load_split(run.task, run.data, "validation").examples]
    assert Counter(labels) == {1: 721, 0: 322}
    assert score_all([find("matthews")], [1] * len(labels), labels) == {}


@pytest.mark.parametrize("task", ["cola", "sst2", "mrpc", "stsb", "rte", "wnli", "mnli", "qnli"])
def test_a_few_steps_on_real_rows(task, shared_data, tmp_path):
    run = local(task, f"output_dir={tmp_path}", "method=rosa", "train.max_steps=3", "train.max_length=128")
    train = next((s for s in ("train", run.task.select_split) if _there(run, s)), None)
    if train != "train":  # its train set is not among the real rows: its validation rows serve for the steps
        folder = tmp_path / "data" / run.task.folder
        folder.mkdir(parents=True)
        for split in run.task.splits:
            source = split_file(run.task, str(shared_data), run.task.select_split if split == "train" else split)
            (folder / f"{split}{''.join(source.suffixes)}").symlink_to(source)
        run = small(tmp_path, f"task={task}", "data=local", f"data.dir='{tmp_path / 'data'}'", "train.max_steps=3")
    record = run_experiment(run)
    assert record.data["source"] == "local" and record.status == "done"
    assert (run.task.kind.name == "regress") == (task == "stsb")
    metric = "pearson" if task == "stsb" else run.task.primary
    scored = {*record.scores[run.task.select_split][""], *record.facts.get("absent_metrics", {})}
    assert metric in scored or metric == "pearson"


def _there(run, split: str) -> bool:
    folder = SHARED / "data" / run.task.folder
    return any((folder / f"{split}{suffix}").is_file() for suffix in (".jsonl", ".jsonl.gz"))


@pytest.mark.parametrize(
    ("task", "split", "rows"), [("e2e", "test", 630), ("webnlg", "test", 1862), ("dart", "test", 5097)]
)
def test_data_to_text_rows_load(task, split, rows, shared_data):
    run = local(task)
    loaded = load_split(run.task, run.data, split)
    assert loaded.rows == rows and all(example.references for example in loaded.examples)
    assert len(loaded.examples) == (4159 if task == "dart" else rows)
