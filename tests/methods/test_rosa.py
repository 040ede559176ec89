"""ROSA's factorizations against closed forms."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file
from scipy import stats
from support import interrupt, prepared, small, steps, without_cost

from rosa_bench import methods
from rosa_bench.core.method import Step
from rosa_bench.errors import UsageError
from rosa_bench.methods.lora import Lora
from rosa_bench.methods.relora import ReLora
from rosa_bench.methods.rosa import Rosa, choose, factorize
from rosa_bench.models.roles import find_sites, weight_IO
from rosa_bench.modules.lowrank import lowrank_sites, rank_of
from rosa_bench.modules.singular import by_stack, by_svd, stack_size
from rosa_bench.run import run as run_experiment


def made(inputs: int, outputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(inputs, outputs, generator=torch.Generator().manual_seed(seed))


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(16, 16), (12, 30), (30, 12)])
@pytest.mark.parametrize("sample", ["random", "top", "bottom", "window"])
def test_the_factors_sum_to_the_weight(shape, sample):
    W = made(*shape)
    rest, A, B = factorize(W, 5, draw(), sample)
    assert A.shape == (shape[0], 5) and B.shape == (5, shape[1])
    assert (rest + A @ B - W).abs().max() < 1e-5 * W.abs().max()
    assert torch.allclose(B @ B.T, torch.eye(5), atol=1e-5)
    # The rest has lost exactly these directions, and nothing of it lies in their span.
    assert torch.linalg.matrix_rank(rest, rtol=1e-4) == min(shape) - 5
    assert (rest @ B.T).abs().max() < 1e-4 and (A.T @ rest).abs().max() < 1e-3


def test_top_and_bottom_take_the_extreme_singular_values():
    W = made(10, 8)
    values = torch.linalg.svdvals(W)
    for sample, expected in (("top", values[:3]), ("bottom", values[-3:])):
        _, A, _ = factorize(W, 3, draw(), sample)
        assert torch.allclose(torch.linalg.vector_norm(A, dim=0), expected, atol=1e-5)


def test_subsets_are_uniform():
    full, rank, trials = 6, 2, 6000
    generator, counts = draw(), {}
    for _ in range(trials):
        subset = tuple(choose(full, rank, generator).tolist())
        counts[subset] = counts.get(subset, 0) + 1
    assert len(counts) == 15
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert sum(n for subset, n in counts.items() if full - 1 in subset) == pytest.approx(trials * rank / full, rel=0.1)


def test_the_published_window_never_takes_the_last_direction():
    generator = draw()
    seen = {tuple(choose(10, 3, generator, "window").tolist()) for _ in range(2000)}
    assert seen == {(s, s + 1, s + 2) for s in range(7)}


@pytest.mark.parametrize("rank", [0, 9, -1])
def test_refuses_a_rank_out_of_range(rank):
    with pytest.raises(ValueError, match="full rank"):
        factorize(made(8, 8), rank, draw())


def test_refuses_a_weight_that_is_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        factorize(made(4, 4) / 0, 2, draw())


def test_period_in_steps():
    assert Rosa(every_epochs=0.5).period(10) == 5
    assert Rosa(every_steps=7).period(10) == 7
    assert Rosa(every_epochs=0.01).period(10) == 1


@pytest.mark.parametrize("shape", [(16, 16), (12, 30), (30, 12)])
def test_square_roots_of_singular_values_in_both_factors(shape):
    W = made(*shape)
    rest, A, B = factorize(W, 5, draw(), "top", "both")
    assert torch.allclose(rest + A @ B, W, atol=1e-5)
    values = torch.linalg.svdvals(W)[:5]
    assert torch.allclose(torch.linalg.vector_norm(A, dim=0) ** 2, values, atol=1e-4)
    assert torch.allclose(torch.linalg.vector_norm(B, dim=1) ** 2, values, atol=1e-4)


def taken(W, method):
    rest = W.clone()
    return rest, *method.take(rest, 5, draw())


@pytest.mark.parametrize("shape", [(16, 16), (12, 30), (30, 12)])
def test_other_variants(shape):
    W = made(*shape)
    rest, A, B = taken(W, Rosa(variant="projection"))
    assert torch.allclose(A.T @ A, torch.eye(5), atol=1e-5) and torch.allclose(rest + A @ B, W, atol=1e-5)
    assert torch.allclose(A @ B, A @ A.T @ W, atol=1e-5) and (A.T @ rest).abs().max() < 1e-5
    rest, A, B = taken(W, Rosa(variant="random_add"))
    assert torch.equal(rest, W) and not A.any() and B.shape == (5, shape[1]) and 0.5 < B.std() < 1.5
    rest, A, B = taken(W, Rosa(variant="add", sample="top"))
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    assert torch.equal(rest, W) and torch.allclose(A @ B, (U[:, :5] * S[:5]) @ Vh[:5], atol=1e-4)


def model_of(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.config.pad_token_id = 1
    return model.eval()


BATCH = {"input_ids": torch.arange(5, 32).view(3, 9), "labels": torch.tensor([0, 1, 1])}


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "bert", "llama"])
@pytest.mark.parametrize("variant", ["equal", "add", "random_add", "projection"])
def test_factorizations_preserve_the_function_except_for_add(backbone, kind, variant):
    model, plain = model_of(backbone(kind)), model_of(backbone(kind))
    model.load_state_dict(plain.state_dict())
    method = Rosa(variant=variant, targets=["all"])
    method.attach(model, 3)
    difference = (model(**BATCH).logits - plain(**BATCH).logits).abs().max()
    assert (difference < 1e-5) == method.exact_at_start == (variant != "add")


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_full_rank_trains_the_whole_matrix(backbone, kind):
    """AdamW on the split-off weights equals AdamW on the weights."""
    model, plain = model_of(backbone(kind)), model_of(backbone(kind))
    model.load_state_dict(plain.state_dict())
    method = Rosa(rank=32, targets=["q", "v"], train_head=False)
    method.attach(model, 3)
    sites = find_sites(plain, ["q", "v"])
    plain.requires_grad_(False)
    weights = {site.name: plain.get_submodule(site.name).weight.requires_grad_(True) for site in sites}
    optimizers = [
        torch.optim.AdamW(parameters, 0.01, weight_decay=0.1)
        for parameters in ([p for p in model.parameters() if p.requires_grad], list(weights.values()))
    ]
    key = {site.name: weight_IO(plain.get_submodule(site.name)).clone() for site in find_sites(plain, ["k"])}
    for index in range(3):
        method.before_step(Step(model, optimizers[0], index, 1, 3))
        for one, optimizer in zip((model, plain), optimizers, strict=True):
            optimizer.zero_grad()
            one(**BATCH).loss.backward()
            optimizer.step()
        if kind == "gpt2":  # a fused map trains its key as well there: put it back
            for site in find_sites(plain, ["k"]):
                weight = weight_IO(plain.get_submodule(site.name)).data[:, site.start : site.stop]
                weight.copy_(key[site.name][:, site.start : site.stop])
    methods.merge(model)
    for site in sites:
        ours, theirs = (weight_IO(m.get_submodule(site.name))[:, site.start : site.stop] for m in (model, plain))
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_rank_as_a_share_of_full_rank(backbone):
    model = model_of(backbone("roberta"))
    Rosa(rank=0.25, targets=["q", "ffn_in"]).attach(model, 3)
    assert {module.A[site.role].shape[1] for module, site in lowrank_sites(model)} == {8}


@pytest.mark.parametrize(
    ("width", "ranks"),
    [(768, (9, 19, 38, 76)), (1024, (12, 25, 51, 102)), (1280, (16, 32, 64, 128)), (30, (1, 1, 1, 3))],
)
def test_a_share_is_truncated_as_in_the_published_code(width, ranks):
    """`max(int(share * full), 1)` gives the ranks of the workshop paper's table 2 for GPT-2 small, medium and large."""
    assert tuple(rank_of(share, width, 3 * width) for share in (0.0125, 0.025, 0.05, 0.1)) == ranks
    assert rank_of(0.999, 10, 10) == 9


