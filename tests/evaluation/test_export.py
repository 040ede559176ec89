"""Exports loaded by `peft` and `transformers` have the logits of the trained model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import backbones
import pytest
import torch
import transformers
from made import record as made_record
from omegaconf import OmegaConf
from support import composed, small

from rosa_bench import cli, config, export
from rosa_bench.evaluation import export as exports
from rosa_bench.evaluation.restore import trained_model
from rosa_bench.models.load import load
from rosa_bench.models.roles import task_head
from rosa_bench.records.display import result_table
from rosa_bench.records.record import Record, read_record, write_record
from rosa_bench.run import run as run_experiment
from rosa_bench.system.seeds import seeds

peft = pytest.importorskip("peft")
CASES = {
    "lora": "cola",
    "lora method.bias=adapted method.train_head=false": "cola",
    "lora method.bias=all": "stsb",
    "lora method.targets=[all] method.rank=3": "mnli",
    "lora method.score_ranks=[1,2]": "cola",
    "lora method.targets=[q,v] ": "e2e",
    "lora method.targets=[all] method.bias=all": "e2e",
    "dylora method.rank_max=3": "e2e",
    "dylora method.rank_max=2 method.bias=all": "cola",
    "dora": "cola",
    "rslora": "cola",
    "pissa": "cola",
    "vera": "cola",
    "ia3": "cola",
    "oft": "cola",
    "adalora": "cola",
    "peft method.type=LORA method.config.target_modules=all-linear method.config.bias=lora_only": "cola",
    "peft method.type=RANDLORA method.config.target_modules=[query]": "cola",
    "pissa ": "e2e",
    "prompt_tuning": "e2e",
    "prefix_tuning": "e2e",
    "p_tuning": "e2e",
}
IMPOSSIBLE = {
    "rosa": "method=rosa changes the frozen weights at every factorization",
    "meft": "method=meft runs the backbone's layers as a reversible network",
    "full": "method=full trains no adapter that peft supports; use save=merged or save=adapter",
    "bitfit": "trains no adapter that peft supports",
    "prompt_tuning": "hides the prompt from the task head",
    "lora task=synthetic": "builds its own model",
}


def trained(method: str, task: str, *overrides: str) -> exports.Trained:
    """A model whose trained tensors are far from their initial values."""
    mini = "gpt2_mini" if task == "e2e" else "roberta_mini"
    run = composed(f"task={task}", f"model={mini}", f"method={method.split()[0]}", *method.split()[1:], *overrides)
    model, tokenizer = load(run.model, run.task, seeds(run.seed).init)
    head = {id(p) for p in task_head(model)}
    run.method.attach(model, seeds(run.seed).method)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad or id(p) in head:
                p.add_(0.03 * torch.randn(p.shape, generator=generator))
    record = Record(
        "run", "key", task, run.model.name, run.method.name, 1, {}, scores={"validation": {"": {"f1": 5.0}}}
    )
    return exports.Trained(run, model.eval(), tokenizer, record)


def fresh(one: exports.Trained) -> transformers.PreTrainedModel:
    """The backbone loaded without this package, with a newly initialized head."""
    labels = one.run.task.num_labels
    kind = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModelForCausalLM
    more = {"num_labels": labels} if labels else {}
    torch.manual_seed(99)
    return kind.from_pretrained(one.run.model.path or exports.source_of(one.run.model), **more)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "task"), CASES.items())
def test_peft_computes_the_logits_of_every_variant(method, task, tmp_path):
    one = trained(method, task)
    variants = one.run.method.every_variant()
    folders = {name: tmp_path / f"adapter{name}" for name in variants}
    assert exports.save_peft(one, folders) < 1e-4
    ids = torch.arange(5, 17)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    plain = fresh(one).eval()(**batch).logits
    for name, folder in folders.items():
        loaded = peft.PeftModel.from_pretrained(fresh(one), folder).eval()
        with torch.no_grad(), one.run.method.active(one.model, name):
            expected, result = one.model(**batch).logits, loaded(**batch).logits
        result = result[:, -expected.shape[1] :] if task == "e2e" else result
        assert torch.allclose(result, expected, atol=2e-4)
        assert (expected - plain).abs().max() > 2e-3
        assert transformers.AutoTokenizer.from_pretrained(folder).get_vocab() == one.tokenizer.get_vocab()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bert", "bart", "llama", "opt"])
def test_other_classes(kind, tmp_path):
    one = trained("lora", "mnli", f"model.path={backbones.folder(kind)}", "model=auto", "method.targets=[all]")
    exports.save_peft(one, {"": tmp_path / "peft"})
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(backbones.folder(kind)) and config["task_type"] == "SEQ_CLS"


def test_a_wrong_adapter_is_deleted(tmp_path, monkeypatch):
    one = trained("lora", "cola")
    monkeypatch.setattr(exports, "save_tensors", lambda state, path: path.touch())
    with pytest.raises(exports.ExportError):
        exports.save_peft(one, {"": tmp_path / "peft"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("method", "reason"), IMPOSSIBLE.items())
def test_unsupported_exports_to_peft_are_refused_before_training(method, reason, tmp_path, capsys):
    assert cli.main([*f"method={method} save=peft tracker=none output_dir={tmp_path}".split()]) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1 and "use save=" in err and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def dylora(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    record = run_experiment(small(folder, "task=sst2", "method=dylora", "method.rank_max=4", "save=adapter"))
    return folder / record.run_id


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["peft", "merged"])
def test_a_finished_run_is_exported_at_any_rank(dylora, form, capsys, tmp_path):
    assert export.main([str(dylora), "--as", form, "--variant", "r3"]) == 0
    folder = dylora / f"{form}-r3"
    assert str(folder) in capsys.readouterr().out
    run = composed("task=sst2", "method=dylora", "method.rank_max=4")
    model, tokenizer = trained_model(run, dylora)
    batch = tokenizer(["a cat sees the dog"], return_tensors="pt")
    with torch.no_grad(), run.method.active(model, "r3"):
        expected = model.eval()(**batch).logits
    auto = transformers.AutoModelForSequenceClassification
    base = exports.source_of(run.model) if form == "peft" else folder
    loaded = auto.from_pretrained(base, num_labels=2)
    loaded = peft.PeftModel.from_pretrained(loaded, folder) if form == "peft" else loaded
    assert torch.allclose(loaded.eval()(**batch).logits, expected, atol=1e-5)
    card = (folder / "README.md").read_text()
    record = read_record(dylora / "record.json")
    score = record.scores["validation"]["r3"]["accuracy"]
    for part in ("| task | sst2 |", "DyLora(", f"accuracy (validation) | {score:.4g}", record.run_id, record.key):
        assert part in card
    assert "license" not in card
    if form == "merged":
        assert transformers.pipeline("text-classification", model=str(folder))("a cat sees the dog")[0]["label"]


def test_what_cannot_be_exported_is_one_line(dylora, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    cases = [
        ([str(dylora), "--as", "peft", "--variant", "r9"], "--variant r9: "),
        ([str(dylora), "--as", "merged", "--out", str(tmp_path / "full")], "already exists"),
        ([str(tmp_path), "--as", "merged"], "is not a run folder"),
    ]
    bare = tmp_path / dylora.name
    shutil.copytree(dylora, bare, ignore=shutil.ignore_patterns("adapter*"))
    cases.append(([str(bare), "--as", "merged"], "has no trained weights; run it with save=adapter"))
    for arguments, reason in cases:
        assert export.main(arguments) == 2
        err = capsys.readouterr().err
        assert reason in err and err.count("\n") == 1, err


def test_an_export_needs_no_rows_and_writes_below_the_run(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    cfg = OmegaConf.create(config.repeatable_config(small(tmp_path, "method=lora")))
    cfg.data = {**cfg.data, "source": "local", "dir": "moved"}
    OmegaConf.save(cfg, folder / "config.yaml")
    write_record(folder, made_record())
    monkeypatch.setattr(export, "unwritable", lambda folder: folder)
    assert export.main([str(folder), "--as", "merged"]) == 2
    assert f"{folder} cannot be written: {folder};" in capsys.readouterr().err


def test_a_kept_checkpoint_is_exported(tmp_path):
    record = run_experiment(small(tmp_path, "method=rosa", "train.keep_checkpoints=true"))
    folder = tmp_path / record.run_id
    assert export.main([str(folder), "--as", "merged"]) == 0
    auto = transformers.AutoModelForSequenceClassification
    assert auto.from_pretrained(folder / "merged").config.num_labels == 2
    assert export.main([str(folder), "--as", "peft"]) == 2


def test_a_run_merges_the_highest_scored_rank_as_an_export_does(tmp_path):
    ranks = ("method=dylora", "method.rank_max=4", "method.score_ranks=[1,2]")
    run = small(tmp_path, "task=sst2", *ranks, "save=merged", "train.keep_checkpoints=true")
    record = run_experiment(run)
    assert set(record.facts["update_rank"].values()) == {2}
    folder, out = tmp_path / record.run_id, tmp_path / "exported"
    assert export.main([str(folder), "--as", "merged", "--out", str(out)]) == 0
    for name in ("model.safetensors", "README.md"):
        assert (folder / "merged" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_merged_model_keeps_its_cache_and_generation_defaults(use_cache, tmp_path, capsys):
    folder = shutil.copytree(backbones.folder("gpt2"), tmp_path / "backbone")
    config = json.loads((folder / "config.json").read_text()) | {"use_cache": use_cache}
    (folder / "config.json").write_text(json.dumps(config))
    defaults = {"temperature": 0.6, "do_sample": False, "max_length": 40, "eos_token_id": 0}  # which cannot be saved
    (folder / "generation_config.json").write_text(json.dumps(defaults))
    arguments = f"task=e2e method=lora model.path={folder} save=merged tracker=none output_dir={tmp_path}/runs".split()
    arguments += ["train.max_steps=1", "train.limit_train=8", "train.limit_eval=2", "task.max_new_tokens=4"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    (merged,) = (tmp_path / "runs").glob("*/merged")
    assert f"saved: {merged} (epoch 1, the last)" in out
    assert json.loads((merged / "config.json").read_text())["use_cache"] is use_cache
    content = json.loads((merged / "generation_config.json").read_text())
    assert {name: content.get(name, False) for name in defaults} == defaults
    text = transformers.pipeline("text-generation", model=str(merged))("name : fox", max_new_tokens=3)
    assert text[0]["generated_text"].startswith("name : fox")


def test_the_final_output_names_the_saved_and_the_best_epoch(tmp_path):
    record = Record("run", "key", "cola", "m", "lora", 1, {}, facts={"saved": {"as": "peft", "epoch": 3.0}})
    assert f"saved: {tmp_path / 'peft'} (epoch 3, the last)" in result_table([record], [tmp_path])
    record.facts["saved"]["best_epoch"] = 2.0
    assert "(epoch 3, the last; the best was epoch 2)" in result_table([record], [tmp_path])
    record.facts.clear()
    assert "saved" not in result_table([record], [tmp_path])


@pytest.mark.filterwarnings("ignore")
def test_a_finished_run_is_saved_on_a_later_request(tmp_path):
    method = ("method=lora", "train.max_steps=2")
    folder = tmp_path / run_experiment(small(tmp_path, *method, "save=adapter")).run_id
    for form, name in (("peft", "adapter_config.json"), ("merged", "config.json")):
        run_experiment(small(tmp_path, *method, f"save={form}"))
        assert (folder / form / name).is_file() and (folder / form / "README.md").is_file()
