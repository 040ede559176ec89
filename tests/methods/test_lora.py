"""LoRA against `peft` and loralib with the same weights, and against the dense product."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from support import composed, prepared, small, steps

from rosa_bench import methods
from rosa_bench.errors import UsageError
from rosa_bench.methods.lora import Lora
from rosa_bench.models.roles import find_sites
from rosa_bench.modules.lowrank import LowRank, lowrank_sites
from rosa_bench.records import checkpoints
from rosa_bench.records.run_key import config_key
from rosa_bench.run import run as run_experiment

TARGETS = {"roberta": ["query", "value"], "gpt2": ["c_attn"]}


def loaded(folder) -> transformers.PreTrainedModel:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.config.pad_token_id = 1
    return model.eval()


def randomized(model) -> None:
    generator = torch.Generator().manual_seed(5)
    for module, site in lowrank_sites(model):
        module.B[site.role].data.normal_(0, 0.1, generator=generator)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")  # peft 0.21 on transformers 5.23
def test_logits_and_gradients_equal_those_of_peft(backbone):
    peft = pytest.importorskip("peft")
    ours = loaded(backbone("roberta"))
    theirs = loaded(backbone("roberta"))
    theirs.load_state_dict(ours.state_dict())
    Lora(rank=4, alpha=12.0).attach(ours, seed=1)
    randomized(ours)
    config = peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=TARGETS["roberta"], lora_dropout=0.0, task_type="SEQ_CLS"
    )
    theirs = peft.get_peft_model(theirs, config).eval()
    pairs = []
    for module, site in lowrank_sites(ours):
        layer = theirs.get_submodule(f"base_model.model.{site.name}")
        layer.lora_A["default"].weight.data.copy_(module.A[site.role].data.T)
        layer.lora_B["default"].weight.data.copy_(module.B[site.role].data.T)
        pairs.append((module, site, layer))
    batch = {"input_ids": torch.randint(5, 40, (3, 9)), "labels": torch.tensor([0, 1, 1])}
    mine, other = ours(**batch), theirs(**batch)
    assert torch.allclose(mine.logits, other.logits, atol=1e-6)
    mine.loss.backward()
    other.loss.backward()
    assert pairs
    for module, site, layer in pairs:
        assert torch.allclose(module.A[site.role].grad.T, layer.lora_A["default"].weight.grad, atol=1e-7)
        assert torch.allclose(module.B[site.role].grad.T, layer.lora_B["default"].weight.grad, atol=1e-7)


def merged_linear(loralib, plain, rank: int, alpha: int):
    """loralib's fused layer with the weights of a Conv1D: query and value are adapted, the key is not."""
    inputs, outputs = plain.weight.shape
    layer = loralib.MergedLinear(
        inputs,
        outputs,
        r=rank,
        lora_alpha=alpha,
        enable_lora=[True, False, True],
        fan_in_fan_out=True,
        merge_weights=False,
    )
    layer.weight.data.copy_(plain.weight.data)
    layer.bias.data.copy_(plain.bias.data)
    return layer


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_logits_and_gradients_equal_those_of_loralib(backbone, kind):
    loralib = pytest.importorskip("loralib")
    ours, theirs = loaded(backbone(kind)), loaded(backbone(kind))
    theirs.load_state_dict(ours.state_dict())
    Lora(rank=3, alpha=12.0).attach(ours, seed=1)
    randomized(ours)
    pairs = []
    for name, module in [(n, m) for n, m in ours.named_modules() if isinstance(m, LowRank)]:
        plain = theirs.get_submodule(name)
        if kind == "gpt2":
            layer = merged_linear(loralib, plain, 3, 12)
        else:
            layer = loralib.Linear(plain.in_features, plain.out_features, r=3, lora_alpha=12, merge_weights=False)
            layer.weight.data.copy_(plain.weight.data)
            layer.bias.data.copy_(plain.bias.data)
        layer.lora_A.data.copy_(torch.cat([A.data for A in module.A.values()], dim=1).T)
        layer.lora_B.data.copy_(torch.cat([B.data.T for B in module.B.values()]))
        theirs.set_submodule(name, layer)
        pairs.append((module, layer))
    batch = {"input_ids": torch.randint(5, 40, (3, 9)), "labels": torch.tensor([0, 1, 1])}
    mine, other = ours(**batch), theirs(**batch)
    assert torch.allclose(mine.logits, other.logits, atol=1e-6)
    mine.loss.backward()
    other.loss.backward()
    assert len(pairs) == (2 if kind == "gpt2" else 4)
    for module, layer in pairs:
        assert torch.allclose(torch.cat([A.grad for A in module.A.values()], dim=1).T, layer.lora_A.grad, atol=1e-7)
        assert torch.allclose(torch.cat([B.grad.T for B in module.B.values()]), layer.lora_B.grad, atol=1e-7)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")  # peft 0.21 on transformers 5.23
