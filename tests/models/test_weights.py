"""Complete, wrapped and partial checkpoints, and those of other tasks: loaded correctly or refused, and recorded."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
import zoo
from support import composed, small

from rosa_bench import cli, doctor
from rosa_bench.errors import UsageError
from rosa_bench.models.load import load, loading_facts
from rosa_bench.models.roles import freeze_backbone, task_head
from rosa_bench.run import run as run_experiment

CLASSES = [*zoo.ENCODERS, *zoo.DECODERS]
WRAPPERS = {
    "compile": lambda name: f"_orig_mod.{name}",
    "ddp": lambda name: f"module.{name}",
    "lightning": lambda name: f"net.{name}",
    "compile inside ddp": lambda name: f"module._orig_mod.{name}",
    "compiled blocks": lambda name: name.replace(".0.", ".0._orig_mod.", 1).replace(".1.", ".1._orig_mod.", 1),
    "fsdp": lambda name: f"_fsdp_wrapped_module.{name}".replace(".0.", ".0._fsdp_wrapped_module.", 1),
    "checkpointed fsdp": lambda name: name.replace(".1.", ".1._fsdp_wrapped_module._checkpoint_wrapped_module.", 1),
}


def loaded(folder, task: str = "mnli", seed: int = 1, *overrides: str):
    run = composed(f"model.path={folder}", f"task={task}", *overrides)
    return load(run.model, run.task, seed)


def parameters(model) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def same(first, second) -> bool:
    ours, theirs = parameters(first), parameters(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_loads_the_checkpoints_backbone(kind, tmp_path):
    folder = zoo.saved(kind, tmp_path)
    model, _ = loaded(folder)
    tensors = zoo.tensors_of(folder)
    inside = {f"{model.base_model_prefix}.{name}": t for name, t in model.base_model.named_parameters()}
    new = set(loading_facts(model)["newly_initialized"])
    for name, tensor in inside.items():
        there = next((n for n in (name, name.removeprefix(f"{model.base_model_prefix}.")) if n in tensors), None)
        assert (there is not None and torch.equal(tensors[there], tensor)) or name in new
    assert {n for n, _ in model.named_parameters() if n not in inside} <= new | tensors.keys()


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(("kind", "task"), [("roberta", "cola"), ("bert", "cola"), ("llama", "e2e"), ("gpt2", "e2e")])
def test_wrappers_are_stripped_and_recorded(wrapper, kind, task, tmp_path):
    folder = zoo.saved(kind, tmp_path / "plain")
    plain, _ = loaded(folder, task)
    assert "stripped_prefixes" not in loading_facts(plain)
    wrapped = zoo.write_tensors(
        zoo.saved(kind, tmp_path / "wrapped"),
        {WRAPPERS[wrapper](name): tensor for name, tensor in zoo.tensors_of(folder).items()},
    )
    model, _ = loaded(wrapped, task)
    assert same(model, plain)
    stripped = loading_facts(model)["stripped_prefixes"]
    assert stripped and all(count > 0 for count in stripped.values())
    model.save_pretrained(tmp_path / "again")
    plain.save_pretrained(tmp_path / "again plain")
    names = [set(zoo.tensors_of(tmp_path / name)) for name in ("again", "again plain")]
    assert names[0] == names[1]


def test_a_checkpoint_of_torch_compile_has_the_same_loss(tmp_path):
    folder = zoo.saved("gpt2", tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = model(input_ids=ids, labels=ids).loss
    state = torch.compile(model, backend="eager").state_dict()
    assert all(name.startswith("_orig_mod.") for name in state)
    zoo.write_tensors(folder, state)
    with torch.no_grad():
        assert torch.equal(loaded(folder, "e2e")[0](input_ids=ids, labels=ids).loss, wanted)


def test_two_copies_of_a_model_are_refused(tmp_path):
    folder = zoo.saved("roberta", tmp_path)
    tensors = zoo.tensors_of(folder)
    zoo.write_tensors(folder, {f"{who}.{name}": t for who in ("student", "teacher") for name, t in tensors.items()})
    with pytest.raises(UsageError, match=r"holds .* twice, as student\..* and teacher\."):
        loaded(folder)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "deberta-v2", "gpt2", "llama", "bart", "opt"])
@pytest.mark.parametrize("lost", ["embed", "layer 0", "a bias or norm", "all"])
def test_a_missing_weight_of_the_backbone_is_named(kind, lost, tmp_path):
    folder = zoo.saved(kind, tmp_path)
    tensors = zoo.tensors_of(folder)
    base = dict(loaded(folder)[0].base_model.named_parameters())
    held = [name for name in tensors if any(name.endswith(own) for own in base)]
    gone = {
        "embed": [name for name in held if "embed" in name or ".wte." in name][:1],
        "layer 0": [name for name in held if ".0." in name],
        "a bias or norm": [name for name in held if "norm" in name.lower() or "ln_" in name][-1:],
        "all": held,
    }[lost]
    zoo.write_tensors(folder, {name: t for name, t in tensors.items() if name not in gone} | {"other": torch.ones(1)})
    with pytest.raises(UsageError, match=r"lacks \d+ of \d+ weights of \w+: ") as error:
        loaded(folder)
    output = str(error.value)
    assert "\n" not in output and any(name.rpartition("layer")[2] in output for name in gone)


def test_doctor_and_run_give_the_same_message_for_a_partial_checkpoint(tmp_path, capsys):
    folder = zoo.saved("roberta", tmp_path / "model")
    tensors = zoo.tensors_of(folder)
    zoo.write_tensors(folder, {name: t for name, t in tensors.items() if "layer.1.attention.self.query" not in name})
    assert doctor.main([f"model.path={folder}", "tracker=none", f"output_dir={tmp_path}"]) == 2
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1 and "roberta.encoder.layer.1.attention.self.query.bias" in wrong[0]
    assert cli.main([f"model.path={folder}", "tracker=none", f"output_dir={tmp_path}", "train.max_steps=1"]) == 2
    assert wrong[0].split(maxsplit=2)[2] in capsys.readouterr().err


def test_a_shard_without_its_tensors_is_refused(tmp_path):
    folder = zoo.saved("roberta", tmp_path)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    whole, _ = loaded(folder)
    assert same(whole, loaded(zoo.saved("roberta", tmp_path / "one file"))[0])
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    name = next(name for name in index["weight_map"] if name.endswith("layer.1.output.dense.weight"))
    shard = index["weight_map"][name]
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=r"lacks \d+ of \d+ weights of RobertaModel"):
        loaded(folder)


@pytest.mark.parametrize("extra", ["lora_A", "weight_scale", "extra.weight"])
def test_a_tensor_that_a_layer_does_not_use_is_refused(extra, tmp_path):
    """Otherwise an unmerged adapter or quantised weights would be ignored silently."""
    folder = zoo.saved("roberta", tmp_path)
    name = "roberta.encoder.layer.0.attention.self.query"
    zoo.write_tensors(folder, zoo.tensors_of(folder) | {f"{name}.{extra}": torch.ones(2, 2)})
    if extra == "extra.weight":  # a module that the class does not have
        assert loading_facts(loaded(folder)[0])["skipped_tensors"]["count"] > 0
        return
    with pytest.raises(UsageError, match=f"RobertaModel has the layers of {name}.{extra} but does not use"):
        loaded(folder)


def test_unused_tensors_are_recorded(tmp_path):
    folder = zoo.saved("roberta", tmp_path, num_hidden_layers=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    skipped = loading_facts(loaded(folder)[0])["skipped_tensors"]
    assert skipped["count"] == 16 + 5 and any("layer.2." in name for name in skipped["first"])  # and the old LM head


def test_a_weight_of_another_shape_is_refused(tmp_path):
    folder = zoo.saved("roberta", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(UsageError, match=r"another shape for 6 weights of RobertaModel.*is \[64\], not \[48\]"):
        loaded(folder)


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_a_missing_pooler_trains_with_the_head(kind, tmp_path):
    without, with_pooler = zoo.saved(kind, tmp_path / "lm"), zoo.saved(kind, tmp_path / "base", "")
    for folder, missing in ((without, True), (with_pooler, False)):
        model, _ = loaded(folder)
        pooler = [name for name, _ in model.named_parameters() if "pooler" in name]
        new = loading_facts(model)["newly_initialized"]
        assert pooler and (set(pooler) <= set(new)) == missing
        freeze_backbone(model, train_head=True)
        assert all(parameters(model)[name].requires_grad == missing for name in pooler)


def test_a_missing_output_layer_trains_and_is_recorded(tmp_path):
    folder = zoo.saved("llama", tmp_path / "model", "", tie_word_embeddings=False)
    model, _ = loaded(folder, "e2e")
    assert loading_facts(model)["newly_initialized"] == ["lm_head.weight"]
    assert [p.shape for p in task_head(model)] == [model.lm_head.weight.shape]
    run = small(tmp_path, f"model.path={folder}", "task=sciq", "method=lora", "train.max_steps=1")
    record = run_experiment(run)
    assert record.facts["loading"]["newly_initialized"] == ["lm_head.weight"]
    tied, _ = loaded(zoo.saved("llama", tmp_path / "tied", "", tie_word_embeddings=True), "e2e")
    assert not task_head(tied) and not loading_facts(tied).get("newly_initialized")


HEADED = ["roberta", "bert", "distilbert", "electra", "deberta-v2", "mpnet", "modernbert", "bart", "gpt2", "llama"]


@pytest.mark.parametrize("kind", HEADED)
@pytest.mark.parametrize("classes", [3, 5])
def test_an_existing_head_is_reinitialized(kind, classes, tmp_path):
    """The head depends on the seed, not on the checkpoint."""
    names = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT", "X", "Y"][:classes]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    folder = zoo.saved(kind, tmp_path / "headed", "ForSequenceClassification", **labels)
    tensors = zoo.tensors_of(folder)
    model, _ = loaded(folder)
    head = set(parameters(model)) - {f"{model.base_model_prefix}.{n}" for n, _ in model.base_model.named_parameters()}
    assert loading_facts(model)["unused_head"] == sorted(head)
    plain = zoo.saved(kind, tmp_path / "plain", "ForSequenceClassification")
    zoo.write_tensors(plain, {name: t for name, t in tensors.items() if name not in head})
    wanted, _ = loaded(plain)
    assert "unused_head" not in loading_facts(wanted) and same(model, wanted)
    other, _ = loaded(folder, "mnli", 2)
    assert any(not torch.equal(parameters(other)[name], parameters(model)[name]) for name in head)
    assert model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    model.save_pretrained(tmp_path / "again")
    assert head <= set(zoo.tensors_of(tmp_path / "again"))


def test_a_pretrained_part_of_a_head_is_kept(tmp_path):
    """ModernBERT's classifier uses the dense layer of its language model, which the checkpoint contains."""
    folder = zoo.saved("modernbert", tmp_path)
    model, _ = loaded(folder)
    assert torch.equal(model.head.dense.weight, zoo.tensors_of(folder)["head.dense.weight"])
    assert loading_facts(model)["newly_initialized"] == ["classifier.bias", "classifier.weight"]
    assert model.head.dense.weight is task_head(model)[0]


