"""Optimizers: names, refusals, and exact resuming."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import transformers
from support import composed, interrupt, small, without_cost
from transformers.training_args import OptimizerNames

from rosa_bench import cli
from rosa_bench.errors import UsageError
from rosa_bench.records import run_key
from rosa_bench.run import run as run_experiment
from rosa_bench.training import optimizer, trainer


def groups_of(monkeypatch, folder, *overrides: str) -> dict[str, tuple[float, float]]:
    """Peak learning rate and weight decay of every trained parameter at the start of a run."""
    results = {}

    def on_train_begin(self, args, state, control, **kw):
        named = {id(p): name for name, p in kw["model"].named_parameters()}
        for group in kw["optimizer"].param_groups:
            for p in group["params"]:
                if p.requires_grad and id(p) in named:
                    assert named[id(p)] not in results
                    results[named[id(p)]] = (group["initial_lr"], group["weight_decay"])
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Loop, "on_train_begin", on_train_begin)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(small(folder, *overrides))
    return results


def test_adamw_has_one_name_and_old_runs_keep_their_key():
    plain = composed("method=lora")
    assert plain.train.optimizer == "adamw" and composed("train.optimizer=adamw_torch").train.optimizer == "adamw"
    fused = composed("train.optimizer=adamw_torch_fused").train
    assert fused.optimizer == "adamw" and fused.fused
    new = {"optimizer", "optimizer_args", "lora_plus", "patience"}
    assert not new & run_key.identity_parts(plain.to_dict())["train"].keys()
    chosen = composed("train.optimizer=sgd", "train.optimizer_args={momentum: 0.9}", "train.lora_plus=4")
    assert run_key.identity_parts(chosen.to_dict())["train"].keys() >= new - {"patience"}


def test_names_are_those_of_transformers():
    known = {name.value for name in OptimizerNames}
    assert {"sgd", "adafactor", "galore_adamw", "apollo_adamw", "adamw_bnb_8bit", "rmsprop"} <= set(optimizer.names())
    assert set(optimizer.names()) <= known | {"adamw"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.optimizer=sdg"], r"train.optimizer='sdg' is not an optimizer of transformers .*: did you mean sgd"),
        (["train.optimizer=lomo"], "train.optimizer=lomo is not supported: it updates each weight during the backward"),
        (["train.optimizer=galore_adamw_layerwise"], "galore_adamw_layerwise is not supported: it updates each weight"),
        (["train.optimizer=schedule_free_adamw"], "schedule_free_adamw is not supported: it evaluates other weights"),
        (["train.optimizer=sgd", "train.optimizer_args={momentun: 0.9}"],
         r"optimizer_args\.momentun is not an option of SGD: did you mean train\.optimizer_args\.momentum"),
        (["train.optimizer=sgd", "train.optimizer_args={momentum: high}"], "momentum='high' is not of type float"),
        (["train.optimizer=sgd", "train.optimizer_args={momentum: -1}"], "work here: Invalid momentum value: -1"),
        (["train.optimizer=sgd", "train.optimizer_args={lr: 1}"], r"optimizer_args\.lr cannot be set: use train\.lr"),
        (["train.optimizer_args={betas: [0.5, 0.5]}"], r"betas cannot be set: use train\.beta1 and train\.beta2"),
        (["train.optimizer=adafactor", "train.optimizer_args={relative_step: true}"], "Cannot combine manual `lr`"),
        (["train.optimizer=sgd", "train.beta2=0.98"], r"train\.beta2=0\.98 has no effect with train\.optimizer=sgd"),
        (["task=stsb", "train.label_smoothing=0.1"], r"smoothing=0\.1 has no effect with task=stsb, a regression"),
        (["train.optimizer=adafactor", "train.fused=true"], "train.fused=true is not supported with train.opt"),
        (["method=bitfit", "train.lora_plus=16"], r"lora_plus=16\.0 needs trained factors A and B, but method=bitfit"),
    ],
)  # fmt: skip
def test_unsupported_options_are_one_line(overrides, message, tmp_path, monkeypatch):
    if "train.lora_plus=16" not in overrides:
        monkeypatch.setattr("rosa_bench.run.load_split", lambda *_: pytest.fail("rows were loaded"))
        monkeypatch.setattr("rosa_bench.run.load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match=message) as raised:
        run_experiment(small(tmp_path, "method=lora", *overrides))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "package"),
    [("galore_adamw", "galore_torch"), ("apollo_adamw", "apollo_torch"), ("adamw_bnb_8bit", "bitsandbytes")],
)
def test_a_missing_package_is_named(name, package, tmp_path, capsys):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    code = cli.main(["task=cola", "tracker=none", f"output_dir={tmp_path}", f"train.optimizer={name}"])
    output = capsys.readouterr().err.splitlines()
    assert code == 2 and len(output) == 1 and package in output[0] and "nstall" in output[0]


def test_trying_an_optimizer_leaves_other_gpus_alone(monkeypatch, tmp_path):
    run = small(tmp_path, "train.optimizer=sgd")
    arguments = trainer.arguments(run, tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # torch warns if all of them are to be initialized
    before = torch.get_rng_state()
    optimizer.check(run.train, arguments)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["sgd", "adafactor", "rmsprop", "adagrad"])
def test_rates_and_weight_decay_are_the_runs(name, monkeypatch, tmp_path):
    settings = ["train.lr=1e-3", "train.head_lr=5e-3", "train.lora_plus=16", "train.weight_decay=0.1"]
    groups = groups_of(monkeypatch, tmp_path, "method=lora", f"train.optimizer={name}", *settings)
    for label, (rate, decay) in groups.items():
        head = label.startswith("classifier.")
        assert rate == pytest.approx(5e-3 if head else 16e-3 if ".B." in label else 1e-3), label
        assert decay == (0.0 if label.endswith("bias") else 0.1), label
    assert len({rate for rate, _ in groups.values()}) == 3


@pytest.mark.parametrize("variant", ["pfeiffer", "lora_l"])
def test_adapters_at_a_norm_have_weight_decay(variant, monkeypatch, tmp_path):
    options = ["method=adapter", f"method.variant={variant}", "method.norms=true", "train.weight_decay=0.1"]
    groups = groups_of(monkeypatch, tmp_path, *options)
    decayed = {label for label, (_, decay) in groups.items() if decay}
    heads = ("classifier.dense.weight", "classifier.out_proj.weight")
    assert decayed == {label for label in groups if label.endswith(("down.weight", "up.weight", *heads))}
    assert any("LayerNorm" in label for label in groups.keys() - decayed)


def test_a_backbone_named_after_its_norms_has_weight_decay():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.RobertaPreLayerNormConfig(vocab_size=40, **sizes)
    model = transformers.RobertaPreLayerNormForSequenceClassification(config)
    composed("method=lora", "method.bias=all").method.attach(model)
    decayed = trainer.BenchTrainer.get_decay_parameter_names(object.__new__(trainer.BenchTrainer), model)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names & set(decayed) == {name for name in names if not name.endswith(".bias")}
    assert not any("LayerNorm.weight" in name for name in decayed)


@pytest.mark.parametrize("method", ["lora", "dylora", "rosa", "relora", "dora"])
def test_lora_plus_applies_to_every_method_with_factors(method, monkeypatch, tmp_path):
    """Learning rates of lora_A and lora_B as in peft's LoRA+."""
    if method == "dora":
        pytest.importorskip("peft")
    groups = groups_of(monkeypatch, tmp_path, f"method={method}", "train.lr=1e-3", "train.lora_plus=8")
    is_B = {label: ".B." in label or "lora_B" in label for label in groups}
    assert any(is_B.values()) and not all(is_B.values())
    assert all(rate == pytest.approx(8e-3 if is_B[label] else 1e-3) for label, (rate, _) in groups.items())


