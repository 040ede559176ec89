"""Query, key and value in fused layers, checked by the attention's gradients; and the target `all`."""

from __future__ import annotations

import pytest
import torch
from classes import CLASSES, made, texts
from torch import nn
from transformers.pytorch_utils import Conv1D

from rosa_bench import methods
from rosa_bench.errors import UsageError
from rosa_bench.methods.dylora import DyLora
from rosa_bench.methods.lora import Lora
from rosa_bench.methods.rosa import Rosa
from rosa_bench.models.roles import find_sites, role_of, skipped_weights, weight_IO
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.system.console import warn_once

FUSED = [
    "gpt2", "openai_gpt", "gpt_neox", "gpt_neox_japanese", "codegen", "gpt_bigcode", "gpt_bigcode_multi_query", "bloom",
    "falcon", "falcon_multi_query", "falcon_grouped", "mpt", "phi3", "persimmon", "modernbert", "deberta",
]  # fmt: skip
OTHER_SIZE = [("gpt2", "transformer.h.0.attn.c_attn"), ("llama", "model.layers.0.self_attn.q_proj")]
WHOLE = sorted(CLASSES.keys() - {"mixtral", "mamba", "qwen3_next"})  # of which `all` leaves nothing out


def gradient(model: nn.Module, module: nn.Module, tokens: int) -> torch.Tensor:
    """The outputs [O] of a layer at the first token that affect the backbone's output at the last token."""
    outputs: list[torch.Tensor] = []

    def cut(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        outputs.append(output.detach().requires_grad_(True))
        return outputs[0]

    handle = module.register_forward_hook(cut)
    last = model.base_model(input_ids=torch.arange(7, 7 + tokens)[None]).last_hidden_state[0, -1]
    handle.remove()
    weights = torch.randn(len(last), generator=torch.Generator().manual_seed(1), dtype=last.dtype)
    (result,) = torch.autograd.grad(last @ weights, outputs)
    return result.reshape(tokens, -1)[0] != 0


@pytest.mark.parametrize("kind", FUSED)
def test_roles_in_a_fused_map_are_those_the_attention_uses(kind):
    """A single token's output depends only on its value, a later token's on the first one's key and value."""
    model = made(kind).double()
    sites = [site for site in find_sites(model, ["q", "k", "v"]) if ".1." in site.name]
    assert [site.role for site in sites if site.role in "qkv"] and len({site.name for site in sites}) == 1
    module = model.get_submodule(sites[0].name)
    value, key_or_value = gradient(model, module, 1), gradient(model, module, 3)
    expected = {"q": ~key_or_value, "k": key_or_value & ~value, "v": value}
    for site in sites:
        mine = torch.zeros(len(value))
        site.put(mine, torch.ones(site.width))
        assert torch.equal(mine.bool(), expected[site.role])
        assert torch.equal(site.spread(torch.ones(site.width), len(value)), mine)


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("role", ["q", "k", "v"])
def test_a_role_adapts_only_its_own_outputs(kind, role):
    model, plain = made(kind), made(kind)
    Lora(rank=2, targets=[role]).attach(model, seed=1)
    for module, site in lowrank_sites(model):
        module.B[site.role].data.normal_()
        x = torch.randn(3, module.A[site.role].shape[0])
        changed = (module(x) - plain.get_submodule(site.name)(x)).abs().amax(0) > 0
        mine = torch.zeros(len(changed))
        site.put(mine, torch.ones(site.width))
        assert torch.equal(changed, mine.bool())


@pytest.mark.parametrize("kind", WHOLE)
def test_all_is_every_linear_map_of_the_layers(kind):
    model = made(kind)
    sites = find_sites(model, ["all"])
    maps = {
        f"{model.base_model_prefix}.{name}".removeprefix(".")
        for name, module in model.base_model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and any(part.isdigit() for part in name.split("."))
    }
    assert {site.name for site in sites} == maps and len({site.label for site in sites}) == len(sites)
    assert not skipped_weights(model, sites)
    for name in maps:
        covered = torch.zeros(weight_IO(model.get_submodule(name)).shape[1])
        for site in sites:
            if site.name == name:
                site.put(covered, site.take(covered) + 1)
        assert (covered == 1).all()


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("method", [Lora(targets=["all"]), DyLora(targets=["all"]), Rosa(targets=["all"], rank=3)])
def test_every_class_trains_and_merges(kind, method):
    model, batch = made(kind), texts()
    before = model(**batch).logits.detach()
    labels = batch["input_ids"] if model.get_output_embeddings() is not None else torch.tensor([0, 1])
    method.attach(model, seed=1)
    assert torch.allclose(model(**batch).logits, before, atol=1e-4)
    model(**batch, labels=labels).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    for module, site in lowrank_sites(model):
        module.B[site.role].data.add_(0.05 * torch.randn_like(module.B[site.role]))
    with torch.no_grad():
        trained = model(**batch).logits
        methods.merge(model)
        assert torch.allclose(model(**batch).logits, trained, atol=1e-4) and not torch.allclose(trained, before)


def test_weights_skipped_by_all_are_reported_and_recorded(capsys):
    warn_once.cache_clear()
    model = made("mixtral")
    method = Lora(targets=["all"])
    method.attach(model)
    experts = {f"model.layers.*.mlp.experts.{name}_proj": 2 for name in ("gate_up", "down")}
    assert method.facts(model, {})["skipped_weights"] == experts | {"model.layers.*.mlp.gate.weight": 2}
    assert "targets=[all] skips 6 weights: model.layers.*.mlp" in capsys.readouterr().err
    assert not Lora(targets=["q"]).facts(made("mixtral"), {})


def test_an_unknown_layout_is_refused_except_for_all():
    model = made("gpt_neox")
    model.config.model_type = "gpt_neox_of_somebody"
    named = r"in gpt_neox.layers.0.attention.query_key_value in .* method=peft method.type=LORA "
    with pytest.raises(UsageError, match=named + r"method.config.target_modules=\[query_key_value\]"):
        find_sites(model, ["q"])
    assert [s.stop for s in find_sites(model, ["all"]) if s.role == "other"] == [96, 96]
    with pytest.raises(UsageError, match=r"fuses projections in model.layers.1.linear_attn.in_proj_qkvz"):
        find_sites(made("qwen3_next"), ["q", "v"])


@pytest.mark.parametrize(
    ("kind", "name"), [("gpt2", "transformer.h.0.attn.c_attn"), ("llama", "model.layers.0.self_attn.q_proj")]
)
def test_a_map_of_another_size_than_the_configuration_s_is_refused(kind, name):
    model = made(kind)
    old = model.get_submodule(name)
    model.set_submodule(name, Conv1D(128, 32) if isinstance(old, Conv1D) else nn.Linear(32, 64))
    with pytest.raises(UsageError, match=f"fuses projections in {name}"):
        find_sites(model, ["q"])


def test_a_module_in_two_places_is_wrapped_in_both():
    model = made("llama")
    layers = model.model.layers
    layers[1].self_attn = layers[0].self_attn
    Lora(targets=["q"]).attach(model)
    assert layers[1].self_attn.q_proj is layers[0].self_attn.q_proj and len(list(lowrank_sites(model))) == 1


def test_two_modules_with_one_weight_are_refused():
    model = made("llama")
    first, second = (layer.self_attn.q_proj for layer in model.model.layers)
    second.weight = first.weight
    with pytest.raises(UsageError, match=r"layers.0.self_attn.q_proj and .*layers.1.self_attn.q_proj share one"):
        Lora(targets=["q"]).attach(model)


def test_a_backbone_that_reads_weights_itself_is_refused():
    with pytest.raises(UsageError, match="reads weights of adapted modules directly"):
        Lora(targets=["all"]).attach(made("mamba"))


def test_roles_of_finished_runs_stay():
    assert role_of("roberta.encoder.layer.0.attention.self.query") == "q"
    labels = [site.label for site in find_sites(made("gpt2"), ["all"])][:6]
    names = [
        "attn.c_attn:q",
        "attn.c_attn:k",
        "attn.c_attn:v",
        "attn.c_proj:o",
        "mlp.c_fc:ffn_in",
        "mlp.c_proj:ffn_out",
    ]
    assert labels == [f"transformer.h.0.{name}" for name in names]
