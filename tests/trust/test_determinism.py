"""The same seed gives the same bytes, regardless of irrelevant settings."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from support import EACH, MINIS, composed, on, skip_refused, small, without_cost

from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import load_split
from rosa_bench.evaluation import predict
from rosa_bench.models import hashing
from rosa_bench.models.load import load
from rosa_bench.models.traits import max_length
from rosa_bench.records import checkpoints
from rosa_bench.run import run as run_experiment
from rosa_bench.system.seeds import seeds

TIE = 1e-4  # nats or logits: two answers nearer than this may change places with the evaluation batch
APART = 2e-5  # of outputs with other batches around them


@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_the_number_of_data_workers_changes_nothing(workers, tmp_path):
    """With bucketing, dropout, a smaller last batch and two epochs."""
    steps = (
        "method=rosa",
        "train.bucket=true",
        "train.limit_train=44",
        "train.max_steps=8",
        "train.checkpoint_steps=100",
    )
    one, other = (run_experiment(small(tmp_path / str(n), *steps, f"train.num_workers={n}")) for n in (1, workers))
    assert without_cost(one) == without_cost(other) and one.facts["init_hash"] == other.facts["init_hash"]
    name = f"{one.run_id}/predictions-validation.jsonl.gz"
    assert (tmp_path / "1" / name).read_bytes() == (tmp_path / str(workers) / name).read_bytes()


def trained(method: str, name: str, seed: int = 1) -> str:
    """The hash of the trained tensors at the start of a run with this seed."""
    run = composed(f"method={method}", *on(name), f"seed={seed}")
    model, _ = load(run.model, run.task, seeds(seed).init)
    run.method.attach(model, seeds(seed).method)
    return hashing.tensor_hash(checkpoints.trained_state(model, run.method))


@EACH
@pytest.mark.parametrize("name", ["roberta_mini", pytest.param("gpt2_mini", marks=pytest.mark.slow)])
def test_another_adapter_before_changes_no_initialization(method, name):
    skip_refused(method, name)
    torch.manual_seed(1)
    alone = trained(method, name)
    torch.manual_seed(2)
    other = "lora" if method != "lora" else "rosa"
    trained(other, name)
    torch.rand(7)
    assert trained(method, name) == alone
    if method not in ("full", "bitfit", "top_layers"):  # they begin as the backbone is; the head differs for these too
        assert trained(method, name, seed=2) != alone or not composed(f"task={MINIS[name]}").task.num_labels


def scored(task: str, sizes: tuple[int, ...]):
    """The task, its examples, and a function that evaluates a briefly trained model at a batch size."""
    run = composed("method=lora", f"task={task}")
    model, tokenizer = load(run.model, run.task, 1)
    run.method.attach(model, 1)
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:  # so that the adapter, too, has its say
            parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=draw))
    split = load_split(run.task, run.data, run.task.scored_splits[0], 24)
    return run, model, tokenizer, split, sizes


def test_the_evaluation_batch_changes_no_file_of_predictions_beyond_ties(tmp_path):
    files = []
    for size in (1, 5, 24):
        record = run_experiment(small(tmp_path / str(size), f"train.eval_batch_size={size}"))
        path = tmp_path / str(size) / record.run_id / "predictions-validation.jsonl.gz"
        files.append([json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()])
    first, *others = files
    clear = [abs(row["logits"][1] - row["logits"][0]) > TIE for row in first]
    assert sum(clear) > 20
    for rows in others:
        assert [row["id"] for row in rows] == [row["id"] for row in first]
        for mine, row, output in zip(first, rows, clear, strict=True):
            assert row["logits"] == pytest.approx(mine["logits"], abs=APART) and row["label"] == mine["label"]
            assert row["prediction"] == mine["prediction"] or not output


@pytest.mark.parametrize("task", ["mnli", "stsb"])
def test_the_evaluation_batch_moves_no_class_beyond_a_tie(task):
    run, model, tokenizer, split, sizes = scored(task, (1, 5, 24))
    rows = encode_split(run.task, tokenizer, split, max_length(model, 64))
    first, *others = [predict.Predictor(model, size, tokenizer.pad_token_id).logits(rows)[0] for size in sizes]
    assert all((values - first).abs().max() < APART for values in others)
    if run.task.num_labels > 1:
        best = first.sort(-1).values
        clear = best[:, -1] - best[:, -2] > TIE
        assert clear.sum() > 20 and all((v.argmax(-1) == first.argmax(-1))[clear].all() for v in others)


def test_the_evaluation_batch_moves_no_choice_beyond_a_tie():
    run, model, tokenizer, split, sizes = scored("sciq", (1, 7, 96))
    rows = [item for e in split.examples for item in run.task.candidates(e, tokenizer, 64)]
    first, *others = [predict.Predictor(model, size, tokenizer.pad_token_id).likelihoods(rows)[0] for size in sizes]
    assert all((values - first).abs().max() < 50 * APART for values in others)  # a sum over tokens
    by_row = first.view(len(split.examples), -1)
    best = by_row.sort(-1).values
    clear = best[:, -1] - best[:, -2] > 50 * TIE
    assert clear.sum() > 15
    assert all((v.view_as(by_row).argmax(-1) == by_row.argmax(-1))[clear].all() for v in others)


def test_the_evaluation_batch_changes_no_text():
    _, model, tokenizer, split, sizes = scored("e2e", (1, 4))
    task = composed("task=e2e", "task.max_new_tokens=12", "task.num_beams=3").task
    texts = [[p.value for p in predict.decode(task, model, tokenizer, split.examples[:8], size, 128)] for size in sizes]
    assert texts[0] == texts[1] and any(texts[0])
