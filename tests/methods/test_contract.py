"""The contract of methods, for every yaml of configs/method: on the minis, BERT, BART, OPT, and full sizes."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from support import (
    BACKBONES,
    BASES,
    CLASSES,
    EACH,
    METHODS,
    MINIS,
    THIN,
    composed,
    interrupt,
    loaded,
    on,
    prepared,
    refusal,
    skip_refused,
    small,
    steps,
    without_cost,
)

from rosa_bench import methods
from rosa_bench.data.batches import collate
from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict
from rosa_bench.models import hashing
from rosa_bench.models.load import load
from rosa_bench.records import checkpoints
from rosa_bench.records.record import Record
from rosa_bench.run import run as run_experiment


def grid(slow):
    """Every backbone; those in `slow` only in the slow tests."""
    marks = {name: [pytest.mark.slow] if name in slow else [] for name in BACKBONES}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in BACKBONES])


GRID, WIDE_GRID = grid(BASES | CLASSES), grid(BASES)


@pytest.fixture(autouse=True)
def _what_the_method_does(request):
    given = getattr(request.node, "callspec", None)
    if given is None or request.node.name.startswith("test_refusals"):
        return
    name = given.params.get("name") or given.params.get("mini") or request.node.get_closest_marker("tried_on").args[0]
    if name in CLASSES and given.params["method"] in THIN:
        pytest.skip("a bridge is tried on other classes")
    skip_refused(given.params["method"], name)


@EACH
def test_refusals_are_one_line_and_at_least_one_mini_is_supported(method):
    result = [refusal(method, mini) for mini in MINIS]
    assert "" in result
    assert all(not why or (method in why and "\n" not in why) for why in result)


def rate(run, name: str) -> float:
    return 0.1 * run.method.lr["full_size"] if name in BASES else run.method.lr["mini"]  # random weights overshoot


@GRID
@EACH
def test_starts_at_the_backbone(method, name):
    run, model, _, rows = prepared(method, name)
    plain, _, _ = loaded(run, name)
    with predict.evaluating(model), predict.evaluating(plain):
        batch = collate(rows, pad_id=1)
        expected = plain(**batch).logits
        difference = (model(**batch).logits - expected).abs().max()
    assert run.method.exact_at_start is False or difference < 1e-5 * max(1.0, expected.abs().max())


@WIDE_GRID
@EACH
def test_trains_without_changing_frozen_parameters(method, name):
    run, model, _, rows = prepared(method, name)
    rows = rows[: len(rows) // 4] if name in MINIS else rows
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    count, share = (40, 0.6) if name in MINIS else (6, 1.0)  # there is little to learn from random weights
    share = max(share, 0.9) if method in THIN else share  # prompts and shared factors learn slowly
    losses = steps(run, model, rows, count, rate(run, name))
    with predict.evaluating(model):
        final = model(**collate(rows, pad_id=1)).loss.item()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert wanted
    assert final < share * losses[0]
    assert moved <= wanted | run.method.moved(model)
    assert len(moved & wanted) >= 0.9 * len(wanted)


@GRID
@EACH
def test_resumes_bitwise(method, name, tmp_path):
    overrides = [f"method={method}", *on(name), "save=adapter"]
    overrides += ["train.limit_eval=8"] if name == "gpt2_mini" else []  # texts take their time
    if name in BASES:
        overrides += ["train.batch_size=2", "train.limit_eval=3", "train.max_steps=6"]
    whole = run_experiment(small(tmp_path / "whole", *overrides))
    interrupt(small(tmp_path / "parts", *overrides), 5)
    interrupted = json.loads((tmp_path / "parts" / whole.run_id / "record.json").read_text())
    assert interrupted["status"] == "interrupted"
    resumed = run_experiment(small(tmp_path / "parts", *overrides, "resume=must"))
    assert without_cost(resumed) == without_cost(whole)
    for file in ("adapter/adapter.safetensors", *(p.name for p in (tmp_path / "whole" / whole.run_id).glob("pred*"))):
        first, second = (tmp_path / part / whole.run_id / file for part in ("whole", "parts"))
        assert first.read_bytes() == second.read_bytes(), file


@pytest.fixture(scope="module")
def other_process():
    """A new process, without the models of this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def load_and_score(overrides: tuple[str, ...], folder: Path, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    run = composed(*overrides)
    model, _ = load(run.model, run.task, 3)
    digest = hashing.tensor_hash(dict(model.base_model.named_parameters()))
    run.method.attach(model, 3)
    checkpoints.load_adapter(model, run.method, folder, digest)
    with predict.evaluating(model):
        return model(**batch).logits.clone()


@GRID
@EACH
def test_saves_loads_and_merges(method, name, tmp_path, other_process):
    overrides = (f"method={method}", *on(name))
    run, model, _, rows = prepared(method, name)
    digest = hashing.tensor_hash(dict(loaded(run, name)[0].base_model.named_parameters()))
    steps(run, model, rows, 3 if name in BASES else 12, rate(run, name))
    batch = {name: value for name, value in collate(rows, pad_id=1).items() if name != "labels"}
    with predict.evaluating(model):
        expected = model(**batch).logits.clone()
    checkpoints.save_adapters(model, run.method, tmp_path, digest)
    assert torch.equal(
        other_process.submit(load_and_score, overrides, tmp_path / "adapter", batch).result(600), expected
    )
    if run.method.mergeable:
        methods.merge(model).save_pretrained(tmp_path / "merged")
        plain, report = type(model).from_pretrained(tmp_path / "merged", output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        with predict.evaluating(plain):
            assert (plain(**batch).logits - expected).abs().max() < 2e-4


def losses_of(folder: Path, *overrides: str) -> tuple[list[float], Record]:
    record = run_experiment(small(folder, *overrides, "train.log_steps=1"))
    lines = (folder / record.run_id / "events.jsonl").read_text().splitlines()
    return [event["loss"] for event in map(json.loads, lines) if "loss" in event], record


@pytest.mark.parametrize("mini", MINIS)
@EACH
def test_learns_the_same_under_bf16_and_with_gradient_checkpointing(method, mini, tmp_path):
    """bf16 changes losses slightly; gradient checkpointing changes only memory."""
    overrides = (f"method={method}", *on(mini), "train.limit_eval=4")
    expected, plain = losses_of(tmp_path / "plain", *overrides)
    result, record = losses_of(tmp_path / "bf16", *overrides, "train.precision=bf16")
    assert result == pytest.approx(expected, rel=0.05) and result != expected
    assert record.facts.get("merge_within_bound", True)  # the check is made in fp32
    saving = (*overrides, "train.gradient_checkpointing=true")
    if not composed(*overrides).method.checkpointable:
        with pytest.raises(UsageError, match="gradient_checkpointing"):
            losses_of(tmp_path / "saving", *saving)
        return
    result, record = losses_of(tmp_path / "saving", *saving)
    assert result == pytest.approx(expected, rel=1e-6)
    assert record.cost["memory"]["activations"] < 0.7 * plain.cost["memory"]["activations"]


@GRID
@EACH
def test_gradients_under_autocast(method, name):
    """Loss and direction of the gradient agree with fp32."""
    run, model, _, rows = prepared(method, name)
    steps(run, model, rows, 2, rate(run, name))
    trained = [p for p in model.parameters() if p.requires_grad]
    batch = collate(rows, pad_id=1)

    def loss_and_gradient(dtype: torch.dtype | None) -> tuple[float, torch.Tensor]:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = model.eval()(**batch).loss
        grads = torch.autograd.grad(loss, trained, allow_unused=True)
        return loss.item(), torch.cat([g.flatten().double() for g in grads if g is not None])

    loss, gradient = loss_and_gradient(None)
    for dtype in (torch.float16, torch.bfloat16):
        loss_low, gradient_low = loss_and_gradient(dtype)
        assert loss_low == pytest.approx(loss, rel=0.02) and not torch.equal(gradient_low, gradient)
        assert torch.cosine_similarity(gradient, gradient_low, dim=0) > 0.99


@pytest.mark.tried_on("gpt2_mini")
@EACH
def test_generates_after_training(method):
    run, model, tokenizer, rows = prepared(method, "gpt2_mini")
    steps(run, model, rows, 2, 1e-4)
    examples = load_split(run.task, run.data, "test", 3).examples
    together = predict.decode(run.task, model, tokenizer, examples, 3, 256)
    alone = [predict.decode(run.task, model, tokenizer, [example], 1, 256)[0] for example in examples]
    assert together == alone


@GRID
@EACH
def test_refuses_adapters_of_other_methods(method, name, tmp_path):
    run, model, _, _ = prepared(method, name)
    checkpoints.save_adapters(model, run.method, tmp_path, "one backbone")
    folder = tmp_path / "adapter"
    shapes = {name: tensor.shape for name, tensor in checkpoints.trained_state(model, run.method).items()}
    with pytest.raises(UsageError, match="another backbone"):
        checkpoints.load_adapter(model, run.method, folder, "another one")
    neighbors = {"full", "lora", METHODS[METHODS.index(method) - 1]}
    for other in sorted(neighbors - {method}):
        if not refusal(other, name):
            theirs, model, _, _ = prepared(other, name)
            with pytest.raises(UsageError, match="another method"):
                checkpoints.load_adapter(model, theirs.method, folder, "one backbone")
            state = checkpoints.trained_state(model, theirs.method)
            if {name: tensor.shape for name, tensor in state.items()} != shapes:
                with pytest.raises(UsageError, match="does not fit"):
                    checkpoints.load_state(model, theirs.method, folder / "adapter.safetensors")


@pytest.mark.tried_on("roberta_mini")
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
def test_the_start_depends_only_on_the_seed(method, name):
    def start(seed: int, spoil: bool = False) -> str:
        if spoil:
            load(run.model, run.task, 99)
            torch.rand(7)
        model, _ = load(run.model, run.task, seed)
        run.method.attach(model, seed)
        return hashing.tensor_hash(checkpoints.trained_state(model, run.method))

    run = composed(f"method={method}", *on(name))
    first = start(3)
    assert first == start(3, spoil=True)
    if method in THIN and BACKBONES[name] != "cola" and name not in BASES:
        return  # some fill new tensors with constants: see test_peft.py
    # what trains weights of a language model as they are draws nothing, unless these are random themselves
    run, model, _, _ = prepared(method, name)
    known = dict(loaded(run, name)[0].named_parameters())
    trained = checkpoints.trained_state(model, run.method)
    new_tensors = not trained.keys() <= known.keys() or BACKBONES[name] == "cola" or name in BASES
    assert (first != start(4)) == new_tensors