def test_lora_plus_equals_pefts_optimizer():
    """Two steps of our groups equal those of `peft.optimizers.create_loraplus_optimizer` on the same factors."""
    optimizers = pytest.importorskip("peft.optimizers")
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    theirs = peft.get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(6, 5)), peft.LoraConfig(target_modules=["0"], r=2, lora_alpha=2)
    )
    labels = [name for name, p in theirs.named_parameters() if p.requires_grad]
    start = {name: p.detach().clone() for name, p in theirs.named_parameters() if name in labels}
    other = optimizers.create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, weight_decay=0.0
    )
    ours = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    train = composed("train.lr=1e-3", "train.lora_plus=16").train
    own = torch.optim.AdamW([{"params": list(ours.values()), "weight_decay": 0.0}], lr=1e-3)
    optimizer.arrange(own, train, [], [], [p for name, p in ours.items() if "lora_B" in name])
    for step in range(2):
        for label, p in theirs.named_parameters():
            if p.requires_grad:
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
                ours[label].grad = p.grad.clone()
        other.step()
        own.step()
    for label, p in theirs.named_parameters():
        if p.requires_grad:
            assert torch.allclose(p, ours[label], atol=1e-7) and not torch.equal(p, start[label])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_sgd_follows_the_plain_rule(method, monkeypatch, tmp_path):
    """The first step of a run from its gradients: p <- p - lr (g + decay p), without momentum."""
    seen = {}
    update, after = trainer.Loop.on_pre_optimizer_step, trainer.Loop.on_optimizer_step

    def on_pre_optimizer_step(self, args, state, control, **kw):
        update(self, args, state, control, **kw)
        seen.update(
            {n: (p.detach().clone(), p.grad.clone()) for n, p in kw["model"].named_parameters() if p.requires_grad}
        )

    def on_optimizer_step(self, args, state, control, **kw):
        for name, p in kw["model"].named_parameters():
            if name in seen:
                start, gradient = seen[name]
                decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1
                assert torch.allclose(p, start - 0.05 * (gradient + decay * start), atol=1e-7), name
        seen["checked"] = True
        after(self, args, state, control, **kw)

    monkeypatch.setattr(trainer.Loop, "on_pre_optimizer_step", on_pre_optimizer_step)
    monkeypatch.setattr(trainer.Loop, "on_optimizer_step", on_optimizer_step)
    settings = ["train.optimizer=sgd", "train.lr=0.05", "train.warmup=0", "train.weight_decay=0.1", "train.max_steps=1"]
    run_experiment(small(tmp_path, f"method={method}", *settings))
    assert seen["checked"]


