"""The bridge to `peft`: refusals, agreement with `peft`, and presets."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import fields

import pytest
import torch
from backbones import backbone_with_head
from safetensors.torch import load_file
from support import MINIS, NODES, THIN, composed, loaded, overflow, prepared, small, steps

from rosa_bench import cli, methods
from rosa_bench.core.annotations import check
from rosa_bench.core.method import Step
from rosa_bench.errors import UsageError
from rosa_bench.methods.peft import EXACT, OURS, Peft
from rosa_bench.models import hashing
from rosa_bench.models.load import load
from rosa_bench.modules.peft_tuners import tuner_of
from rosa_bench.records import checkpoints
from rosa_bench.run import run as run_experiment

peft = pytest.importorskip("peft")
PRESETS = sorted(THIN)
WRONG = {
    "method=peft": "Missing mandatory value: method.type",
    "method=peft method.type=LOAR": "did you mean LORA",
    "method=peft method.type=POLY": "only inside peft's own model class",
    "method=peft method.type=PROMPT_TUNING": "method.config.num_virtual_tokens",
    "method=dora method.config.rr=4": "did you mean method.config.r ",
    "method=dora method.config.r=eight": "method.config.r='eight' is not of type int",
    "method=dora method.config.use_dora=1": "is not of type bool",
    "method=dora method.config.bias=lora_olny": "is not a known name: did you mean lora_only?",
    "method=dora method.config.target_modules=5": "method.config.target_modules=5 is not of type",
    "method=dora method.config.rank_pattern=[query]": "rank_pattern=['query'] is not of type dict or null",
    "method=dora method.config.rank_pattern={qeury:4}": "rank_pattern keys did not match any targeted module",
    "method=dora method.config.lora_dropout=nan": "method.config.lora_dropout=nan: should be a finite number",
    "method=dora method.config.alpha_pattern={query:inf}": "config.alpha_pattern.query=inf: should be a finite",
    "method=dora +method.config.kasa_config.betta=1": "betta is not a key of KasaConfig (peft",
    "method=dora method.config.init_lora_weights=eva": "init_lora_weights=eva is not supported: it needs training data",
    "method=dora method.config.init_lora_weights=lora_ga": "init_lora_weights=lora_ga is not supported",
    "method=dora method.config.arrow_config={top_k:2}": "method.config.arrow_config is not supported: it selects",
    "method=dora method.config.task_type=SEQ_CLS": "method.config.task_type cannot be set",
    "method=prefix_tuning method.config.token_dim=5": "method.config.token_dim cannot be set",
    "method=peft method.type=ADAMSS method.config.use_asa=true": "method.config.use_asa is not supported: it removes",
    "method=prompt_tuning method.config.num_virtual_tokens=-1": "needs method.config.num_virtual_tokens=COUNT",
    "method=prompt_tuning method.config.prompt_tuning_init=VOCAB": "did you mean SAMPLE_VOCAB",
    "method=adalora method.config.r=4": "`r` is not used in AdaLora",
    "method=adalora method.config.orth_reg_weight=-1": "orth_reg_weight",
    "method=prompt_tuning method.config.num_virtual_tokens=128": "leave no room among the model's 128 positions",
    "method=oft task=e2e": "method=oft is not supported with GPT2Model",
    "method=ia3 method.config.target_modules=[nowhere]": "method=ia3 is not supported with RobertaModel",
    "method=prefix_tuning train.gradient_checkpointing=true": "is not supported with method=prefix_tuning",
    "method=prefix_tuning save=merged": "prefix_tuning cannot be merged",
    "method=lora method.config.r=4": "method.config.r is not a key",
}


@pytest.mark.parametrize(("overrides", "message"), WRONG.items())
def test_unsupported_options_are_one_line(overrides, message, capsys, tmp_path):
    assert cli.main([*overrides.split(), "tracker=none", f"output_dir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("rosa_bench: ") and err.count("\n") == 1 and message in err, err


def test_a_missing_library_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert cli.main(["method=ia3", "tracker=none", f"output_dir={tmp_path}"]) == 2
    assert "needs the extra peft" in capsys.readouterr().err


def test_composing_imports_no_peft():
    code = (
        "import sys; from rosa_bench.config.compose import compose\n"
        "run = compose(['method=dora', 'method.config.r=4', 'method.config.target_modules=[query]'])\n"
        "assert run.method.config['r'] == 4 and run.method.config['target_modules'] == ['query']\n"
        "assert run.method.config['use_dora'] is True and run.method.name == 'dora'\n"
        "assert not {'peft', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_presets_are_named_after_their_files():
    assert {name: str(node.preset) for name, node in NODES.items() if name in THIN} == {p: p for p in PRESETS}
    assert composed("method=peft", "method.type=loha").method == Peft(type="LOHA")


@pytest.mark.parametrize("mini", MINIS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_saves_and_merges(preset, mini, tmp_path):
    """A short form of the slow contract tests."""
    if (preset, mini) == ("oft", "gpt2_mini"):
        with pytest.raises(UsageError, match="method=oft is not supported"):
            prepared(preset, mini)
        return
    run, model, _, rows = prepared(preset, mini)
    losses = steps(run, model, rows, 6, run.method.lr["mini"])
    assert losses[-1] < losses[0]
    checkpoints.save_adapters(model, run.method, tmp_path, "told")
    _, other, _, _ = prepared(preset, mini)
    checkpoints.load_adapter(other, run.method, tmp_path / "adapter", "told")
    inputs = {"input_ids": torch.arange(5, 15)[None], "attention_mask": torch.ones(1, 10, dtype=torch.long)}
    expected = model.eval()(**inputs).logits
    assert torch.equal(other.eval()(**inputs).logits, expected)
    if run.method.mergeable:
        plain = loaded(run, mini)[0]
        assert methods.merge(model).state_dict().keys() == plain.state_dict().keys()
        assert torch.allclose(model(**inputs).logits, expected, atol=2e-4)


# What peft's own classes compute on the same weights.


def twins(folder, method: Peft, causal: bool):
    """A model with the bridge's method and one wrapped by `peft`, with the same random values."""
    ours, theirs = backbone_with_head(folder, causal), backbone_with_head(folder, causal)
    theirs.load_state_dict(ours.state_dict())
    method.attach(ours, seed=1)
    config = method.configuration()
    config.task_type = "CAUSAL_LM" if causal else "SEQ_CLS"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(theirs, config).eval()
    draw = torch.Generator().manual_seed(2)
    named = dict(wrapped.named_parameters())
    for name, p in ours.named_parameters():
        inside = name.replace("virtual_tokens.", "prompt_encoder.")
        other = named.get(f"base_model.model.{name}", named.get(inside))
        if p.requires_grad and other is not None:
            p.data.copy_(torch.randn(p.shape, generator=draw) * 0.1 + p.data)
            other.data.copy_(p.data)
    return ours, wrapped


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")  # peft's own wrapper says it
@pytest.mark.parametrize("kind, causal", [("roberta", False), ("gpt2", True), ("gpt2", False), ("llama", True)])
@pytest.mark.parametrize("preset", ["ia3", "adalora", "dora", "rslora", "vera", "prefix_tuning"])
def test_logits_and_gradients_equal_those_of_peft(backbone, preset, kind, causal):
    method = composed(f"method={preset}").method
    ours, theirs = twins(backbone(kind), method, causal)
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(3))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    try:
        mine, other = ours(**batch), theirs(**batch)
    except ValueError as error:  # of a wrapper that looks for the old name of the cache
        assert "past key values" in str(error)
        pytest.skip(str(error))
    assert torch.allclose(mine.logits, other.logits, atol=1e-5)
    assert not torch.allclose(mine.logits, backbone_with_head(backbone(kind), causal)(**batch).logits, atol=1e-3)
    mine.logits.square().mean().backward()
    other.logits.square().mean().backward()
    named, compared = dict(theirs.named_parameters()), 0
    for name, p in ours.named_parameters():
        inside = name.replace("virtual_tokens.", "prompt_encoder.")
        twin = named.get(f"base_model.model.{name}", named.get(inside))
        if p.grad is not None and twin is not None:
            assert torch.allclose(p.grad, twin.grad, atol=1e-6), name
            compared += 1
    assert compared