FUSED = pytest.mark.parametrize("method", [Rosa, Lora, ReLora])


@FUSED
def test_a_fused_layer_trains_4dr_parameters_as_one_weight_and_6dr_by_role(method, backbone):
    d, layers, r = 32, 2, 3
    counts = {}
    for fused in (True, False):
        model = model_of(backbone("gpt2"))
        method(rank=r, targets=["q", "k", "v"], fused=fused, train_head=False).attach(model, 3)
        counts[fused] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts == {True: layers * 4 * d * r, False: layers * 6 * d * r}


@pytest.mark.parametrize("sample", ["top", "bottom"])
def test_a_fused_layer_is_split_along_its_own_singular_directions(sample, backbone):
    model, plain = model_of(backbone("gpt2")), model_of(backbone("gpt2"))
    Rosa(rank=3, targets=["q", "k", "v", "o"], fused=True, sample=sample).attach(model, 3)
    maps = {site.name: module for module, site in lowrank_sites(model) if site.role == "qkv"}
    assert len(maps) == 2
    for name, module in maps.items():
        W = plain.get_submodule(name).weight.detach()
        assert W.shape == (32, 96)
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        chosen = slice(0, 3) if sample == "top" else slice(-3, None)
        expected = (U[:, chosen] * S[chosen]) @ Vh[chosen]
        assert torch.allclose(module.A["qkv"] @ module.B["qkv"], expected, atol=1e-5)
        assert torch.allclose(module.base.weight, W - expected, atol=1e-5)