@pytest.mark.parametrize(
    ("kind", "task"), [("roberta", "mnli"), ("gpt2", "mnli"), ("bert", "cola"), ("roberta", "stsb")]
)
def test_a_pipeline_returns_our_labels_and_scores(kind, task, tmp_path):
    import gzip

    folder = zoo.saved(kind, tmp_path / "model", "ForSequenceClassification", num_labels=3)
    run = small(tmp_path, f"model.path={folder}", f"task={task}", "method=lora", "save=merged", "train.max_steps=3")
    record = run_experiment(run)
    done = tmp_path / record.run_id
    config = json.loads((done / "merged" / "config.json").read_text())
    names = run.task.label_names
    assert config["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert config["label2id"] == {name: i for i, name in enumerate(names)}
    split = run.task.scored_splits[0]
    lines = gzip.decompress((done / f"predictions-{split}.jsonl.gz").read_bytes()).splitlines()
    pipe = transformers.pipeline("text-classification", model=str(done / "merged"), device="cpu")
    from rosa_bench.data.source import load_split

    for example, line in list(zip(load_split(run.task, run.data, split, 24).examples, lines, strict=True))[:8]:
        content = json.loads(line)
        inputs = dict(zip(("text", "text_pair"), example.texts, strict=False))
        result = pipe(inputs, truncation=True, max_length=48, top_k=None)
        if run.task.labels:
            assert result[0]["label"] == names[content["prediction"]]
            wanted = torch.tensor(content["logits"]).softmax(0).max().item()
            assert result[0]["score"] == pytest.approx(wanted, abs=1e-4)
        else:
            assert result[0]["score"] == pytest.approx(content["prediction"], abs=1e-4)
