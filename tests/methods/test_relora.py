"""ReLoRA against a plain reimplementation: LoRA with merges, AdamW and the schedule by hand."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
import transformers
from classes import made
from support import composed, interrupt, overflow, prepared, small, without_cost

from rosa_bench.core.method import Step
from rosa_bench.data.batches import collate
from rosa_bench.errors import UsageError
from rosa_bench.methods.relora import prune
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.run import run as run_experiment


def jagged(step: int, every: int, warmup: int, schedule) -> float:
    """The authors' schedule: after each restart, linear from zero to the schedule's value at the end of the warm-up."""
    restart, done = divmod(step, every)
    if restart and done < warmup:
        return done / warmup * schedule(restart * every + warmup)
    return schedule(step)


def cosine(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize(("option", "warmup"), [(0.4, 4), (3.0, 3), (0.0, 0)])
def test_the_learning_rate_restarts_with_the_update(option, warmup):
    method = composed("method=relora", "method.every_steps=10", f"method.restart_warmup={option}").method
    for step in range(1, 60):
        result = method.lr_factor(step, lambda index: cosine(index, 5, 60), per_epoch=7)
        assert result == pytest.approx(jagged(step, 10, warmup, lambda index: cosine(index, 5, 60)))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_pruning_keeps_the_largest(share):
    values = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    pruned = values.clone()
    prune(pruned, share)
    kept = values.abs().flatten().sort(descending=True).values[: pruned.count_nonzero()]
    assert pruned.count_nonzero() == pytest.approx((1 - share) * values.numel(), abs=1)
    assert torch.equal(pruned[pruned != 0].abs().sort(descending=True).values, kept)
    assert torch.equal(pruned[pruned != 0], values[pruned != 0])


def test_pruning_ranks_more_elements_than_a_quantile_can():
    values = torch.zeros((1 << 24) + 1)  # torch.quantile refuses that many
    values[:3] = torch.tensor([3.0, -2.0, 1.0])
    prune(values, 1 - 2 / len(values))
    assert values[:3].tolist() == [3.0, -2.0, 0.0] and values.count_nonzero() == 2


def test_random_pruning_zeroes_a_share_and_is_reproducible():
    values = torch.ones(100, 100)
    first, second = values.clone(), values.clone()
    for tensor in (first, second):
        prune(tensor, 0.8, torch.Generator().manual_seed(5))
    assert torch.equal(first, second) and first.mean().item() == pytest.approx(0.2, abs=0.02)


def test_quantized_moments_are_refused():
    """A zero is an arbitrary number in the 8 bits of bitsandbytes."""
    _, model, _, _ = prepared("relora", "roberta_mini")
    states = {
        module.A[site.role]: {"state1": module.A[site.role].to(torch.uint8)} for module, site in lowrank_sites(model)
    }
    step = Step(model, SimpleNamespace(state=states), 3, per_epoch=3, seed=0)
    with pytest.raises(UsageError, match=r"moments=magnitude cannot prune the quantized state"):
        composed("method=relora").method.before_step(step)
    composed("method=relora", "method.moments=reset").method.before_step(step)
    assert not states


class Plain:
    """One adapted weight of the reimplementation: W, A, B and AdamW's moments, independent of the package."""

    def __init__(self, W, A, B, scale, lr) -> None:
        self.W, self.A, self.B, self.scale, self.lr = W.clone(), A.clone(), B.clone(), scale, lr
        self.moments = {name: [torch.zeros_like(getattr(self, name)) for _ in range(2)] for name in "AB"}
        self.count = 0

    def update(self, gradients) -> None:
        self.count += 1
        for name, gradient in gradients.items():
            first, second = self.moments[name]
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            step = (first / (1 - 0.9**self.count)) / ((second / (1 - 0.999**self.count)).sqrt() + 1e-8)
            getattr(self, name).sub_(self.lr * step)

    def restart(self, A, share) -> None:
        self.W += self.scale * self.A @ self.B
        self.A, self.B = A.clone(), torch.zeros_like(self.B)
        for moments in self.moments.values():
            for moment in moments:
                limit = moment.abs().flatten().quantile(share)
                moment[moment.abs() <= limit] = 0
            moments[0][moments[1] == 0] = 0  # no first moment without its second one


