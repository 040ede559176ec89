"""DyLoRA against LoRA at a fixed rank, and its updates against what equation 10 allows to move."""

from __future__ import annotations

import pytest
import torch
import transformers
from scipy import stats
from support import prepared, small, steps

from rosa_bench.core.method import Step
from rosa_bench.data.batches import collate
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict
from rosa_bench.methods.dylora import DyLora
from rosa_bench.methods.lora import Lora
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.records import checkpoints
from rosa_bench.run import run as run_experiment

WIDE = {"targets": ["all"], "alpha": 12.0}


def loaded(folder, method, seed=1):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.config.pad_token_id = 1
    torch.manual_seed(4)
    for head in (m for n, m in model.named_modules() if n in ("score", "classifier.dense", "classifier.out_proj")):
        head.weight.data.normal_(0, 0.1)
    method.attach(model, seed)
    return model.eval()


def batch_at(index: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(index)
    return {"input_ids": torch.randint(5, 40, (4, 9), generator=draw), "labels": torch.tensor([0, 1, 1, 0])}


def train(model, method, count: int, weight_decay: float = 0.1, seed: int = 5):
    """AdamW with decay through the method's hooks; the parameters before the last update, and the last rank."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01, weight_decay=weight_decay)
    before = {}
    for index in range(count):
        step = Step(model, optimizer, index, 10, seed)
        method.before_step(step)
        model(**batch_at(index)).loss.backward()
        method.before_update(step)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
        method.after_update(step)
        optimizer.zero_grad()
    return before


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_a_fixed_rank_trains_as_lora_does(backbone, kind):
    dynamic, plain = DyLora(rank_min=3, rank_max=3, **WIDE), Lora(rank=3, **WIDE)
    models = [loaded(backbone(kind), method) for method in (dynamic, plain)]
    for model, method in zip(models, (dynamic, plain), strict=True):
        train(model, method, 6)
    for (first, p), (second, q) in zip(*(model.named_parameters() for model in models), strict=True):
        assert first == second and torch.equal(p, q)


def test_a_rank_below_the_width_trains_as_lora_does(backbone, monkeypatch):
    dynamic, plain = DyLora(rank_max=6, **WIDE), Lora(rank=2, **WIDE)
    monkeypatch.setattr(DyLora, "rank_at", lambda *_: 2)
    models = [loaded(backbone("roberta"), method) for method in (dynamic, plain)]
    for (wide, site), (thin, _) in zip(*(list(lowrank_sites(model)) for model in models), strict=True):
        thin.A[site.role].data.copy_(wide.A[site.role].data[:, :2])
    for model, method in zip(models, (dynamic, plain), strict=True):
        train(model, method, 6)
    for (wide, site), (thin, _) in zip(*(list(lowrank_sites(model)) for model in models), strict=True):
        assert torch.allclose(wide.A[site.role][:, :2], thin.A[site.role], atol=1e-6)
        assert torch.allclose(wide.B[site.role][:2], thin.B[site.role], atol=1e-6)
    with dynamic.active(models[0], "r2"):
        assert torch.allclose(models[0](**batch_at(99)).logits, models[1](**batch_at(99)).logits, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_an_update_moves_its_own_directions_and_no_other(backbone, kind, frozen):
    method = DyLora(rank_max=6, frozen=frozen, **WIDE)
    model = loaded(backbone(kind), method)
    for count in (4, 7, 9):
        model = loaded(backbone(kind), method)
        before = train(model, method, count)
        rank = method.rank_at(5, count - 1)
        wanted = torch.zeros(6, dtype=torch.bool)
        wanted[rank - 1 if frozen else 0 : rank] = True
        names = {id(p): name for name, p in model.named_parameters()}
        for module, site in lowrank_sites(model):
            A, B = module.A[site.role], module.B[site.role]
            assert torch.equal((before[names[id(A)]] != A).any(dim=0), wanted), (count, site)
            assert torch.equal((before[names[id(B)]] != B).any(dim=1), wanted), (count, site)


def test_the_published_update_drifts(backbone):
    method = DyLora(rank_max=6, frozen=True, exact_update=False, **WIDE)
    model = loaded(backbone("roberta"), method)
    before = train(model, method, 9)
    names = {id(p): name for name, p in model.named_parameters()}
    module, site = next(lowrank_sites(model))
    assert (module.A[site.role] != before[names[id(module.A[site.role])]]).any(dim=0).all()


def test_every_rank_is_the_truncated_product_scaled_by_its_own_rank(backbone):
    method = DyLora(rank_max=5, targets=["q"], alpha=12.0)
    model = loaded(backbone("roberta"), method)
    train(model, method, 8)
    module, site = next(lowrank_sites(model))
    x = torch.randn(2, 3, 32)
    for rank in range(1, 6):
        with method.active(model, f"r{rank}"):
            A, B = module.A[site.role][:, :rank], module.B[site.role][:rank]
            assert torch.allclose(module(x), module.base(x) + 12 / rank * (x @ A @ B), atol=1e-6)
    assert module.active == 5


def test_the_ranks_of_steps_have_the_wanted_distribution():
    uniform, geometric = DyLora(rank_min=2, rank_max=6), DyLora(rank_max=4, distribution="geometric")
    assert geometric.probabilities() == pytest.approx([x / 3.186625 for x in (1, 0.85, 0.7225, 0.614125)])
    for method in (uniform, geometric):
        drawn = [method.rank_at(3, index) for index in range(20_000)]
        observed = [drawn.count(rank) for rank in range(method.rank_min, method.rank_max + 1)]
        assert sum(observed) == len(drawn)  # which torch's version decides: one in a million is refused
        assert stats.chisquare(observed, [len(drawn) * p for p in method.probabilities()]).pvalue > 1e-6
    assert [uniform.rank_at(3, i) for i in range(9)] != [uniform.rank_at(4, i) for i in range(9)]


def test_ranks_in_the_wrong_order_are_refused(tmp_path):
    with pytest.raises(UsageError, match="rank_min=5"):
        small(tmp_path, "method=dylora", "method.rank_min=5", "method.rank_max=4")


def test_a_record_holds_every_rank_from_one_pass(tmp_path, monkeypatch):
    batches = []
    original = predict.collate
    monkeypatch.setattr(predict, "collate", lambda rows, pad_id: batches.append(len(rows)) or original(rows, pad_id))
    run = small(tmp_path, "method=dylora", "method.rank_max=4", "train.eval_batch_size=8", "save=adapter")
    record = run_experiment(run)
    assert record.variant_names == ["r1", "r2", "r3", "r4"]
    assert set(record.scores["validation"]) == set(record.variant_names)
    assert record.primary["last"] == record.scores["validation"]["r4"]["matthews"]
    passes = 2 + 1  # two epoch ends, then all other ranks at once
    assert batches[: 3 * passes] == [8] * 3 * passes and sum(batches[3 * passes :]) < 100
    for name in record.variant_names:
        assert (tmp_path / record.run_id / f"predictions-validation-{name}.jsonl.gz").is_file()
        assert (tmp_path / record.run_id / f"adapter-{name}" / "adapter.safetensors").is_file()


@pytest.mark.parametrize("mini", ["roberta_mini", "gpt2_mini"])
def test_a_rank_is_exported_as_plain_lora(tmp_path, mini):
    run, model, _, rows = prepared("dylora", mini, "method.rank_max=4")
    steps(run, model, rows, 6, 1e-3)
    checkpoints.save_adapters(model, run.method, tmp_path, "told")
    batch = collate(rows, pad_id=1)
    for rank in (1, 3, 4):
        plain, other, _, _ = prepared("lora", mini, f"method.rank={rank}")
        checkpoints.load_adapter(other, plain.method, tmp_path / f"adapter-r{rank}", "told")
        with predict.evaluating(model), predict.evaluating(other), run.method.active(model, f"r{rank}"):
            assert torch.allclose(model(**batch).logits, other(**batch).logits, atol=1e-5)