def test_fused_logits_and_gradients_equal_those_of_peft(backbone):
    """`peft` has one pair for `c_attn`, of twice the rank, with zeros for outputs that a role does not change."""
    peft = pytest.importorskip("peft")
    ours, theirs = loaded(backbone("gpt2")), loaded(backbone("gpt2"))
    theirs.load_state_dict(ours.state_dict())
    Lora(rank=3, alpha=12.0).attach(ours, seed=1)
    randomized(ours)
    config = peft.LoraConfig(
        r=6, lora_alpha=24, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.0, task_type="SEQ_CLS"
    )
    theirs = peft.get_peft_model(theirs, config).eval()
    batch = {"input_ids": torch.randint(5, 40, (3, 9)), "labels": torch.tensor([0, 1, 1])}
    pairs = []
    for name, module in [(n, m) for n, m in ours.named_modules() if isinstance(m, LowRank)]:
        layer = theirs.get_submodule(f"base_model.model.{name}")
        A, B = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
        A.copy_(torch.cat([module.A["q"].data, module.A["v"].data], dim=1).T)
        B.zero_()
        for i, site in enumerate(module.sites):
            B[site.start : site.stop, 3 * i : 3 * i + 3] = module.B[site.role].data.T
        pairs.append((module, layer))
    mine, other = ours(**batch), theirs(**batch)
    assert torch.allclose(mine.logits, other.logits, atol=1e-6)
    mine.loss.backward()
    other.loss.backward()
    assert len(pairs) == 2
    for module, layer in pairs:
        A, B = layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad
        for i, site in enumerate(module.sites):
            rows = slice(3 * i, 3 * i + 3)
            assert torch.allclose(module.A[site.role].grad.T, A[rows], atol=1e-7)
            assert torch.allclose(module.B[site.role].grad.T, B[site.start : site.stop, rows], atol=1e-7)


@pytest.mark.parametrize("bias", ["none", "adapted", "all"])
@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_trained_biases(backbone, kind, bias):
    model = loaded(backbone(kind))
    every = {name for name, _ in model.base_model.named_parameters(prefix=model.base_model_prefix) if "bias" in name}
    Lora(targets=["v"], bias=bias).attach(model, seed=1)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")}
    trained = {name.replace(".base.", ".") for name in trained if not name.startswith(("classifier", "score"))}
    adapted = {name for name in every if name.endswith(("c_attn.bias", "value.bias"))}
    assert trained == {"none": set(), "adapted": adapted, "all": every}[bias]


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "bert", "llama"])
def test_merging_equals_the_dense_product(backbone, kind):
    model = loaded(backbone(kind))
    Lora(rank=3, targets=["all"]).attach(model, seed=1)
    randomized(model)
    batch = {"input_ids": torch.randint(5, 40, (3, 9))}
    expected = model(**batch).logits
    dense = {}
    for module, site in lowrank_sites(model):
        dense[site.label] = (
            (module.weight_of(site) + module.scale * module.A[site.role] @ module.B[site.role]).detach().clone()
        )
    sites = [site for _, site in lowrank_sites(model)]
    methods.merge(model)
    assert torch.allclose(model(**batch).logits, expected, atol=2e-5)
    assert not list(lowrank_sites(model))
    from rosa_bench.models.roles import weight_IO

    for site in sites:
        weight = weight_IO(model.get_submodule(site.name))[:, site.start : site.stop]
        assert torch.allclose(weight, dense[site.label], atol=1e-6)


def test_a_module_used_in_two_layers_is_merged_in_both(backbone):
    model = loaded(backbone("roberta"))
    first, second = model.roberta.encoder.layer
    second.attention.self.query = first.attention.self.query
    Lora(rank=3).attach(model, seed=1)
    randomized(model)
    tokens = torch.arange(5, 32).view(3, 9)
    expected = model(tokens).logits
    methods.merge(model)
    assert not list(lowrank_sites(model)) and second.attention.self.query is first.attention.self.query
    assert torch.allclose(model(tokens).logits, expected, atol=2e-5)


