"""The sentence that describes a run."""

from __future__ import annotations

import dataclasses

import pytest
from support import SMALL, composed

from rosa_bench import cli
from rosa_bench.records.display import in_words


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (["task=mrpc", "seed=7"], []),
        (["method=lora", "method.rank=3", "method.alpha=5.0", "train.lr=0.02"], ["rank 3", "alpha=5.0"]),
        (["method=rosa", "method.variant=add", "train.max_steps=40"], ["rank 8", "variant=add"]),
        (["method=full", "train.epochs=1", "train.batch_size=16", "model.random_init=true"], []),
        (["method=pissa", "task=e2e"], ["rank 8"]),
        (["start=results/runs/other"], ["starting from results/runs/other"]),
    ],
)
def test_the_sentence_states_what_the_configuration_says(overrides, changed):
    run = composed(*overrides)
    text, train = in_words(run), run.train
    length = f"{train.max_steps} steps" if train.max_steps else f"{train.epochs} epoch"
    expected = [run.model.name, f"on {run.task.name} ", run.data.source, f"method {run.method.name}", length, *changed]
    expected += [f"batch size {train.batch_size}", f"learning rate {train.lr:g}", f"seed {run.seed}"]
    assert [part for part in expected if part not in text] == []
    assert ("random weights" in text) == run.model.random_init
    options = {field.name for field in dataclasses.fields(run.method)}
    named = {name for name in options if f" {name}=" in text or f"({name}=" in text}
    assert named == {part.partition("=")[0] for part in changed if "=" in part}


def test_a_run_begins_with_it(tmp_path, capsys):
    overrides = [*SMALL, "train.max_steps=1", "method=lora", f"output_dir={tmp_path}"]
    assert cli.main(overrides) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == in_words(composed(*overrides))
    (folder,) = (path.parent for path in tmp_path.glob("*/record.json"))
    assert lines[1] == f"  folder {folder}" and lines[2].endswith("examples: train 48, validation 24")
