"""DyLoRA against LoRA at a fixed rank, and its updates against equation 10."""

from __future__ import annotations

import pytest
import torch
import transformers
from scipy import stats
from support import composed, prepared, small, steps
from torch.utils._python_dispatch import TorchDispatchMode

from rosa_bench.core.method import Step
from rosa_bench.data.batches import collate
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict
from rosa_bench.methods.dylora import DyLora
from rosa_bench.methods.lora import Lora
from rosa_bench.models.roles import Site
from rosa_bench.modules.lowrank import Directions, Nested, lowrank_sites
from rosa_bench.records import checkpoints
from rosa_bench.run import run as run_experiment
from rosa_bench.training import trainer

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
    """Train with AdamW and the method's hooks; return the parameters before the last update and the last rank."""
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
def test_an_update_moves_only_its_own_directions(backbone, kind, frozen):
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


OPTIMIZERS = {
    "adamw": lambda params: torch.optim.AdamW(params, 0.01, weight_decay=0.1),
    "amsgrad": lambda params: torch.optim.AdamW(params, 0.01, amsgrad=True),
    "sgd": lambda params: torch.optim.SGD(params, 0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adagrad": lambda params: torch.optim.Adagrad(params, 0.01, lr_decay=0.1),
}


def trained_by(step: int, method: DyLora) -> range:
    rank = method.rank_at(5, step)
    return range(rank - 1 if method.frozen else 0, rank)


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(
    ("kind", "name"), [("roberta", name) for name in OPTIMIZERS] + [("bert", "adamw"), ("gpt2", "adamw")]
)
def test_directions_are_updated_as_by_separate_optimizers(backbone, kind, name, frozen, micro_batches):
    """The reference has one optimizer per direction and site, stepped only when that direction trains."""
    method, make = DyLora(rank_max=6, frozen=frozen, **WIDE), OPTIMIZERS[name]
    ours, expected = (loaded(backbone(kind), method) for _ in range(2))
    expected.load_state_dict(ours.state_dict())
    together = make([p for p in ours.parameters() if p.requires_grad])
    sites = [(module.A[site.role], module.B[site.role]) for module, site in lowrank_sites(expected)]
    apart = [[(A.data[:, i].clone(), B.data[i].clone()) for i in range(6)] for A, B in sites]
    alone = [[make(pair) for pair in directions] for directions in apart]
    factors = {id(p) for pair in sites for p in pair}
    others = make([p for p in expected.parameters() if p.requires_grad and id(p) not in factors])
    for index in range(14):
        step = Step(ours, together, index, 10, 5)
        method.before_step(step)
        for module, _ in lowrank_sites(expected):
            module.activate(method.rank_at(5, index))
        for model in (ours, expected):
            for micro in range(micro_batches):
                model(**batch_at(100 * index + micro)).loss.backward()
        method.before_update(step)
        together.step()
        method.after_update(step)
        together.zero_grad()
        others.step()
        for (A, B), directions, optimizers in zip(sites, apart, alone, strict=True):
            for i in trained_by(index, method):
                directions[i][0].grad, directions[i][1].grad = A.grad[:, i].clone(), B.grad[i].clone()
                optimizers[i].step()
                A.data[:, i], B.data[i] = directions[i]
        expected.zero_grad()
    for (label, p), q in zip(ours.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(p, q), label


@pytest.mark.parametrize("frozen", [True, False])
def test_with_a_constant_gradient_each_step_of_a_direction_has_the_size_of_the_lr(backbone, frozen):
    """Adam's moments cancel, regardless of steps of other directions in between."""
    method = DyLora(rank_max=8, frozen=frozen, targets=["q"])
    model = loaded(backbone("roberta"), method)
    module, site = next(lowrank_sites(model))
    A, B = module.A[site.role], module.B[site.role]
    before = A.detach().clone(), B.detach().clone()
    optimizer = torch.optim.AdamW([A, B], 1e-3, weight_decay=0, eps=1e-12)
    for index in range(400):
        step = Step(model, optimizer, index, 10, 5)
        method.before_step(step)
        A.grad, B.grad = torch.full_like(A, 0.3), torch.full_like(B, -0.02)
        method.before_update(step)
        optimizer.step()
        method.after_update(step)
    own = torch.tensor([sum(i in trained_by(index, method) for index in range(400)) for i in range(8)])
    assert own.min() > 30
    assert torch.allclose(A, before[0] - 1e-3 * own, atol=2e-5)
    assert torch.allclose(B, before[1] + 1e-3 * own[:, None], atol=2e-5)


class Operations(TorchDispatchMode):
    """Counts operations that read or write values, not views."""

    VIEWS = frozenset({"view", "permute", "transpose", "select", "slice", "unbind", "detach", "alias"})

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (name := func.overloadpacket.__name__) not in self.VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_directions_take_a_few_operations_for_all_sites(backbone):
    """Seven operations for A and B of any number of sites of one shape, instead of four copies per site."""
    model = loaded(backbone("roberta"), DyLora(rank_max=8))
    factors = [p for module, site in lowrank_sites(model) for p in (module.A[site.role], module.B[site.role])]
    directions = Directions(model, torch.optim.AdamW(factors))
    for p in factors:
        p.grad = torch.ones_like(p)
    with Operations() as operations:
        directions.gather(range(3))
        directions.scatter()
    assert len(operations.names) <= 7, operations.names


class PublishedLinear(torch.nn.Module):
    """The authors' layer: both factors are truncated and scaled by sqrt(r / b), the update by alpha / r."""

    def __init__(self, base, A, B, alpha, frozen):
        super().__init__()
        self.base, self.alpha, self.frozen, self.rank = base, alpha, frozen, A.shape[0]
        self.lora_A, self.lora_B = torch.nn.Parameter(A), torch.nn.Parameter(B)  # [R, I], [O, R]

    def cut(self, factor):
        b = self.b
        kept = torch.cat([factor[:, : b - 1].detach(), factor[:, b - 1 : b]], dim=1) if self.frozen else factor[:, :b]
        return kept * (self.rank / b) ** 0.5

    def forward(self, x):
        A, B = self.cut(self.lora_A.T).T, self.cut(self.lora_B)
        return self.base(x) + x @ A.T @ B.T * self.alpha / self.rank


@pytest.mark.parametrize("frozen", [True, False])
def test_without_exact_update_it_equals_the_published_layer_with_adamw(frozen):
    torch.manual_seed(0)
    method = DyLora(rank_max=6, alpha=12.0, frozen=frozen, exact_update=False)
    base = torch.nn.Linear(10, 7).requires_grad_(False)
    ours = Nested(base, [Site("base", "q", 0, 7)], {"q": 6}, alpha=12.0, frozen=frozen, dropout=0.0)
    ours.A["q"].data.normal_()
    published = PublishedLinear(base, ours.A["q"].data.T.clone(), ours.B["q"].data.T.clone(), 12.0, frozen)
    pairs = [(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01, weight_decay=0.1))
             for model in (ours, published)]  # fmt: skip
    for index in range(60):
        x, y = torch.randn(5, 10), torch.randn(5, 7)
        step = Step(ours, pairs[0][1], index, 10, 5)
        method.before_step(step)
        published.b = method.rank_at(5, index)
        for model, optimizer in pairs:
            (model(x) - y).square().mean().backward()
            if model is ours:
                method.before_update(step)
            optimizer.step()
            if model is ours:
                method.after_update(step)
            optimizer.zero_grad()
    assert torch.allclose(ours.A["q"].T, published.lora_A, atol=1e-5)
    assert torch.allclose(ours.B["q"].T, published.lora_B, atol=1e-5)
    assert (ours.B["q"].abs() > 0.01).any()


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


def test_ranks_of_steps_have_the_configured_distribution():
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


def test_a_distribution_is_refused_if_no_rank_is_drawn():
    with pytest.raises(UsageError, match="distribution=geometric has no effect with loss=sum"):
        composed("method=dylora", "method.loss=sum", "method.distribution=geometric")
    composed("method=dylora", "method.loss=sum")


def test_frozen_is_refused_if_directions_would_never_train(tmp_path):
    with pytest.raises(UsageError, match=r"frozen=true never trains the directions below rank_min=3"):
        small(tmp_path, "method=dylora", "method.rank_min=3", "method.frozen=true")
    small(tmp_path, "method=dylora", "method.rank_min=3")


def test_a_record_has_every_rank_from_one_pass(tmp_path, monkeypatch):
    batches = []
    original = predict.collate
    monkeypatch.setattr(predict, "collate", lambda rows, pad_id: batches.append(len(rows)) or original(rows, pad_id))
    options = ("method.rank_max=4", "train.eval_batch_size=8", "save=adapter")
    run = small(tmp_path, "task=sst2", "method=dylora", *options)
    record = run_experiment(run)
    assert record.variant_names == ["r1", "r2", "r3", "r4"]
    assert record.params["optimizer_elements"] == 2 * record.params["trainable"]
    assert set(record.scores["validation"]) == set(record.variant_names)
    assert record.primary["last"] == record.scores["validation"]["r4"]["accuracy"]
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


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("mini", ["roberta_mini", "gpt2_mini"])
def test_the_summed_loss_sums_over_all_ranks(mini, frozen, tmp_path, monkeypatch):
    """The gradient of a step with two micro-batches against autograd on the sum of the losses of all ranks."""
    seen = {"batches": [], "checked": 0}
    step, update = trainer.BenchTrainer.training_step, trainer.Loop.on_pre_optimizer_step

    def training_step(self, model, inputs, num_items_in_batch=None):
        seen["batches"].append(({n: t.clone() for n, t in inputs.items() if n != "info"}, num_items_in_batch))
        return step(self, model, inputs, num_items_in_batch)

    def on_pre_optimizer_step(self, args, state, control, **kw):
        model, named = kw["model"], [(n, p) for n, p in kw["model"].named_parameters() if p.requires_grad]
        result = {name: p.grad.clone() for name, p in named}
        losses = []
        for inputs, items in seen["batches"]:
            for rank in range(1, 5):
                with self.run.method.active(model, f"r{rank}"):
                    logits, labels = (
                        model(**{n: t for n, t in inputs.items() if n != "labels"}).logits,
                        inputs["labels"],
                    )
                    if logits.dim() == 3:
                        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
                    losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / items)
        grads = torch.autograd.grad(sum(losses), [p for _, p in named])
        for (name, _), grad in zip(named, grads, strict=True):
            assert torch.allclose(result[name], grad, rtol=1e-3, atol=1e-5), name
        seen["batches"].clear()
        seen["checked"] += 1
        before = {name: p.detach().clone() for name, p in named}
        update(self, args, state, control, **kw)
        seen["before"] = before

    monkeypatch.setattr(trainer.BenchTrainer, "training_step", training_step)
    monkeypatch.setattr(trainer.Loop, "on_pre_optimizer_step", on_pre_optimizer_step)
    settings = ["train.max_grad_norm=0", "model.dropout=0", "train.micro_batch_size=4", "train.max_steps=3"]
    own = ["method.rank_max=4", "method.loss=sum", f"method.frozen={str(frozen).lower()}", "train.limit_eval=4"]
    task = "cola" if mini == "roberta_mini" else "e2e"
    run_experiment(small(tmp_path, "method=dylora", f"task={task}", *settings, *own))
    assert seen["checked"] == 3


def test_the_summed_loss_trains_every_direction_in_every_step():
    method = DyLora(rank_max=6, frozen=True, loss="sum")
    assert method.trained(2) == range(6) and method.summed_variants() == [f"r{rank}" for rank in range(1, 7)]
    assert not DyLora(rank_max=6).summed_variants()
