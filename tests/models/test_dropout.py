"""`model.dropout` sets every dropout probability of a forward pass, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers
from support import composed, interrupt, small, without_cost

from rosa_bench.errors import UsageError
from rosa_bench.models import dropout
from rosa_bench.models.load import load
from rosa_bench.records.run_key import config_key
from rosa_bench.run import run as run_experiment

KINDS = ["roberta", "bert", "bart", "gpt2", "opt", "llama"]
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
OTHERS = {
    "albert": {"embedding_size": 16},
    "deberta-v2": {"pooler_hidden_size": 32},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "gpt_neox": {"pad_token_id": 0},
    "modernbert": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "t5": {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 64, "decoder_start_token_id": 0},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
}


def drawn(model, monkeypatch) -> list[float]:
    """The probabilities of all dropouts in a training pass."""
    seen = []
    functional, attention = torch.nn.functional.dropout, torch.nn.functional.scaled_dot_product_attention

    def recorded(input, p=0.5, training=True, inplace=False):
        seen.extend([float(p)] if training else [])
        return functional(input, p, training, inplace)

    def attended(query, key, value, attn_mask=None, dropout_p=0.0, **options):
        seen.append(float(dropout_p))
        return attention(query, key, value, attn_mask, dropout_p, **options)

    monkeypatch.setattr(torch.nn.functional, "dropout", recorded)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
    outputs(model.train())
    monkeypatch.undo()
    return seen


def outputs(model) -> torch.Tensor:
    ids = torch.arange(6, 18).view(2, 6)
    ids[:, -1] = model.config.eos_token_id or 2
    return model(input_ids=ids).logits


def loaded(backbone, kind: str, *overrides: str, task: str = "cola"):
    run = composed(f"model.path={backbone(kind)}", f"task={task}", *overrides)
    return load(run.model, run.task, 0)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_of_a_loaded_backbone(backbone, kind, monkeypatch):
    own = drawn(loaded(backbone, kind), monkeypatch)
    for probability in (0.0, 0.37):
        model = loaded(backbone, kind, f"model.dropout={probability}")
        seen = drawn(model, monkeypatch)
        assert set(seen) == {probability} and len(seen) == len(own)
    without = loaded(backbone, kind, "model.dropout=0")
    assert torch.equal(outputs(without.train()), outputs(without.train()))
    assert torch.equal(outputs(without.train()), outputs(without.eval()))


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_every_place_of_a_language_model(backbone, kind, monkeypatch):
    assert set(drawn(loaded(backbone, kind, "model.dropout=0.2", task="e2e"), monkeypatch)) == {0.2}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_other_classes_are_matched_by_name(kind, probability, monkeypatch):
    config = transformers.AutoConfig.for_model(kind, vocab_size=64, num_labels=2, **(SIZE | OTHERS[kind]))
    dropout.set_in_config(config, probability)
    torch.manual_seed(0)
    cls = transformers.AutoModelForCausalLM if kind == "mpt" else transformers.AutoModelForSequenceClassification
    model = cls.from_config(config)
    dropout.set_in_modules(model, probability)
    assert set(drawn(model, monkeypatch)) <= {probability} and (probability == 0 or drawn(model, monkeypatch))
    if probability == 0:
        assert torch.equal(outputs(model.train()), outputs(model.eval()))


def test_a_probability_that_no_configuration_names(monkeypatch):
    class Written(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.attn_dropout, self.dropout_mode = torch.nn.Dropout(0.1), 0.1, "upscale"
            self.layerdrop, self.use_dropout = 0.1, True

    model = Written()
    assert dropout.set_in_modules(model, 0.3) == 2
    assert (model.inner.p, model.attn_dropout) == (0.3, 0.3)
    assert (model.layerdrop, model.use_dropout, model.dropout_mode) == (0.1, True, "upscale")


def test_layerdrop_is_unchanged(backbone):
    config = loaded(backbone, "bart", "model.dropout=0.5").config
    assert (config.encoder_layerdrop, config.decoder_layerdrop, config.activation_dropout) == (0.0, 0.0, 0.5)


def test_a_method_s_own_dropout_stays(backbone):
    run = composed(f"model.path={backbone('gpt2')}", "task=e2e", "model.dropout=0", "method=lora", "method.dropout=0.1")
    model, _ = load(run.model, run.task, 0)
    run.method.attach(model, 0)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0, 0.1}


def test_a_backbone_without_dropout():
    run = composed("task=synthetic", "model.dropout=0")
    load(run.model, run.task, 0)
    with pytest.raises(UsageError, match=r"model\.dropout=0\.1: \w+ has no dropout"):
        load(dataclasses.replace(run.model, dropout=0.1), run.task, 0)


def test_values_and_keys():
    plain, zero, tenth = (composed(*more) for more in ((), ("model.dropout=0",), ("model.dropout=0.1",)))
    assert len({config_key(run) for run in (plain, zero, tenth)}) == 3
    assert plain.model.dropout is None
    for value in ("1", "-0.1", "half"):
        with pytest.raises(UsageError, match=r"model\.dropout="):
            composed(f"model.dropout={value}")


@pytest.mark.parametrize("overrides", [("task=cola",), ("task=e2e", "task.max_new_tokens=4")])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, overrides):
    options = (*overrides, "model.dropout=0.3", "method=lora", "save=adapter")
    whole = run_experiment(small(tmp_path / "whole", *options))
    interrupt(small(tmp_path / "parts", *options), 4)
    resumed = run_experiment(small(tmp_path / "parts", *options, "resume=must"))
    assert without_cost(resumed) == without_cost(whole)
    for name in ("adapter/adapter.safetensors", f"predictions-{whole.primary['split']}.jsonl.gz"):
        assert (tmp_path / "whole" / whole.run_id / name).read_bytes() == (
            tmp_path / "parts" / whole.run_id / name
        ).read_bytes()