def test_an_optimizer_that_projects_needs_trained_matrices():
    """For example GaLore with a low-rank method and a frozen backbone."""
    weight, other = torch.nn.Parameter(torch.zeros(3, 3), requires_grad=False), torch.nn.Parameter(torch.zeros(3))
    groups = [{"params": [other]}, {"params": [weight], "update_proj_gap": 200}]
    with pytest.raises(UsageError, match=r"train\.optimizer=galore_adamw is not supported"):
        optimizer.arrange(torch.optim.SGD(groups, 0.1), composed("train.optimizer=galore_adamw").train, [], [], [])


COMBINATIONS = [
    ("lora", "sgd", "train.optimizer_args={momentum: 0.9}"),
    ("dylora", "sgd", "train.optimizer_args={momentum: 0.9}"),
    ("dylora", "adafactor", "train.lora_plus=4"),
    ("dylora", "adamw", "method.frozen=true"),
    ("rosa", "adafactor", "train.head_lr=1e-3"),
    ("rosa", "adagrad", "train.weight_decay=0.1"),
]
PACKAGES = [
    ("full", "galore_adamw", "galore_torch"),
    ("full", "apollo_adamw", "apollo_torch"),
    ("dylora", "adamw_bnb_8bit", "bitsandbytes"),
    ("dylora", "stable_adamw", "optimi"),
]


def resumes(folder, *overrides: str) -> None:
    whole = run_experiment(small(folder / "whole", *overrides, "save=adapter"))
    interrupt(small(folder / "parts", *overrides, "save=adapter"), 5)
    resumed = run_experiment(small(folder / "parts", *overrides, "save=adapter", "resume=must"))
    assert without_cost(resumed) == without_cost(whole) and resumed.params == whole.params
    first, second = (folder / part / whole.run_id / "adapter/adapter.safetensors" for part in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("method", "name", "more"), COMBINATIONS)
def test_a_run_resumes_exactly(method, name, more, tmp_path):
    resumes(tmp_path, f"method={method}", f"train.optimizer={name}", more)


@pytest.mark.filterwarnings("ignore:This implementation of AdamW is deprecated")
@pytest.mark.parametrize(("method", "name", "package"), PACKAGES)
def test_a_run_with_an_optional_package_resumes_exactly(method, name, package, tmp_path):
    pytest.importorskip(package)
    more = ["train.optimizer_args={rank: 4, update_proj_gap: 3}"] if method == "full" else []
    resumes(tmp_path, f"method={method}", f"train.optimizer={name}", "train.weight_decay=0.1", *more)


def test_the_optimizer_state_is_measured_once_it_is_complete(tmp_path):
    """Adafactor stores a row and a column per matrix, SGD without momentum nothing."""
    record = run_experiment(small(tmp_path, "method=full", "train.optimizer=sgd"))
    assert record.params["optimizer_elements"] == 0
    record = run_experiment(small(tmp_path, "method=full", "train.optimizer=adafactor"))
    assert 0 < record.params["optimizer_elements"] < 0.1 * record.params["trainable"]
    assert record.config["train"]["optimizer"] == "adafactor"
