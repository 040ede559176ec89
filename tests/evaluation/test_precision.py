"""Evaluation uses the requested precision regardless of that of training."""

from __future__ import annotations

import os

import pytest
import torch
from support import composed, small

from rosa_bench.core.task import Prediction
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import diagnostics, predict, scorer
from rosa_bench.records.run_key import config_key
from rosa_bench.run import refuse
from rosa_bench.run import run as run_experiment
from rosa_bench.training import trainer

FEW = ("method=lora", "train.max_steps=2", "train.limit_train=16")


@pytest.mark.parametrize(
    ("training", "evaluation", "expected"),
    [
        ("bf16", "null", torch.bfloat16),
        ("bf16", "fp32", None),
        ("bf16", "bf16", torch.bfloat16),
        ("fp32", "bf16", torch.bfloat16),
        ("fp32", "null", None),
    ],
)
def test_evaluation_runs_in_its_own_precision(training, evaluation, expected, backbone, tmp_path, monkeypatch):
    seen, merging = set(), []
    logits, merge_checked = predict.Predictor.logits, diagnostics.merge_checked

    def watched(predictor, *args, **kwargs):
        def note(*_):
            on = torch.is_autocast_enabled("cpu")
            if not merging:
                seen.add(torch.get_autocast_dtype("cpu") if on else None)

        handle = predictor.model.base_model.register_forward_pre_hook(note)
        try:
            return logits(predictor, *args, **kwargs)
        finally:
            handle.remove()

    monkeypatch.setattr(predict.Predictor, "logits", watched)
    monkeypatch.setattr(diagnostics, "merge_checked", lambda *args: merging.append(True) or merge_checked(*args))
    precision = (f"train.precision={training}", f"train.eval_precision={evaluation}")
    run_experiment(small(tmp_path, *FEW, *precision, f"model.path={backbone('roberta')}"))
    assert seen == {expected}


def test_variables_of_accelerate_do_not_change_a_run(tmp_path, monkeypatch):
    for name, value in (("MIXED_PRECISION", "bf16"), ("GRADIENT_ACCUMULATION_STEPS", "4"), ("USE_FSDP", "true")):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    lower, compute_loss = set(), trainer.BenchTrainer.compute_loss

    def watched(self, model, *args, **kwargs):
        handle = model.base_model.register_forward_pre_hook(lambda *_: lower.add(torch.is_autocast_enabled("cpu")))
        try:
            return compute_loss(self, model, *args, **kwargs)
        finally:
            handle.remove()

    monkeypatch.setattr(trainer.BenchTrainer, "compute_loss", watched)
    record = run_experiment(small(tmp_path, *FEW, "task=cola"))
    assert lower == {False} and record.env["dtype"] == "fp32"
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_texts_of_the_best_epoch_are_decoded_in_the_precision_of_the_last(tmp_path, monkeypatch):
    lower = []

    def decode(task, model, tokenizer, examples, *args, **kwargs):
        lower.append(torch.is_autocast_enabled("cpu"))
        return [Prediction(e.id, "a pub", references=e.references) for e in examples]

    monkeypatch.setattr(predict, "decode", decode)
    for module in (scorer, trainer):
        monkeypatch.setattr(module, "best_epoch", lambda _, history: history[0])
    few = ("method=lora", "task=e2e", "train.max_steps=2", "train.limit_train=4", "train.limit_eval=2")
    run_experiment(small(tmp_path, *few, "train.eval_precision=bf16"))
    assert lower == [True, True]


@pytest.mark.parametrize("key", ["precision", "eval_precision"])
@pytest.mark.parametrize("value", ["tf32", "fp16"])
def test_precisions_that_need_a_gpu_are_refused_without_one(key, value, tmp_path):
    with pytest.raises(UsageError, match=rf"train\.{key}={value} needs a GPU"):
        refuse(small(tmp_path, f"train.{key}={value}"))


def test_tf32_is_on_only_within_the_context():
    before = torch.get_float32_matmul_precision()
    with predict.tf32(True):
        assert torch.get_float32_matmul_precision() == "high"
        with predict.tf32(False):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_eval_precision_enters_the_key_if_it_differs_from_training():
    keys = [config_key(composed("method=lora", *more)) for more in ((), ("train.eval_precision=bf16",))]
    assert len(set(keys)) == 2
