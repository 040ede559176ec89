"""A separate learning rate for the task head: `train.head_lr`."""

from __future__ import annotations

import gzip
import json

import pytest
from support import composed, interrupt, small

from rosa_bench.errors import UsageError
from rosa_bench.records import run_key
from rosa_bench.run import run as run_experiment
from rosa_bench.training import trainer


def moves(monkeypatch, folder, *overrides: str) -> dict[str, float]:
    """The size of the first update of the head and of all other parameters, which for AdamW is the learning rate."""
    begin, end, before, far = trainer.Loop.on_step_begin, trainer.Loop.on_step_end, {}, {}

    def on_step_begin(self, args, state, control, **kw):
        begin(self, args, state, control, **kw)
        before.update({name: p.detach().clone() for name, p in kw["model"].named_parameters() if p.requires_grad})

    def on_step_end(self, args, state, control, **kw):
        for name, p in kw["model"].named_parameters():
            if name in before:
                part = "head" if name.startswith("classifier.") else "rest"
                far[part] = max(far.get(part, 0.0), float((p.detach() - before[name]).abs().max()))
        end(self, args, state, control, **kw)

    monkeypatch.setattr(trainer.Loop, "on_step_begin", on_step_begin)
    monkeypatch.setattr(trainer.Loop, "on_step_end", on_step_end)
    run_experiment(small(folder, *overrides, "train.max_steps=1", "train.warmup=0", "train.lr=1e-3"))
    return far


@pytest.mark.parametrize("method", ["bitfit", "prompt_tuning", "full"])
def test_the_head_has_its_own_rate(method, monkeypatch, tmp_path):
    """Also if a method's parameters are outside the backbone, like the head."""
    if method == "prompt_tuning":
        pytest.importorskip("peft")
    far = moves(monkeypatch, tmp_path, f"method={method}", "train.head_lr=2e-2")
    assert far == pytest.approx({"head": 2e-2, "rest": 1e-3}, rel=1e-2)


def test_equal_rates_are_one_rate(tmp_path):
    runs = [small(tmp_path, "train.lr=2e-3", *more) for more in ([], ["train.head_lr=2e-3"])]
    records = [run_experiment(run) for run in runs]
    assert records[0].key != records[1].key
    assert records[0].scores == records[1].scores and records[0].params == records[1].params
    paths = [tmp_path / record.run_id / "predictions-validation.jsonl.gz" for record in records]
    first, second = (gzip.decompress(path.read_bytes()).splitlines() for path in paths)
    assert first == second and json.loads(first[0])["logits"]


def test_without_it_a_run_is_unchanged():
    without = run_key.identity_parts(composed().to_dict())["train"]
    given = run_key.identity_parts(composed("train.head_lr=0.01").to_dict())["train"]
    assert "head_lr" not in without and given == without | {"head_lr": 0.01}


def test_a_run_resumes_with_both_rates(tmp_path):
    overrides = ("method=lora", "train.head_lr=2e-2", "save=adapter")
    whole = run_experiment(small(tmp_path / "whole", *overrides))
    interrupt(small(tmp_path / "parts", *overrides), 5)
    run_experiment(small(tmp_path / "parts", *overrides, "resume=must"))
    first, second = (tmp_path / part / whole.run_id / "adapter/adapter.safetensors" for part in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "overrides", [("task=e2e", "method=lora"), ("method=lora", "method.train_head=false"), ("task=sciq",)]
)
def test_it_is_refused_without_a_trained_head(overrides, tmp_path):
    with pytest.raises(UsageError, match=r"train\.head_lr=0\.01: task=\w+ and method=\w+ train no task head"):
        run_experiment(small(tmp_path, *overrides, "train.head_lr=0.01"))
