"""Adapters: parameter counts against closed forms and the papers, and the function of each variant."""

from __future__ import annotations

import backbones
import pytest
import torch
import transformers
from classes import made, texts
from support import composed, prepared, small, steps

from rosa_bench.data.batches import collate
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict
from rosa_bench.methods.adapter import Adapter
from rosa_bench.modules.placement import layers_of, norms_of
from rosa_bench.records.run_key import config_key
from rosa_bench.run import run as run_experiment

VARIANTS = ["houlsby", "pfeiffer", "lora_l"]
EACH = pytest.mark.parametrize("variant", VARIANTS)
TOKENS = {"input_ids": torch.arange(5, 32).view(3, 9)}


def count(kind: str, **options) -> int:
    model = backbones.outline(kind)
    Adapter(train_head=False, **options).attach(model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def closed_form(kind: str, variant: str, bottleneck: int) -> int:
    """LoRA's formula, section 5.1: adapters times (2 d r + r + d), and 2 d for every LayerNorm that trains."""
    width, layers = {"roberta_large": (1024, 24), "gpt2_medium": (1024, 24), "gpt2_large": (1280, 36)}[kind]
    adapters = layers * (2 if variant == "houlsby" else 1)
    norms = layers if variant == "lora_l" else 0
    return adapters * (2 * width * bottleneck + bottleneck + width) + norms * 2 * width


@pytest.mark.parametrize(
    "kind, variant, bottleneck, printed",
    [
        ("gpt2_medium", "lora_l", 6, 0.37),  # LoRA's table 3
        ("gpt2_medium", "lora_l", 224, 11.09),
        ("gpt2_large", "lora_l", 8, 0.88),
        ("gpt2_large", "lora_l", 248, 23.00),
        ("gpt2_medium", "houlsby", 112, 11.06),  # printed as 11.09, which no bottleneck gives
        ("roberta_large", "houlsby", 8, 0.84),  # printed as 0.8M in table 2
        ("roberta_large", "pfeiffer", 16, 0.81),  # 0.8M
    ],
)
def test_counts_of_the_papers(kind, variant, bottleneck, printed):
    result = count(kind, variant=variant, bottleneck=bottleneck)
    assert result == closed_form(kind, variant, bottleneck)
    assert round(result / 1e6, 2) == printed


def test_no_bottleneck_gives_the_count_printed_for_adapter_h():
    result = {round(closed_form("gpt2_medium", "houlsby", b) / 1e6, 2) for b in range(1, 300)}
    assert 11.06 in result and 11.09 not in result


def loaded(folder) -> transformers.PreTrainedModel:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.config.pad_token_id = 1
    return model.eval()


def spoken(model) -> None:
    """Give every adapter a nonzero output."""
    draw = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if ".up." in name or ".norm." in name:
            p.data.normal_(0.3, 0.2, generator=draw)


@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2"])
@EACH
def test_a_layer_computes_the_papers_formula(backbone, kind, variant):
    """The first layer against the formula, evaluated with the backbone's own modules."""
    model, plain = loaded(backbone(kind)), loaded(backbone(kind))
    Adapter(variant=variant, bottleneck=5, activation="tanh").attach(model, seed=1)
    spoken(model)
    bottlenecks = [m for m in layers_of(model)[0].modules() if hasattr(m, "down")]
    assert len(bottlenecks) == (2 if variant == "houlsby" else 1)

    def adapted(index: int, x: torch.Tensor) -> torch.Tensor:
        a = bottlenecks[index]
        return x + torch.tanh(x @ a.down.weight.T + a.down.bias) @ a.up.weight.T + a.up.bias

    x = torch.randn(2, 7, 32)
    layer = layers_of(plain)[0]
    if kind == "gpt2":
        attention = layer.attn(layer.ln_1(x))[0]
        attention = adapted(0, attention) if variant == "houlsby" else attention
        after = x + attention
        mlp = layer.mlp(layer.ln_2(after))
        expected = after + (adapted(1, mlp) if variant == "houlsby" else mlp)
        expected = adapted(0, expected) if variant == "pfeiffer" else expected
    else:
        attention = layer.attention.output.dense(layer.attention.self(x)[0])
        attention = adapted(0, attention) if variant == "houlsby" else attention
        after = layer.attention.output.LayerNorm(attention + x)
        mlp = layer.output.dense(layer.intermediate(after))
        total = (adapted(1, mlp) if variant == "houlsby" else mlp) + after
        normed = layer.output.LayerNorm(total)
        added = adapted(0, normed) - normed if variant == "pfeiffer" else 0
        expected = layer.output.LayerNorm(total + added)
    if variant == "lora_l":
        norm = next(m for m in layers_of(model)[0].modules() if hasattr(m, "norm")).norm
        normed = torch.nn.functional.layer_norm(expected, (32,), norm.weight, norm.bias)
        expected = expected + adapted(0, normed) - normed
    assert torch.allclose(layers_of(model)[0](x), expected, atol=1e-5)
    assert not torch.allclose(layers_of(plain)[0](x), expected, atol=1e-2)


@pytest.mark.parametrize("name", ["roberta_mini", "gpt2_mini"])
@EACH
def test_every_variant_starts_at_the_backbone_and_learns(name, variant):
    run, model, _, rows = prepared("adapter", name, f"method.variant={variant}")
    plain = prepared("full", name)[1]
    with predict.evaluating(model), predict.evaluating(plain):
        batch = collate(rows, pad_id=1)
        assert torch.allclose(model(**batch).logits, plain(**batch).logits, atol=1e-5)
    losses = steps(run, model, rows, 20, 5e-3)
    assert losses[-1] < 0.8 * losses[0]


@EACH
def test_every_variant_runs_and_saves(tmp_path, variant):
    record = run_experiment(small(tmp_path, "method=adapter", f"method.variant={variant}", "save=adapter"))
    assert record.method == f"adapter_{variant}" and record.status == "done"
    assert (tmp_path / record.run_id / "adapter" / "adapter.safetensors").is_file()


def test_lower_layers_can_be_skipped():
    _, model, _, _ = prepared("adapter", "gpt2_mini", "method.skip_layers=3")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.startswith("transformer.h.3.") for name in trained)
    with pytest.raises(UsageError, match="skip_layers=4 leaves none"):
        prepared("adapter", "gpt2_mini", "method.skip_layers=4")


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer"])
def test_init_normal_draws_both_maps_as_lora_s_code_does(variant, backbone):
    """N(0, 0.02^2) for weights and zero for biases; the method declares that it does not start at the backbone."""
    model = loaded(backbone("roberta"))
    method = Adapter(variant=variant, bottleneck=64, init="normal", activation="silu")
    method.attach(model, seed=1)
    maps = [m for m in model.modules() if hasattr(m, "down")]
    assert len(maps) == (4 if variant == "houlsby" else 2)
    for weights in ([m.down.weight for m in maps], [m.up.weight for m in maps]):
        values = torch.cat([w.detach().flatten() for w in weights])
        error = 0.02 / (2 * values.numel()) ** 0.5  # of a deviation estimated from so many values
        assert abs(values.std() - 0.02) < 4 * error and abs(values.mean()) < 6 * error
    assert not any(linear.bias.any() for m in maps for linear in (m.down, m.up))
    x = torch.randn(3, 32)
    h = x @ maps[0].down.weight.T
    assert torch.allclose(maps[0](x), (h * torch.sigmoid(h)) @ maps[0].up.weight.T, atol=1e-6)
    assert not method.exact_at_start and Adapter().exact_at_start
    assert not torch.allclose(model(**TOKENS).logits, loaded(backbone("roberta"))(**TOKENS).logits, atol=1e-6)


