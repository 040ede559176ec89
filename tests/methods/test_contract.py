"""What every method must hold, over every yaml of configs/method and both embedded backbones."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from support import METHODS, MINIS, composed, prepared, small, steps, without_cost

from rosa_bench import checkpoint, evaluate, methods, trainer
from rosa_bench.data.batches import collate
from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.models.load import load
from rosa_bench.run import run as run_experiment

GRID = pytest.mark.parametrize("mini", MINIS)
EACH = pytest.mark.parametrize("method", METHODS)


@GRID
@EACH
def test_starts_at_the_backbone(method, mini):
    run, model, _, rows = prepared(method, mini)
    plain, _ = load(run.model, run.task, 3)
    with evaluate.evaluating(model), evaluate.evaluating(plain):
        batch = collate(rows, pad_id=1)
        expected = plain(**batch).logits
        difference = (model(**batch).logits - expected).abs().max()
    assert run.method.exact_at_start is False or difference < 1e-5 * max(1.0, expected.abs().max())


@GRID
@EACH
def test_trains_and_leaves_the_frozen_alone(method, mini):
    run, model, _, rows = prepared(method, mini)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    losses = steps(run, model, rows, 40, run.method.lr["mini"])
    with evaluate.evaluating(model):
        final = model(**collate(rows, pad_id=1)).loss.item()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert wanted
    assert final < 0.6 * losses[0]
    assert moved <= wanted | run.method.moved(model)
    assert len(moved & wanted) >= 0.9 * len(wanted)


@GRID
@EACH
def test_resumes_bitwise(method, mini, tmp_path, monkeypatch):
    overrides = (f"method={method}", f"task={MINIS[mini]}", f"model={mini}", "save=adapter")
    whole = run_experiment(small(tmp_path / "whole", *overrides))
    original = trainer.Loop.on_step_end

    def stop_at_five(self, args, state, control, **kw):
        self.recorder.stop_asked |= state.global_step == 5
        original(self, args, state, control, **kw)

    monkeypatch.setattr(trainer.Loop, "on_step_end", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(small(tmp_path / "parts", *overrides))
    interrupted = json.loads((tmp_path / "parts" / whole.run_id / "record.json").read_text())
    assert interrupted["status"] == "interrupted"
    monkeypatch.setattr(trainer.Loop, "on_step_end", original)
    resumed = run_experiment(small(tmp_path / "parts", *overrides, "resume=must"))
    assert without_cost(resumed) == without_cost(whole)
    for name in ("adapter/adapter.safetensors", *(p.name for p in (tmp_path / "whole" / whole.run_id).glob("pred*"))):
        first, second = (tmp_path / part / whole.run_id / name for part in ("whole", "parts"))
        assert first.read_bytes() == second.read_bytes(), name


@pytest.fixture(scope="module")
def other_process():
    """A process that has seen none of the models of this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def load_and_score(overrides: tuple[str, ...], folder: Path, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    run = composed(*overrides)
    model, _ = load(run.model, run.task, 3)
    told = checkpoint.tensor_hash(dict(model.base_model.named_parameters()))
    run.method.attach(model, 3)
    checkpoint.load_adapter(model, run.method, folder, told)
    with evaluate.evaluating(model):
        return model(**batch).logits.clone()


@GRID
@EACH
def test_saves_loads_and_merges(method, mini, tmp_path, other_process):
    overrides = (f"method={method}", f"task={MINIS[mini]}", f"model={mini}")
    run, model, _, rows = prepared(method, mini)
    told = checkpoint.tensor_hash(dict(load(run.model, run.task, 3)[0].base_model.named_parameters()))
    steps(run, model, rows, 12, run.method.lr["mini"])
    batch = {name: value for name, value in collate(rows, pad_id=1).items() if name != "labels"}
    with evaluate.evaluating(model):
        expected = model(**batch).logits.clone()
    checkpoint.save_adapters(model, run.method, tmp_path, told)
    assert torch.equal(
        other_process.submit(load_and_score, overrides, tmp_path / "adapter", batch).result(120), expected
    )
    if run.method.mergeable:
        methods.merge(model).save_pretrained(tmp_path / "merged")
        plain, report = type(model).from_pretrained(tmp_path / "merged", output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        with evaluate.evaluating(plain):
            assert (plain(**batch).logits - expected).abs().max() < 2e-4


@EACH
def test_generates_after_training(method):
    run, model, tokenizer, rows = prepared(method, "gpt2_mini")
    steps(run, model, rows, 2, 1e-4)
    examples = load_split(run.task, run.data, "test", 3).examples
    together = evaluate.decode(run.task, model, tokenizer, examples, 3, 256)
    alone = [evaluate.decode(run.task, model, tokenizer, [example], 1, 256)[0] for example in examples]
    assert together == alone


@GRID
@EACH
def test_refuses_others(method, mini, tmp_path):
    run, model, _, _ = prepared(method, mini)
    checkpoint.save_adapters(model, run.method, tmp_path, "one backbone")
    folder = tmp_path / "adapter"
    shapes = {name: tensor.shape for name, tensor in checkpoint.trained_state(model, run.method).items()}
    with pytest.raises(UsageError, match="another backbone"):
        checkpoint.load_adapter(model, run.method, folder, "another one")
    for other in METHODS:
        if other != method:
            theirs, model, _, _ = prepared(other, mini)
            with pytest.raises(UsageError, match="another method"):
                checkpoint.load_adapter(model, theirs.method, folder, "one backbone")
            state = checkpoint.trained_state(model, theirs.method)
            if {name: tensor.shape for name, tensor in state.items()} != shapes:
                with pytest.raises(UsageError, match="does not fit"):
                    checkpoint.load_state(model, theirs.method, folder / "adapter.safetensors")


@EACH
def test_trains_the_head(method):
    _, model, _, _ = prepared(method, "roberta_mini")
    head = [p for name, p in model.named_parameters() if name.startswith("classifier.")]
    assert head and all(p.requires_grad for p in head)
    if "train_head" in type(composed(f"method={method}").method).__dataclass_fields__:
        _, model, _, _ = prepared(method, "roberta_mini", "method.train_head=false")
        assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith("classifier."))


@GRID
@EACH
def test_start_depends_on_the_seed_alone(method, mini):
    def start(seed: int, spoil: bool = False) -> str:
        if spoil:
            prepared("lora", mini, seed=99)
            torch.rand(7)
        run, model, _, _ = prepared(method, mini, seed=seed)
        return checkpoint.tensor_hash(checkpoint.trained_state(model, run.method))

    first = start(3)
    assert first == start(3, spoil=True)
    new_tensors = method != "full" or mini == "roberta_mini"  # full fine-tuning of a language model draws nothing
    assert (first != start(4)) == new_tensors
