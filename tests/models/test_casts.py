"""Weights cast to bf16 in advance are bitwise equal to autocast, which casts them at every product."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from support import composed, prepared, small

from rosa_bench.data.batches import collate
from rosa_bench.errors import UsageError
from rosa_bench.evaluation.predict import attaching
from rosa_bench.models.casts import Casts
from rosa_bench.models.load import load
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.run import run as run_experiment

CASES = [
    ("lora", ()),
    ("lora", ("method.targets=[all]", "method.bias=all")),
    ("dylora", ()),
    ("dylora", ("method.frozen=true",)),
    ("rosa", ()),
    ("rosa", ("method.rank=0.99",)),
    ("adapter", ()),
    ("bitfit", ()),
    ("full", ()),
    ("meft", ("method.variant=meft1",)),
    ("meft", ("method.variant=meft2",)),
    ("meft", ("method.variant=meft3",)),
]


def gradients(model, batch, casts: Casts, changing: bool):
    """Loss, gradients of all trained parameters and final generator state, with dropout."""
    torch.manual_seed(5)
    trained = [p for p in model.parameters() if p.requires_grad]
    casts.refresh()
    with casts.in_place(changing):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        grads = torch.autograd.grad(loss, [casts.leaf(p) if changing else p for p in trained], allow_unused=True)
    gradients = [g if g is None else g.to(p.dtype) for g, p in zip(grads, trained, strict=True)]
    return loss.detach(), gradients, torch.get_rng_state()


@pytest.mark.parametrize("name", ["roberta_mini", "gpt2_mini"])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_results_are_bitwise_equal(method, options, name):
    run, model, _, rows = prepared(method, name, *options)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.01 * torch.randn_like(p)
    model.train()
    batch = collate(rows[:4], pad_id=1)
    moved = run.method.moved(model)
    once = Casts(model, torch.bfloat16, moved, changing=True)
    loss, grads, state = gradients(model, batch, Casts(model, None), changing=False)
    assert once.tensors and any(g is not None for g in grads)
    for changing in (False, True):
        loss_once, grads_once, state_once = gradients(model, batch, once, changing)
        assert torch.equal(loss, loss_once) and torch.equal(state, state_once)
        for mine, other in zip(grads_once, grads, strict=True):
            assert (mine is None and other is None) or torch.equal(mine, other)


def test_the_model_has_its_own_parameters_outside_the_context():
    _, model, _, _ = prepared("lora", "roberta_mini")
    before = dict(model.named_parameters())
    casts = Casts(model, torch.bfloat16, changing=True)
    with casts.in_place(changing=True):
        assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}
    after = dict(model.named_parameters())
    assert before.keys() == after.keys() and all(after[name] is before[name] for name in before)


def test_embeddings_norms_and_tied_matrices_stay():
    _, model, _, _ = prepared("full", "gpt2_mini")
    cast = {id(p) for p in Casts(model, torch.bfloat16, changing=True).changing}
    kept = {name for name, p in model.named_parameters() if id(p) not in cast}
    assert kept == {n for n, _ in model.named_parameters() if "wte" in n or "wpe" in n or "ln_" in n}


def test_a_frozen_weight_that_changes_is_noticed():
    _, model, _, _ = prepared("lora", "roberta_mini")
    casts = Casts(model, torch.bfloat16)
    casts.check()
    next(lowrank_sites(model))[0].base.weight.data.mul_(2)
    with pytest.raises(RuntimeError, match="frozen weight"):
        casts.check()


def test_a_weight_that_a_method_changes_is_cast_again():
    run, model, _, _ = prepared("rosa", "roberta_mini")
    casts = Casts(model, torch.bfloat16, run.method.moved(model), changing=True)
    run.method.split(model, 3, 7)
    casts.check()
    casts.refresh()
    assert all(torch.equal(copy, p.bfloat16()) for p, copy in casts.changing.items())


def test_a_run_counts_them_as_weights(tmp_path):
    """A run in bf16 casts once; the copies count as weights, not as activations."""
    memory = run_experiment(small(tmp_path, "method=lora", "train.precision=bf16", "train.max_steps=2")).cost["memory"]
    run, model, *_ = prepared("lora", "roberta_mini")
    plain = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    assert memory["weights"] == plain + Casts(model, torch.bfloat16).bytes > plain
    assert load(run.model, run.task, 0)[0].dtype == torch.float32


KEPT = ("train.precision=bf16", "train.max_steps=4", "train.limit_train=24", "train.log_steps=1", "save=adapter")


@pytest.mark.parametrize(
    "options",
    [("method=lora",), ("method=meft",), ("method=adapter",), ("method=ia3",), ("method=lora", "task=e2e")],
)
def test_a_backbone_kept_in_bf16_trains_as_one_in_fp32(options, backbone, tmp_path):
    """Bitwise, since autocast rounds the same matrices to bf16."""
    kind = "gpt2" if "task=e2e" in options else "roberta"
    results = []
    for dtype in ("fp32", "bf16"):
        run = small(tmp_path / dtype, *KEPT, *options, f"model.path={backbone(kind)}", f"model.dtype={dtype}")
        record = run_experiment(run)
        folder = tmp_path / dtype / record.run_id
        losses = [json.loads(line).get("loss") for line in (folder / "events.jsonl").read_text().splitlines()]
        results.append((record, losses, load_file(next(folder.glob("adapter/*.safetensors")))))
    (fp32, losses, tensors), (bf16, losses_bf16, tensors_bf16) = results
    assert fp32.key == bf16.key and losses == losses_bf16 and fp32.scores == bf16.scores
    assert all(torch.equal(tensors[name], tensors_bf16[name]) for name in tensors | tensors_bf16)
    assert bf16.cost["memory"]["weights"] < fp32.cost["memory"]["weights"]
    assert bf16.facts.get("merge_within_bound", True)


def test_tensors_added_to_a_bf16_backbone_train_in_fp32(backbone):
    """Also if a library creates them in the backbone's dtype."""
    run = composed(f"model.path={backbone('roberta')}", "method=dora", "task=cola", "model.dtype=bf16", *KEPT[:1])
    model, _ = load(run.model, run.task, 0)
    with attaching(model, run.method):
        run.method.attach(model, 0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in model.parameters()}


@pytest.mark.parametrize("method", ["full", "rosa"])
def test_a_method_that_changes_the_backbone_needs_it_in_fp32(method, backbone, tmp_path):
    options = (*KEPT, f"method={method}", f"model.path={backbone('roberta')}", "model.dtype=bf16")
    with pytest.raises(UsageError, match=f"method={method} changes weights of the backbone"):
        run_experiment(small(tmp_path, *options))


@pytest.mark.parametrize("options", [(), ("train.precision=bf16", "train.eval_precision=fp32")])
def test_a_backbone_in_bf16_needs_products_in_bf16(options):
    with pytest.raises(UsageError, match=r"model\.dtype=bf16 needs train\.precision=bf16"):
        composed("method=lora", "model.dtype=bf16", *options)