def test_adapting_fused_query_and_value_does_not_change_the_key(backbone):
    model = loaded(backbone("gpt2"))
    plain = loaded(backbone("gpt2"))
    Lora(rank=3).attach(model, seed=1)
    randomized(model)
    site = find_sites(plain, ["k"])[0]
    x = torch.randn(2, 5, 32)
    new, old = model.get_submodule(site.name)(x), plain.get_submodule(site.name)(x)
    changed = (new - old).abs().amax(dim=(0, 1)) > 0
    assert not changed[site.start : site.stop].any()
    assert changed[: site.start].all() and changed[site.stop :].all()


def test_initializations():
    bound = 1 / 8
    for init, check in (("loralib", lambda A: A.abs().max() <= bound), ("paper", lambda A: A.abs().max() > bound)):
        run = composed("method=lora", f"method.init={init}")
        layer = torch.nn.Module()
        layer.attn = torch.nn.Module()
        layer.attn.q_proj = torch.nn.Linear(64, 64)
        assert run.method.init == init
        model = _Wrapped(layer)
        Lora(init=init, targets=["q"], rank=32).attach(model, seed=0)
        ((module, site),) = lowrank_sites(model)
        assert check(module.A[site.role]) and not module.B[site.role].any()


class _Wrapped(transformers.PreTrainedModel):
    base_model_prefix = "base"
    config_class = transformers.PretrainedConfig

    def __init__(self, base: torch.nn.Module) -> None:
        super().__init__(transformers.PretrainedConfig())
        self.base = base


@pytest.mark.parametrize("scale", ["trained", "rank"])
@pytest.mark.parametrize("mini", ["roberta_mini", "gpt2_mini"])
def test_a_lower_rank_is_the_truncated_update(mini, scale):
    ranks = ("method.score_ranks=[1,3]", f"method.score_scale={scale}", "method.rank=4")
    run, model, _, rows = prepared("lora", mini, *ranks)
    plain_run, plain, _, _ = prepared("lora", mini, "method.rank=4")
    for r, m in ((run, model), (plain_run, plain)):
        steps(r, m, rows, 5, 1e-2)
    for (name, p), (other, q) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert name == other and torch.equal(p, q)  # it trains as without the option
    assert run.method.variants() == ["r1", "r3", "r4"] and plain_run.method.variants() == [""]
    batch = {"input_ids": torch.arange(5, 15)[None], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    whole = plain(**batch).logits
    for rank in (1, 3, 4):
        for module, _ in lowrank_sites(plain):
            module.scale = 16 / (4 if scale == "trained" else rank)
        kept = {name: p.detach().clone() for name, p in plain.named_parameters()}
        for module, site in lowrank_sites(plain):
            module.A[site.role].data[:, rank:] = 0
        with run.method.active(model, f"r{rank}"):
            assert torch.allclose(model(**batch).logits, plain(**batch).logits, atol=1e-5)
        plain.load_state_dict(kept, strict=False)
    assert torch.allclose(model(**batch).logits, whole, atol=1e-6)


def test_a_record_has_the_lower_ranks_and_keys_are_unchanged_without_them(tmp_path):
    record = run_experiment(small(tmp_path, "task=sst2", "method=lora", "method.score_ranks=[1,2]", "save=adapter"))
    assert record.variant_names == ["r1", "r2", "r8"] == sorted(record.scores["validation"])
    assert record.primary["last"] == record.scores["validation"]["r8"]["accuracy"]
    assert config_key(composed("method=lora")) == config_key(composed("method=lora", "method.score_ranks=null"))
    assert config_key(composed("method=lora")) != config_key(composed("method=lora", "method.score_ranks=[1]"))
    with pytest.raises(UsageError, match="score_ranks=\\[9\\] must not exceed rank=8"):
        composed("method=lora", "method.score_ranks=[9]")


def test_an_adapter_from_before_a_field_existed_loads(tmp_path):
    run, model, _, _ = prepared("lora", "roberta_mini")
    checkpoints.save_adapters(model, run.method, tmp_path, "told")
    path = tmp_path / "adapter" / "adapter.json"
    content = json.loads(path.read_text())
    assert content["method"].pop("score_ranks", 0) is None and content["method"].pop("score_scale")
    path.write_text(json.dumps(content))
    checkpoints.load_adapter(model, run.method, tmp_path / "adapter", "told")