@pytest.mark.parametrize("name", ["roberta_mini", "gpt2_mini"])
def test_equals_the_plain_method(name):
    """All weights, factors and moments over seven steps, with restarts before the fourth and the seventh."""
    run, model, _, rows = prepared("relora", name, "method.every_steps=3", "method.rank=4", "method.pruned=0.8")
    model.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    sites = list(lowrank_sites(model))
    plain = [Plain(m.weight_of(s).detach(), m.A[s.role].detach(), m.B[s.role].detach(), 4.0, 1e-3) for m, s in sites]
    batch = collate(rows, pad_id=1)
    for index in range(7):
        step = Step(model, optimizer, index, per_epoch=100, seed=3)
        before = model(**batch).logits.detach()
        run.method.before_step(step)
        if index in (3, 6):
            assert (model(**batch).logits - before).abs().max() < 1e-4  # merging changes no output
            for one, (module, site) in zip(plain, sites, strict=True):
                assert not torch.equal(module.A[site.role], one.A) and not module.B[site.role].any()
                assert module.A[site.role].abs().max() <= 1 / math.sqrt(one.A.shape[0])
                one.restart(module.A[site.role].detach(), 0.8)
        model(**batch).loss.backward()
        for one, (module, site) in zip(plain, sites, strict=True):
            one.update({"A": module.A[site.role].grad, "B": module.B[site.role].grad})
        run.method.before_update(step)
        optimizer.step()
        run.method.after_update(step)
        optimizer.zero_grad()
    for one, (module, site) in zip(plain, sites, strict=True):
        A, B = module.A[site.role], module.B[site.role]
        assert torch.allclose(module.weight_of(site), one.W, atol=1e-6)
        assert torch.allclose(A, one.A, atol=1e-5) and torch.allclose(B, one.B, atol=1e-5)
        for factor, moments in ((A, one.moments["A"]), (B, one.moments["B"])):
            for key, expected in zip(("exp_avg", "exp_avg_sq"), moments, strict=True):
                assert torch.allclose(optimizer.state[factor][key], expected, atol=1e-6, rtol=1e-3)


def test_a_restart_keeps_the_outputs_if_query_key_and_value_are_interleaved():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    model = transformers.GPTNeoXForSequenceClassification(
        transformers.GPTNeoXConfig(vocab_size=50, pad_token_id=0, **sizes)
    ).eval()
    method = composed("method=relora", "method.targets=[q,v]").method
    method.attach(model)
    for module, site in lowrank_sites(model):
        assert site.groups == 4
        module.B[site.role].data.normal_(generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(1, 11).view(2, 5)
    before = model(tokens).logits
    method.merge(model, 0, 5)
    assert torch.allclose(model(tokens).logits, before, atol=1e-5)


def test_the_record_names_weights_that_all_skips():
    model = made("mixtral")
    method = composed("method=relora", "method.targets=[all]").method
    method.attach(model)
    assert sum(method.facts(model, {})["skipped_weights"].values()) == 6


@pytest.mark.parametrize("moments", ["magnitude", "random", "reset", "keep"])
def test_moments_after_a_restart(moments):
    run, model, _, rows = prepared("relora", "roberta_mini", "method.every_steps=2", f"method.moments={moments}")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model(**collate(rows, pad_id=1)).loss.backward()
    optimizer.step()
    head = next(p for name, p in model.named_parameters() if name.startswith("classifier."))
    before = {p: {key: value.clone() for key, value in state.items()} for p, state in optimizer.state.items()}
    run.method.before_step(Step(model, optimizer, 2, per_epoch=100, seed=3))
    for module, site in lowrank_sites(model):
        for factor in (module.A[site.role], module.B[site.role]):
            if moments == "reset":
                assert factor not in optimizer.state
                continue
            now, was = optimizer.state[factor], before[factor]
            expected = int(was["exp_avg_sq"].count_nonzero()) * (1.0 if moments == "keep" else 0.1)
            assert int(now["exp_avg_sq"].count_nonzero()) == pytest.approx(expected, abs=0.03 * factor.numel() + 1)
            assert now["step"] == 1 and not now["exp_avg"][now["exp_avg_sq"] == 0].any()
            for key in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(now[key][now[key] != 0], was[key][now[key] != 0])
    assert torch.equal(optimizer.state[head]["exp_avg"], before[head]["exp_avg"])


def test_steps_that_overflow_do_not_delay_the_schedule(monkeypatch, tmp_path):
    overflow(monkeypatch, 1, 5)
    options = (
        "method.every_steps=4",
        "method.restart_warmup=2",
        "train.schedule=constant_with_warmup",
        "train.warmup=0",
    )
    run = small(tmp_path, "method=relora", "task=cola", *options, "train.lr=1e-3", "train.log_steps=1")
    record = run_experiment(run)
    lines = map(json.loads, (tmp_path / record.run_id / "events.jsonl").read_text().splitlines())
    rates = {line["step"]: line["lr"] for line in lines if "lr" in line}
    assert rates == pytest.approx({i + 1: 1e-3 * jagged(i, 4, 2, lambda _: 1.0) for i in range(9)})


def test_a_run_restarts_on_its_schedule_and_resumes_inside_a_warmup(tmp_path):
    options = ("method=relora", "task=cola", "method.every_steps=4", "method.restart_warmup=2", "train.log_steps=1")
    options += ("train.schedule=cosine", "train.warmup=2", "train.max_steps=12", "train.lr=1e-3", "save=adapter")
    whole = run_experiment(small(tmp_path / "whole", *options))
    folder = tmp_path / "whole" / whole.run_id
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["lr"] for line in lines if "lr" in line}
    for step, rate in rates.items():  # the rate of step i is logged once it is done
        assert rate == pytest.approx(1e-3 * jagged(step - 1, 4, 2, lambda i: cosine(i, 2, 12)), abs=1e-12), step
    assert whole.facts["restarts"] == 2
    interrupt(small(tmp_path / "parts", *options), 5)
    resumed = run_experiment(small(tmp_path / "parts", *options, "resume=must"))
    assert without_cost(resumed) == without_cost(whole) and resumed.facts["restarts"] == 2
    first, second = (tmp_path / part / whole.run_id / "adapter/adapter.safetensors" for part in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()