@pytest.mark.parametrize("preset", ["prompt_tuning", "p_tuning"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt"])
def test_prompts_have_the_logits_of_peft(backbone, preset, kind):
    """For a decoder; `peft` keeps the outputs of the prompt, which are removed here."""
    method = composed(f"method={preset}", "method.config.num_virtual_tokens=4").method
    ours, theirs = twins(backbone(kind), method, causal=True)
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(3))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    mine, other = ours(**batch).logits, theirs(**batch).logits
    assert mine.shape == (3, 9, ours.config.vocab_size) and other.shape[1] == 13
    assert torch.allclose(mine, other[:, 4:], atol=1e-5)


# Seeds, starts, and what changes besides the trained parameters.


@pytest.mark.parametrize("preset", ["adalora", "dora", "rslora", "prompt_tuning", "p_tuning", "prefix_tuning"])
def test_new_tensors_depend_only_on_the_seed(preset):
    run = composed(f"method={preset}", "task=e2e")

    def start(seed: int) -> str:
        model = load(run.model, run.task, 3)[0]
        stream = torch.random.get_rng_state()
        run.method.attach(model, seed)
        assert torch.equal(torch.random.get_rng_state(), stream)
        torch.rand(7)
        return hashing.tensor_hash(checkpoints.trained_state(model, run.method))

    first = start(3)
    assert first == start(3) and first != start(4)


def test_the_residual_of_a_split_weight_is_saved(tmp_path):
    run, model, _, _ = prepared("pissa", "roberta_mini")
    plain = load(run.model, run.task, 3)[0].roberta.encoder.layer[0].attention.self.query.weight
    name = "roberta.encoder.layer.0.attention.self.query.base_layer.weight"
    rest = model.state_dict()[name]
    assert not torch.allclose(rest, plain, atol=1e-3)
    assert name in run.method.moved(model) and len(run.method.moved(model)) == 8
    assert run.method.exact_at_start is False
    record = run_experiment(small(tmp_path, "method=pissa", "save=adapter"))
    assert record.facts["start_cosine"] > 0.99999 and record.facts["merge_within_bound"]


def test_exact_at_start_is_false_with_another_initialization():
    assert "LORA" in EXACT and composed("method=dora").method.exact_at_start
    assert not composed("method=dora", "method.config.init_lora_weights=false").method.exact_at_start
    assert not composed("method=peft", "method.type=FOURIERFT").method.exact_at_start
    assert not composed("method=prompt_tuning").method.exact_at_start


NARROW = {  # values that fit a backbone of 32 features, for types whose defaults do not
    "C3A": {"block_size": 8},
    "LN_TUNING": {"target_modules": ["LayerNorm"]},
    "MISS": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6]},
    "VBLORA": {"vector_length": 8, "topk": 2, "num_vectors": 16},
    "WAVEFT": {"n_frequency": 64},
}