@FUSED
def test_a_fused_layer_computes_the_dense_product_and_merges(method):
    options = [] if method is Lora else ["method.every_steps=2"]
    name = method.__name__.lower()
    run, model, _, rows = prepared(name, "gpt2_mini", "method.fused=true", "method.targets=[q,k,v,o]", *options)
    steps(run, model, rows, 5, 1e-2)
    module = next(m for m, site in lowrank_sites(model) if site.role == "qkv")
    x = torch.randn(2, 5, module.base.weight.shape[0])
    W = module.base.weight + module.scale * module.A["qkv"] @ module.B["qkv"]
    with torch.no_grad():
        assert torch.allclose(module(x), x @ W + module.base.bias, atol=1e-5)
        model.eval()
        tokens = torch.arange(5, 23)[None]
        before = model(input_ids=tokens).logits
        methods.merge(model)
        assert not list(lowrank_sites(model))
        assert torch.allclose(model(input_ids=tokens).logits, before, atol=1e-4)


def test_a_fused_layer_resumes_bitwise(tmp_path):
    overrides = ["method=rosa", "method.fused=true", "method.every_steps=3", "task=e2e", "train.limit_eval=4"]
    overrides += ["save=adapter", "train.batch_size=4", "train.max_steps=5"]
    whole = run_experiment(small(tmp_path / "whole", *overrides))
    interrupt(small(tmp_path / "parts", *overrides), 4)
    resumed = run_experiment(small(tmp_path / "parts", *overrides, "resume=must"))
    assert without_cost(resumed) == without_cost(whole) and resumed.facts["merge_within_bound"] is True
    first, second = (tmp_path / part / whole.run_id / "adapter" / "adapter.safetensors" for part in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("method", ["lora", "rosa"])
def test_a_fused_layer_starts_only_from_runs_of_the_same_shape(method, tmp_path):
    def run(*more):
        overrides = [f"method={method}", "task=e2e", "method.targets=[q,k,v]", "train.limit_eval=4", "save=adapter"]
        record = run_experiment(small(tmp_path, *overrides, "train.batch_size=4", *more))
        return load_file(tmp_path / record.run_id / "adapter" / "adapter.safetensors"), record.run_id

    first, name = run("method.fused=true", "train.max_steps=3", "train.lr=0.01")
    again, _ = run("method.fused=true", "train.max_steps=1", "train.lr=1e-12", f"start={name}")
    assert first.keys() == again.keys() and any(".qkv" in key for key in first)
    assert all(torch.allclose(again[key], first[key], atol=1e-6) for key in first)
    with pytest.raises(UsageError) as caught:
        run("train.max_steps=1", f"start={name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "targets", "line"),
    [
        ("roberta", ["q", "k", "v"], "no target of Roberta.* is part of a fused map"),
        ("bert", ["all"], "no target of Bert.* is part of a fused map"),
        ("gpt2", ["o", "ffn_in"], "no target of GPT2.* is part of a fused map"),
        ("gpt2", ["q", "v"], "holds q, k and v; add k to method.targets"),
    ],
)
@FUSED
def test_fused_is_refused_without_a_fused_target(kind, targets, line, method, backbone):
    with pytest.raises(UsageError, match=line) as caught:
        method(targets=targets, fused=True).attach(model_of(backbone(kind)), 3)
    assert "\n" not in str(caught.value)


def test_training_does_not_depend_on_the_solver(backbone):
    """Solvers differ in signs of directions, which do not affect training."""
    outputs, folder = [], backbone("roberta")  # making it draws random numbers, the first time
    for solver in ("gram", "svd"):
        torch.manual_seed(0)
        model = model_of(folder)
        method = Rosa(rank=3, every_steps=2, solver=solver)
        method.attach(model, 3)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
        for index in range(4):
            method.before_step(Step(model, optimizer, index, 2, 3))
            model(**BATCH).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        outputs.append(model(**BATCH).logits.detach())
    assert torch.allclose(*outputs, atol=1e-5)


def test_moments_are_reset_or_kept(backbone):
    for moments in ("reset", "keep"):
        model = model_of(backbone("roberta"))
        method = Rosa(rank=2, every_steps=2, moments=moments)
        method.attach(model, 3)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01)
        model(**BATCH).loss.backward()
        optimizer.step()
        method.before_step(Step(model, optimizer, 2, 10, 3))
        module, site = next(lowrank_sites(model))
        assert (module.A[site.role] in optimizer.state) == (moments == "keep")