def test_the_default_init_keeps_the_keys_of_finished_runs():
    plain = composed("method=adapter")
    assert config_key(composed("method=adapter", "method.init=zero")) == config_key(plain)
    assert config_key(composed("method=adapter", "method.init=normal")) != config_key(plain)
    for method in ("rosa", "lora", "relora"):
        plain = composed(f"method={method}", "model=gpt2_mini", "task=e2e")
        fused, parts = (
            config_key(composed(f"method={method}", "model=gpt2_mini", "task=e2e", f"method.fused={value}"))
            for value in ("true", "false")
        )
        assert parts == config_key(plain) != fused


def test_norms_train_on_request():
    _, model, _, _ = prepared("adapter", "roberta_mini", "method.norms=true", "method.variant=pfeiffer")
    norms = [p for norm in norms_of(model) for p in norm.parameters()]
    assert len(norms) == 2 * (1 + 2 * 4) and all(p.requires_grad for p in norms)


def test_a_layer_may_return_a_list():
    model, batch = made("openai_gpt").eval(), texts()
    before = model(**batch).logits
    Adapter(variant="lora_l").attach(model)
    assert torch.equal(model(**batch).logits, before)
    spoken(model)
    assert not torch.allclose(model(**batch).logits, before, atol=1e-2)


def test_other_families_support_only_the_generic_variant(backbone):
    model = loaded(backbone("llama"))
    Adapter(variant="lora_l").attach(model)
    with pytest.raises(UsageError, match="llama"):
        Adapter(variant="houlsby").attach(loaded(backbone("llama")))
