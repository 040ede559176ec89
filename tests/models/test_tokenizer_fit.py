"""Tokenizer and model of a folder, for many classes: positions, token types, padding, special tokens, vocabulary."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
import zoo
from support import composed, small

from rosa_bench import cli, doctor
from rosa_bench.data.batches import collate
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.evaluation.predict import evaluating
from rosa_bench.models.load import load, loading_facts
from rosa_bench.models.traits import max_length, traits_of
from rosa_bench.run import run as run_experiment

FROM_PADDING = [
    "roberta", "mpnet", "xlm-roberta", "camembert", "data2vec-text", "xlm-roberta-xl", "xmod", "ibert",
    "roberta-prelayernorm", "luke", "longformer", "markuplm",
]  # fmt: skip
UNLIMITED = ("llama", "mistral", "qwen2", "gemma", "gpt_neox", "modernbert", "deberta-v2", "bloom", "funnel")


def loaded(folder, task: str = "mnli"):
    run = composed(f"model.path={folder}", f"task={task}")
    return load(run.model, run.task, 1)


def kinds_and_tasks():
    return [(k, "mnli") for k in [*zoo.ENCODERS, *zoo.DECODERS]] + [(k, "e2e") for k in zoo.DECODERS]


@pytest.mark.parametrize(("kind", "task"), kinds_and_tasks())
def test_padding_changes_nothing_and_positions_are_all_used(kind, task, tmp_path):
    model, tokenizer = loaded(zoo.saved(kind, tmp_path), task)
    run = composed(f"task={task}")
    rows = encode_split(run.task, tokenizer, load_split(run.task, run.data, "train", 6), max_length(model, 64))
    with evaluating(model):
        batch = collate(rows, tokenizer.pad_token_id)
        labels = batch.pop("labels")
        together = model(**batch).logits
        for i, row in enumerate(rows):
            single = collate([row], tokenizer.pad_token_id)
            single.pop("labels")
            alone = model(**single).logits[0]
            assert torch.allclose(together[i][: len(row.input_ids)] if task == "e2e" else together[i], alone, atol=1e-5)
        assert len(labels) == len(rows)
        longest = max_length(model, 10_000)
        assert max_length(model, 20) == 20
        if kind in ("bloom", "funnel"):
            assert longest == 10_000
            return
        assert longest == (62 if kind in FROM_PADDING else 64)
        assert reads(model, longest)
        if kind not in (*UNLIMITED, "longformer"):  # rotary and relative positions go on, as far as they were trained
            assert not reads(model, longest + 1)


def reads(model, length: int) -> bool:
    ids = torch.full((1, length), 6)
    ids[0, -1] = 2
    try:
        return bool(torch.isfinite(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits).all())
    except (IndexError, RuntimeError):
        return False


@pytest.mark.parametrize("kind", FROM_PADDING)
def test_positions_counted_from_padding_are_known(kind, tmp_path):
    traits = traits_of(loaded(zoo.saved(kind, tmp_path))[0])
    assert traits.from_padding and traits.first_position == 2


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "xlm-roberta"])
def test_padding_that_tokenizer_and_model_disagree_on_is_refused(kind, tmp_path):
    """The model counts positions from the padding token of its configuration, which here is an ordinary word."""
    folder = zoo.saved(kind, tmp_path, pad_token_id=7)
    with pytest.raises(UsageError, match=r"counts positions from its padding token, 7 .* but 1 \(<pad>\)"):
        loaded(folder)


@pytest.mark.parametrize("kind", zoo.REFUSED)
def test_a_class_that_cannot_read_right_padding_is_refused(kind, tmp_path, capsys):
    folder = zoo.saved(kind, tmp_path / "model")
    assert doctor.main([f"model.path={folder}", "tracker=none", f"output_dir={tmp_path}"]) == 2
    assert zoo.REFUSED[kind][1] in capsys.readouterr().out
    assert cli.main([f"model.path={folder}", "tracker=none", f"output_dir={tmp_path}", "train.max_steps=1"]) == 2
    assert zoo.REFUSED[kind][1] in capsys.readouterr().err


def test_a_decoder_that_is_not_causal_is_refused(tmp_path):
    folder = zoo.saved("xlnet", tmp_path, "ForCausalLM", zoo.byte_level(eos_token="</s>", pad_token="<pad>"))
    with pytest.raises(UsageError, match=r"XLNetLMHeadModel is not causal"):
        loaded(folder, "e2e")


@pytest.mark.parametrize(
    ("kind", "types", "passed"),
    [
        ("gpt2", None, False),
        ("bert", 2, True),
        ("bert", 1, False),
        ("roberta", 1, False),
        ("roberta", 2, True),
        ("distilbert", None, False),
        ("modernbert", None, False),
        ("electra", 2, True),
        ("deberta-v2", 0, False),
        ("openai-gpt", None, False),
        ("funnel", None, True),
        ("bart", None, False),
        ("albert", 2, True),
    ],
)
def test_token_types_are_passed_to_models_that_have_them(kind, types, passed, tmp_path):
    tokenizer = zoo.framed(zoo.byte_level(**zoo.FRAMED, model_input_names=["input_ids", "token_type_ids"]))
    more = {} if types is None else {"type_vocab_size": types}
    model, read_back = loaded(zoo.saved(kind, tmp_path, tokenizer=tokenizer, **more))
    run = composed("task=mnli")
    (row,) = encode_split(run.task, read_back, load_split(run.task, run.data, "train", 1), 40)
    assert (row.token_type_ids is not None) == passed
    assert ("token_type_ids" in loading_facts(model).get("tokenizer", {})) == (not passed)
    if passed:
        assert set(row.token_type_ids) == {0, 1}
    read_back.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert ("token_type_ids" in again("a", "b")) == passed


def test_a_language_model_s_loss_does_not_depend_on_the_tokenizer_s_token_types(tmp_path):
    losses = []
    for names in (["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]):
        tokenizer = zoo.byte_level(eos_token="</s>", pad_token="<pad>", model_input_names=names)
        folder = zoo.saved("gpt2", tmp_path / str(len(names)), tokenizer=tokenizer)
        for task in ("cola", "e2e"):
            run = small(tmp_path / f"runs {len(names)}", f"model.path={folder}", f"task={task}", "train.max_steps=1")
            run_part = run.task.kind.name == "generate"
            model, read_back = load(run.model, run.task, 1)
            rows = encode_split(run.task, read_back, load_split(run.task, run.data, "train", 8), 40)
            with evaluating(model):
                losses.append((task, run_part, float(model(**collate(rows, 1)).loss)))
    assert losses[:2] == losses[2:]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "mistral"])
def test_a_missing_pad_token_is_filled_in(kind, tmp_path):
    tokenizer = zoo.byte_level(eos_token="</s>", unk_token="<unk>")
    model, read_back = loaded(zoo.saved(kind, tmp_path / "1", tokenizer=tokenizer))
    assert read_back.pad_token == "</s>" and model.config.pad_token_id == 2
    assert loading_facts(model)["tokenizer"]["pad_token"] == "</s> (the tokenizer has none)"
    ended = zoo.framed(zoo.byte_level(eos_token="</s>", unk_token="<unk>"))  # a text that ends in padding has no end
    model, read_back = loaded(zoo.saved(kind, tmp_path / "2", tokenizer=ended))
    assert read_back.pad_token == "<unk>"
    model, read_back = loaded(zoo.saved(kind, tmp_path / "3", tokenizer=ended, pad_token_id=1))
    assert read_back.pad_token == "<pad>"  # what the model's configuration calls it


def test_missing_start_and_end_tokens_come_from_the_model_s_configuration(tmp_path):
    folder = zoo.saved("gpt2", tmp_path, tokenizer=zoo.byte_level(pad_token="<pad>"), bos_token_id=0, eos_token_id=2)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert not {"bos_token", "eos_token"} & {name for name, value in tokenizer.items() if value}
    model, read_back = loaded(folder, "e2e")
    assert (read_back.bos_token, read_back.eos_token) == ("<s>", "</s>")
    assert set(loading_facts(model)["tokenizer"]) == {"bos_token", "eos_token"}
    run = composed("task=e2e")
    row = encode_split(run.task, read_back, load_split(run.task, run.data, "train", 1), 400)[0]
    assert row.input_ids[-1] == 2
    folder = zoo.saved("llama", tmp_path / "padding", tokenizer=zoo.byte_level(pad_token="<pad>"), bos_token_id=1)
    assert loaded(folder, "e2e")[1].bos_token is None  # a token with another role starts no text
    folder = zoo.saved("gpt2", tmp_path / "word", tokenizer=zoo.byte_level(pad_token="<pad>"), eos_token_id=9)
    _, read_back = loaded(folder, "e2e")
    assert read_back.eos_token is None  # an ordinary token ends no text
    with pytest.raises(UsageError, match="no end-of-text token"):
        encode_split(run.task, read_back, load_split(run.task, run.data, "train", 1), 400)


@pytest.mark.parametrize("kind", ["roberta", "bert", "xlm-roberta", "bart", "gpt2"])
def test_tokens_without_an_embedding_are_refused(kind, tmp_path):
    tokenizer = zoo.tokenizer_for(kind)
    rows = len(tokenizer)
    tokenizer.add_tokens(["[NEW]"])
    with pytest.raises(
        UsageError, match=rf"the model's {rows} embeddings lack 1 token of the tokenizer \('\[NEW\]' ...\)"
    ):
        loaded(zoo.saved(kind, tmp_path / "few", tokenizer=tokenizer, vocab_size=rows))
    loaded(zoo.saved(kind, tmp_path / "more", tokenizer=tokenizer, vocab_size=rows + 9))


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_folder_without_a_vocabulary_is_refused(kind, tmp_path):
    """`transformers` then reads every word as unknown."""
    folder = zoo.saved(kind, tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(UsageError, match="its tokenizer has special tokens only; copy its tokenizer files"):
        loaded(folder)


@pytest.mark.parametrize("kind", ["roberta", "bert", "electra", "modernbert", "bart"])
def test_an_encoder_without_its_special_tokens_is_refused(kind, tmp_path):
    with pytest.raises(UsageError, match=r"adds no start token \(<s>\) to a text"):
        loaded(zoo.saved(kind, tmp_path, tokenizer=zoo.byte_level(**zoo.FRAMED)))


def test_a_missing_separator_or_end_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"adds no separator token \(</s>\)"):
        loaded(zoo.saved("bert", tmp_path / "1", tokenizer=zoo.started(zoo.byte_level(**zoo.FRAMED))))
    unframed = zoo.started(zoo.byte_level(bos_token="<s>", pad_token="<pad>"))
    with pytest.raises(UsageError, match="BartForSequenceClassification reads the end token 2"):
        loaded(zoo.saved("bart", tmp_path / "2", tokenizer=unframed))


def test_a_padding_side_of_the_tokenizer_changes_nothing(tmp_path):
    scores = []
    for side in ("left", "right"):
        tokenizer = zoo.byte_level(eos_token="</s>", pad_token="<pad>", padding_side=side)
        folder = zoo.saved("llama", tmp_path / side, tokenizer=tokenizer)
        run = small(tmp_path / f"{side} runs", f"model.path={folder}", "method=lora", "train.max_steps=2")
        scores.append(run_experiment(run).scores)
    assert scores[0] == scores[1]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt", "gpt_neox"])
def test_weights_in_bf16_are_read_with_their_rounding(kind, tmp_path):
    folder = zoo.saved(kind, tmp_path)
    zoo.write_tensors(folder, {name: t.bfloat16() for name, t in zoo.tensors_of(folder).items()})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    run = composed(f"model.path={folder}", "task=e2e", "model.dtype=bf16", "train.precision=bf16")
    assert torch.bfloat16 in {p.dtype for p in load(run.model, run.task, 1)[0].parameters()}


def test_damaged_weights_are_refused(tmp_path):
    folder = zoo.saved("roberta", tmp_path)
    tensors = zoo.tensors_of(folder)
    tensors["roberta.encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    with pytest.raises(UsageError, match="are not finite numbers; its weights are damaged"):
        loaded(zoo.write_tensors(folder, tensors))