def test_facts_give_the_rank_of_the_update(tmp_path):
    steps = ("method.rank=2", "train.max_steps=9", "train.lr=0.01")
    rosa = run_experiment(small(tmp_path, "method=rosa", "method.every_steps=3", *steps))
    lora = run_experiment(small(tmp_path, "method=lora", *steps))
    assert rosa.facts["refactorizations"] == 3 and rosa.facts["refactorization_s"] > 0
    assert min(rosa.facts["update_rank"].values()) > 2 and max(rosa.facts["update_rank"].values()) <= 2 * 2 * 3
    assert set(lora.facts["update_rank"].values()) == {2}
    assert all(0 < share < 1 for share in rosa.facts["update_relative_norm"].values())
    for record in (rosa, lora):
        assert record.facts["merge_within_bound"] is True and record.facts["merge_max_abs_diff"] < 1e-3
        assert len(record.facts["update_rank"]) == (16 if record is rosa else 8)


@pytest.mark.parametrize(
    "options", [{}, {"singular_values": "both"}, {"variant": "add"}, {"rank": 0.2}, {"sample": "top"}]
)
def test_stacked_factorizations_equal_single_ones(options, backbone):
    """The GPU's code path on the CPU: the same directions for the same draw, up to signs."""
    models = []
    for _ in range(2):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(backbone("roberta"))
        Rosa(targets=["all"], **{"rank": 3} | options).attach(model, 1)
        models.append(model)
    method = Rosa(targets=["all"], **{"rank": 3} | options)
    one_by_one, stacked = models
    method.split(one_by_one, 1, 4)
    method.split_stacked(list(lowrank_sites(stacked)), 1, 4)
    for (mine, site), (other, _) in zip(lowrank_sites(stacked), lowrank_sites(one_by_one), strict=True):
        A, B, A_other, B_other = mine.A[site.role], mine.B[site.role], other.A[site.role], other.B[site.role]
        assert torch.allclose(A @ B, A_other @ B_other, atol=1e-6)
        assert torch.allclose(mine.weight_of(site), other.weight_of(site), atol=1e-6)
        assert torch.allclose(A.norm(dim=0), A_other.norm(dim=0), atol=1e-5)


def test_an_ill_conditioned_weight_is_factorized_separately():
    """In a stack with a well-conditioned weight."""
    W = torch.stack([made(12, 9), torch.diag(torch.logspace(0, -7, 12))[:, :9], torch.zeros(12, 9)])
    chosen = torch.tensor([[0, 8], [1, 8], [0, 1]])
    assert by_stack(W, chosen)[1].tolist() == [True, False, False]
    rest, A, B = Rosa(rank=2)._split_stack(W, W.new_zeros(3, 12, 2), W.new_zeros(3, 2, 9), chosen)
    for i in range(3):
        U, values, Vh = by_svd(W[i], chosen[i])
        assert torch.allclose(A[i] @ B[i], (U * values @ Vh).float(), atol=1e-6)
    assert torch.allclose(rest + A @ B, W, atol=1e-6)


def test_a_stack_with_a_weight_that_is_not_finite_is_refused():
    W = torch.stack([made(5, 4), made(5, 4)])
    W[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        Rosa(rank=1)._split_stack(W, W.new_zeros(2, 5, 1), W.new_zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.long))


def test_a_stack_fits_into_a_gigabyte():
    assert stack_size(10**5, 10**5) == 1 and 8 * 6 * 1024**2 * stack_size(1024, 1024) <= 2**30
