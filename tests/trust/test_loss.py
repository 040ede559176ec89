"""A loss that is not finite fails the run; its record names the step and the examples."""

from __future__ import annotations

import json
import math

import pytest
import torch
from support import small

from rosa_bench.core.task import Encoded
from rosa_bench.data.batches import BatchInfo, Rows, collate, collate_with_info, epoch_order
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import load_split
from rosa_bench.models.load import load
from rosa_bench.run import run as run_experiment
from rosa_bench.system.seeds import seeds
from rosa_bench.training.loss_window import LossWindow, NotFiniteError
from rosa_bench.training.trainer import LossNotFiniteError


def expected(run, step: int, micro: int) -> list[str]:
    """The ids of the first micro-batch of a step, by the order of the epoch."""
    split = load_split(run.task, run.data, "train", run.train.limit_train)
    rows = encode_split(run.task, load(run.model, run.task, 1)[1], split, run.train.max_length)
    order = epoch_order([len(row.input_ids) for row in rows], run.train.batch_size, seeds(run.seed).data, 0, True)
    return [split.examples[i].id for i in order[step * run.train.batch_size :][:micro]]


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_step_and_examples_are_named(value, window, tmp_path, monkeypatch):
    def spoil(self, step):
        if step.index == 2:
            next(p for name, p in step.model.named_parameters() if name.endswith("out_proj.bias")).data.fill_(value)

    monkeypatch.setattr("rosa_bench.methods.full.Full.before_step", spoil)
    monkeypatch.setattr("rosa_bench.training.trainer.LossWindow", lambda size: LossWindow(window))
    run = small(tmp_path, "method=full", "train.micro_batch_size=4", "train.num_workers=1", "train.max_steps=4")
    with pytest.raises(LossNotFiniteError, match="at step 2; the examples of the batch: "):
        run_experiment(run)
    (path,) = tmp_path.glob("*/record.json")
    content = json.loads(path.read_text())
    assert content["status"] == "failed" and not content.get("scores") and not content.get("primary")
    assert content["facts"]["loss_not_finite"] == {"step": 2, "examples": expected(run, 2, 4)}
    assert all(name in content["error"] for name in expected(run, 2, 4))


def test_a_batch_has_its_row_ids():
    rows = Rows([Encoded([i, i + 1], i % 2) for i in range(5)], list("abcde"))
    batch = collate_with_info([rows[3], rows[1]], 0)
    assert batch.pop("info") == BatchInfo(rows=[3, 1], tokens=4, cells=4)
    plain = collate([rows.encoded[3], rows.encoded[1]], 0)
    assert batch.keys() == plain.keys() and all(torch.equal(batch[name], plain[name]) for name in plain)


def test_a_window_names_the_first_loss_that_is_not_finite():
    window = LossWindow(4)
    for step, value in enumerate([0.5, float("nan"), float("inf")]):
        window.add(torch.tensor(value), step, [step, step + 10])
    with pytest.raises(NotFiniteError) as caught:
        window.check()
    assert math.isnan(caught.value.loss) and (caught.value.step, caught.value.rows) == (1, [1, 11])
    window.check()  # what was read is forgotten


def test_a_window_is_read_only_when_it_is_full():
    window = LossWindow(3)
    for step in range(2):
        window.add(torch.tensor(float("nan")), step, [step])
    with pytest.raises(NotFiniteError):
        window.add(torch.tensor(1.0), 2, [2])


def test_no_curve_or_checkpoint_contains_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    """Losses are checked late, but always before a log line or a checkpoint."""

    def spoil(self, step):
        if step.index == 2:
            next(p for p in step.model.parameters() if p.requires_grad).data.fill_(float("nan"))

    monkeypatch.setattr("rosa_bench.methods.full.Full.before_step", spoil)
    monkeypatch.setattr("rosa_bench.training.trainer.LossWindow", lambda size: LossWindow(100))
    with pytest.raises(LossNotFiniteError, match="at step 2"):
        run_experiment(small(tmp_path, "method=full", "train.log_steps=4", "train.checkpoint_steps=2"))
    (path,) = tmp_path.glob("*/record.json")
    folder = path.parent
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert all(math.isfinite(json.loads(line)["loss"]) for line in (folder / "events.jsonl").read_text().splitlines())