def bridged() -> list[str]:
    """Every type of the installed library that the bridge supports."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    results = []
    for key in PEFT_TYPE_TO_CONFIG_MAPPING:
        try:
            Peft(type=key.value, config=NARROW.get(key.value, {})).configuration()
        except UsageError:
            continue
        results.append(str(key.value))
    return results


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch says so of SHIRA's tensors
@pytest.mark.parametrize("kind", bridged())
def test_declared_properties_of_each_type(backbone, kind):
    """Types declared exact start at the backbone; types declared mergeable can be merged."""
    method = Peft(type=kind, config=NARROW.get(kind, {}))
    model, plain = (backbone_with_head(backbone("roberta"), causal=False) for _ in range(2))
    plain.load_state_dict(model.state_dict())
    try:
        method.attach(model, seed=1)
    except UsageError as error:
        pytest.skip(str(error))
    batch = {"input_ids": torch.arange(5, 25).view(2, 10)}
    far = (model(**batch).logits - plain(**batch).logits).abs().max()
    assert far < 1e-5 or not method.exact_at_start
    step = Step(model, torch.optim.AdamW(p for p in model.parameters() if p.requires_grad), 0, 10, seed=3, total=20)
    method.before_step(step)
    model(**batch).logits.sum().backward()
    method.before_update(step)
    draw = torch.Generator().manual_seed(2)
    for p in model.parameters():
        if p.requires_grad and p.grad is not None:
            p.data += 0.01 * torch.randn(p.shape, generator=draw)
    method.after_update(step)
    if method.mergeable:
        methods.merge(model)
        assert model.state_dict().keys() == plain.state_dict().keys()
    else:
        with pytest.raises(NotImplementedError):
            methods.merge(model)


@pytest.mark.parametrize("kind", bridged())
def test_default_values_of_each_type_are_accepted(kind):
    """Each default of the library, given explicitly, is valid by its annotation."""
    cls = type(Peft(type=kind, config=NARROW.get(kind, {})).configuration())
    plain = {f.name: f.default for f in fields(cls) if isinstance(f.default, (bool, int, float, str, type(None)))}
    check(cls, {name: value for name, value in plain.items() if name not in OURS}, "method.config", OURS)


def test_a_type_with_optional_hooks_trains_without_them(tmp_path):
    record = run_experiment(small(tmp_path, "method=peft", "method.type=ADAMSS"))
    assert record.status == "done" and record.facts["merge_within_bound"]


def test_tables_of_types_list_only_existing_types():
    assert {"IA3", "LORA", "LOHA", "OFT"} <= set(bridged()) and not set(bridged()) & {"POLY", "XLORA", "CPT"}
    from peft.utils import PeftType

    assert {kind.value for kind in PeftType} >= EXACT


# AdaLoRA: what happens between steps.


def test_ranks_are_pruned_to_the_budget():
    options = ("method.config.init_r=6", "method.config.target_r=2", "method.config.tfinal=4")
    run, model, _, rows = prepared("adalora", "roberta_mini", *options)
    tuner = tuner_of(model)
    weights = len(tuner.rankallocator.name_set)
    assert tuner.rankallocator.init_bgt == 6 * weights
    steps(run, model, rows, 20, 5e-3)
    (config,) = tuner.peft_config.values()
    assert config.total_step == 20 and sum(map(sum, config.rank_pattern.values())) == 2 * weights
    left = sum(int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name)
    assert left == 2 * weights


def test_steps_that_overflow_do_not_count_for_the_ranks(monkeypatch, tmp_path):
    overflow(monkeypatch, 1, 6)  # the last allocation follows step 9 - 3
    ranks = ("method.config.init_r=6", "method.config.target_r=2", "method.config.tinit=1", "method.config.tfinal=3")
    run = small(tmp_path, "method=adalora", "task=cola", *ranks, "save=adapter")
    record = run_experiment(run)
    state = load_file(tmp_path / record.run_id / "adapter" / "adapter.safetensors")
    weights = sum("lora_E" in name for name in state)
    assert state["allocator_state.averages"].isfinite().all()
    assert state["allocator_state.pattern"].sum() == 2 * weights


def test_phases_that_do_not_fit_into_the_run_are_refused(tmp_path):
    with pytest.raises(UsageError, match="tinit=5 and tfinal=4 leave none of the run's 9 steps"):
        run_experiment(small(tmp_path, "method=adalora", "method.config.tinit=5", "method.config.tfinal=4"))


def test_a_regulariser_that_peft_leaves_to_the_training_loop_is_added(backbone):
    """KaSA's two terms; `peft` only computes their sum."""
    config = {"kasa_config": {"beta": 0.3, "gamma": 0.2}}
    method, model = Peft(type="LORA", config=config), backbone_with_head(backbone("roberta"), causal=False)
    method.attach(model, seed=1)
    tuner = tuner_of(model)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
    tuner._get_kasa_loss().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    method.before_update(Step(model, optimizer, 0, per_epoch=10, seed=3, total=10))
    result = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert result.keys() == wanted.keys() and any("lora_diag" in name for name in result)
    assert all(torch.equal(result[name], wanted[name]) for name in result)


def test_the_regulariser_equals_that_of_peft(backbone):
    method = composed("method=adalora", "method.config.orth_reg_weight=0.3").method
    ours, theirs = twins(backbone("roberta"), method, causal=False)
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(3))
    batch = {"input_ids": ids, "labels": torch.tensor([0, 1, 1])}
    theirs(**batch).loss.backward()
    ours(**batch).loss.backward()
    named = dict(theirs.named_parameters())
    trained = {n: p for n, p in ours.named_parameters() if p.requires_grad and f"base_model.model.{n}" in named}
    bare = {name: p.grad.clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    method.before_update(Step(ours, optimizer, 0, per_epoch=10, seed=3, total=10))
    for name, p in trained.items():
        assert torch.allclose(p.grad, named[f"base_model.model.{name}"].grad, atol=1e-6), name
    assert any(not torch.allclose(p.grad, bare[name], atol=1e-4) for name, p in trained.items())
