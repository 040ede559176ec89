"""`start=RUN` gives the logits of the named run, or a one-line error."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support import EACH, MINIS, composed, interrupt, on, prepared, skip_refused, small, steps, without_cost

from rosa_bench.config import resolve, saved_config
from rosa_bench.data.batches import collate
from rosa_bench.doctor import main as doctor
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict
from rosa_bench.evaluation.restore import trained_model
from rosa_bench.methods import merge
from rosa_bench.models.hashing import backbone_hash
from rosa_bench.models.load import load
from rosa_bench.records import checkpoints
from rosa_bench.records.labels import cell_name
from rosa_bench.records.run_key import config_key
from rosa_bench.records.start import attach_method
from rosa_bench.run import run as run_experiment


def logits(model, rows):
    with predict.evaluating(model):
        return model(**{k: v for k, v in collate(rows, pad_id=1).items() if k != "labels"}).logits.clone()


def begun(*overrides: str, seed: int = 9):
    """A model at the start of a run with another seed, and its loader."""
    run = composed(*overrides)
    model, _ = load(run.model, run.task, seed)
    return model, attach_method(run, model, seed)[1]


@pytest.mark.parametrize("name", [*MINIS, "bert", "bart", "opt"])
@EACH
def test_every_method_starts_where_its_run_ended(method, name, tmp_path):
    skip_refused(method, name)
    run, model, _, rows = prepared(method, name)
    backbone = backbone_hash(load(run.model, run.task, 3)[0])
    steps(run, model, rows, 3, run.method.lr["mini"])
    checkpoints.save_adapters(model, run.method, tmp_path, backbone)
    expected = logits(model, rows)
    seed = 3 if name == "bert" else 9  # its file has no pooler, which is drawn from the seed and stays frozen
    started, loader = begun(f"method={method}", *on(name), f"start={tmp_path}/adapter", seed=seed)
    assert torch.equal(logits(started, rows), expected) and loader.redrawn == []
    if run.method.mergeable:  # and every method starts from merged weights
        merge(model).save_pretrained(tmp_path / "merged")
        for other in ("lora", "full"):
            started, _ = begun(f"method={other}", *on(name), f"start={tmp_path}/merged")
            assert (logits(started, rows) - expected).abs().max() < 2e-4


@pytest.mark.parametrize("method", ["lora", "full", "rosa", "meft", "bitfit", "dylora"])
def test_a_head_of_another_shape_is_initialized_from_the_seed(method, tmp_path):
    source = run_experiment(small(tmp_path, f"method={method}", "task=mnli", "save=adapter", "train.max_steps=3"))
    target = (f"method={method}", "task=rte", f"output_dir={tmp_path}", f"start={source.run_id}")
    model, loader = begun(*target)
    fresh, _ = load(composed(*target).model, composed(*target).task, 9)
    drawn = dict(fresh.named_parameters())
    assert loader.redrawn == ["classifier.out_proj.bias", "classifier.out_proj.weight"]
    assert torch.equal(model.classifier.out_proj.weight, drawn["classifier.out_proj.weight"])
    assert not torch.equal(model.classifier.dense.weight, drawn["classifier.dense.weight"])
    record = run_experiment(small(tmp_path, *target, "train.max_steps=3"))
    start = record.facts["start"]
    assert start["run_id"] == source.run_id and start["task"] == "mnli" and start["method"] == method
    assert start["redrawn"] == loader.redrawn and record.config["start"] == source.run_id
    assert start["settings"] == cell_name(source.config) == cell_name(source.config | {"seed": 2})
    assert record.status == "done" and record.key != source.key


def test_a_merged_model_whose_head_differs(tmp_path, monkeypatch):
    source = run_experiment(small(tmp_path, "method=lora", "task=mnli", "save=merged", "train.max_steps=3"))
    merged = tmp_path / source.run_id / "merged"
    for method in ("lora", "rosa", "full"):
        _, loader = begun(f"method={method}", "task=rte", f"start={merged}")
        assert loader.redrawn == ["classifier.out_proj.bias", "classifier.out_proj.weight"]
    record = run_experiment(small(tmp_path, "method=rosa", "task=rte", f"start={source.run_id}", "save=adapter"))
    assert record.status == "done" and record.facts["merge_within_bound"]
    chained = (f"output_dir={tmp_path}", "method=rosa", "task=rte", f"start={record.run_id}")
    with pytest.raises(UsageError, match=r"another backbone.*save=merged"):
        begun(*chained)
    monkeypatch.chdir(tmp_path / record.run_id)  # the start is looked up next to the run
    trained_model(resolve(saved_config(Path())), Path())


def test_a_run_with_a_start_resumes_bitwise(tmp_path):
    source = run_experiment(small(tmp_path, "method=rosa", "task=mnli", "save=adapter", "train.max_steps=3"))
    shutil.copytree(tmp_path / source.run_id, tmp_path / "source")
    options = ("method=rosa", "task=rte", f"start={tmp_path / 'source'}", "save=adapter")
    whole = run_experiment(small(tmp_path / "whole", *options))
    interrupt(small(tmp_path / "parts", *options), 5)
    resumed = run_experiment(small(tmp_path / "parts", *options, "resume=must"))
    assert without_cost(resumed) == without_cost(whole)
    first, second = (tmp_path / part / whole.run_id / "adapter/adapter.safetensors" for part in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()


def test_the_key_depends_on_the_loaded_tensors_not_on_the_name(tmp_path):
    plain = composed("method=lora", "task=cola")
    for seed in (1, 2):
        run = small(tmp_path, "method=lora", "task=cola", "save=adapter", "train.max_steps=2", f"seed={seed}")
        record = run_experiment(run)
        shutil.copytree(tmp_path / record.run_id / "adapter", tmp_path / f"adapter{seed}")
    run_id = next(path.parent.name for path in tmp_path.glob("*-s1-*/record.json"))
    named = [run_id, tmp_path / run_id, tmp_path / run_id / "adapter", tmp_path / "adapter1"]
    keys = {config_key(composed(f"output_dir={tmp_path}", "method=lora", "task=cola", f"start={n}")) for n in named}
    other = config_key(composed("method=lora", "task=cola", f"start={tmp_path / 'adapter2'}"))
    assert len(keys) == 1 and len({*keys, other, config_key(plain)}) == 3


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    record = run_experiment(small(tmp_path, "method=lora", "task=cola", "save=adapter", "train.max_steps=2"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_key(composed("method=lora", f"start='~/{record.run_id}'"))


def test_invalid_starts_are_one_line(tmp_path, capsys):
    def refusal(*overrides: str) -> str:
        with pytest.raises(UsageError) as error:
            begun(*overrides, f"output_dir={tmp_path}")
        assert "\n" not in str(error.value)
        return str(error.value)

    plain = run_experiment(small(tmp_path, "method=lora", "task=cola", "train.max_steps=2"))
    lora = ("method=lora", "task=cola")
    assert "save=adapter force=true" in refusal(*lora, f"start={plain.run_id}")
    assert plain.run_id in refusal(*lora, f"start={plain.run_id[:-1]}x")
    assert "is not a folder" in refusal(*lora, f"start={tmp_path}/nowhere")
    (tmp_path / "empty").mkdir()
    assert "adapter.json" in refusal(*lora, f"start={tmp_path}/empty")
    kept = run_experiment(small(tmp_path, *lora, "train.max_steps=2", "seed=2", "train.keep_checkpoints=true"))
    assert begun(*lora, f"start={kept.run_id}", f"output_dir={tmp_path}")[1].redrawn == []
    saved = run_experiment(small(tmp_path, *lora, "train.max_steps=2", "seed=3", "save=adapter"))
    start = f"start={saved.run_id}"
    assert "method=lora, which method=rosa does not have" in refusal("method=rosa", "task=cola", start)
    assert "of another shape" in refusal(*lora, "method.rank=4", start)
    assert "unexpected" in refusal(*lora, "method.targets=[q]", start)
    assert "another backbone" in refusal(*lora, start, "model.path=" + on("bert")[1].partition("=")[2])
    interrupt(small(tmp_path, *lora, "seed=4"), 3)
    stopped = next(path.parent.name for path in tmp_path.glob("*-s4-*/record.json"))
    assert "interrupted, not done" in refusal(*lora, f"start={stopped}")
    options = [*lora, "tracker=none", f"output_dir={tmp_path}"]
    assert doctor([*options, f"start={saved.run_id}"]) == 0 and "starts from" in capsys.readouterr().out
    assert doctor([*options, "method.rank=4", f"start={saved.run_id}"]) == 2
    assert "does not fit" in capsys.readouterr().out
    tensors = tmp_path / saved.run_id / "adapter" / "adapter.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
    assert "damaged" in refusal(*lora, start)
