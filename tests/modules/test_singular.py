"""Selected singular directions against the full decomposition."""

from __future__ import annotations

import pytest
import torch

from rosa_bench.config.compose import compose
from rosa_bench.methods.rosa import factorize
from rosa_bench.modules import lapack, singular
from rosa_bench.records.run_key import config_key
from rosa_bench.system.threads import in_parallel

SHAPES = [(3, 3), (40, 40), (300, 300), (24, 300), (300, 24)]


def made(inputs: int, outputs: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """A weight in the layout of `nn.Linear`: as [I, O] it is a transposed view."""
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=dtype).T


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def without_fallback(monkeypatch) -> None:
    """Make the full decomposition fail."""

    def refuse(*_: object) -> singular.Directions:
        raise AssertionError("the full decomposition was asked for")

    monkeypatch.setattr(singular, "by_svd", refuse)


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_equal_those_of_the_full_decomposition(shape, monkeypatch):
    W = made(*shape)
    index = torch.arange(min(shape))
    U, S, Vh = singular.by_svd(W, index)
    without_fallback(monkeypatch)
    left, values, right = singular.by_gram(W, index)
    assert torch.allclose(values, S, rtol=1e-9)
    same = (U * left).sum(0), (Vh * right).sum(1)
    assert all(torch.allclose(dot.abs(), torch.ones_like(dot), atol=1e-9) for dot in same)
    assert torch.equal(same[0] > 0, same[1] > 0)  # a direction may turn round, on both sides
    eye = torch.eye(min(shape), dtype=torch.float64)
    assert (left.T @ left - eye).abs().max() < 1e-9 and (right @ right.T - eye).abs().max() < 1e-9


@pytest.mark.parametrize("sample", ["random", "top", "bottom", "window"])
@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("rank", [1, 4])
def test_both_solvers_split_off_the_same_subspace(shape, sample, rank):
    """For the same draw; hence the distribution of subspaces is the same."""
    W = made(*shape)
    for seed in range(5):
        parts = {s: factorize(W, rank, draw(seed), sample, "a", s) for s in ("gram", "svd")}
        (rest, A, B), (_, A_svd, B_svd) = parts["gram"], parts["svd"]
        assert (A @ B - A_svd @ B_svd).norm() < 1e-5 * (A_svd @ B_svd).norm()
        assert (rest + A @ B - W).norm() < 1e-6 * W.norm()
        assert (B @ B.T - torch.eye(rank)).abs().max() < 1e-5
        lengths = torch.linalg.vector_norm(A, dim=0)
        assert torch.allclose((A / lengths).T @ (A / lengths), torch.eye(rank), atol=1e-5)


@pytest.mark.parametrize(
    "W",
    [
        torch.zeros(30, 20),
        made(30, 3) @ made(3, 20),  # of rank 3
        torch.diag(torch.logspace(0, -7, 20)),
    ],
    ids=["zero", "low rank", "ill conditioned"],
)
@pytest.mark.parametrize("values", ["a", "both"])
def test_ill_conditioned_weights(W, values):
    """The smallest directions of such a weight come from the full decomposition."""
    rest, A, B = factorize(W, 5, draw(0), "bottom", values, "gram")
    assert all(torch.isfinite(part).all() for part in (rest, A, B))
    assert torch.allclose(rest + A @ B, W, atol=1e-6)
    for mine, other in zip((rest, A, B), factorize(W, 5, draw(0), "bottom", values, "svd"), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_scipys_wrappers_compute_the_same_bits(shape, monkeypatch):
    """Without the pointers that scipy exports."""
    W, index = made(*shape), torch.arange(0, min(shape), 3)
    expected = singular.by_gram(W, index)
    monkeypatch.setattr(lapack, "_routine", lambda *_: None)
    without_fallback(monkeypatch)
    assert all(torch.equal(mine, other) for mine, other in zip(singular.by_gram(W, index), expected, strict=True))


@pytest.mark.parametrize("W", [torch.eye(30), torch.block_diag(made(9, 9), made(9, 9)), torch.ones(30, 30)])
def test_equal_singular_values(W):
    rest, A, B = factorize(W, 6, draw(1))
    assert torch.allclose(rest + A @ B, W, atol=1e-6) and torch.allclose(B @ B.T, torch.eye(6), atol=1e-5)
    assert (rest @ B.T).abs().max() < 1e-5


def test_adding_a_product_in_blocks():
    W, A, B = made(300, 700), made(300, 8), made(8, 700)
    whole = (W.double() + A.double() @ B.double()).float()
    singular.add_product(W, A, B)
    assert torch.equal(W, whole)


def test_the_solver_does_not_change_the_key():
    for options in (("method.solver=gram", "method.solver=svd"), ("train.fused=false", "train.fused=true")):
        assert len({config_key(compose(["method=rosa", option])) for option in options}) == 1


def test_a_part_of_an_fp64_weight(monkeypatch):
    """The query of a fused layer is contiguous in neither layout, and is not copied to fp64 at once."""
    W = made(300, 90, torch.float64).T.contiguous().T[:, 30:60]
    other = made(90, 40, torch.float64).T.contiguous()[:, 20:60]
    for part in (W, other):
        without_fallback(monkeypatch)
        _, values, _ = singular.by_gram(part, torch.arange(5))
        assert torch.allclose(values, torch.linalg.svdvals(part)[:5], rtol=1e-9)


@pytest.mark.parametrize("threads", [1, 3])
def test_parallel_factorizations_give_the_same_results(threads):
    """The number of threads is restored."""
    before = torch.get_num_threads()
    weights = [(made(120, 80, seed=i), torch.tensor([0, 3])) for i in range(8)]
    alone = [singular.by_gram(*item) for item in weights]
    try:
        torch.set_num_threads(threads)
        together = list(in_parallel(singular.by_gram, weights))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for mine, other in zip(together, alone, strict=True):
        assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(mine, other, strict=True))
    with pytest.raises(ValueError, match="of the second"):
        list(in_parallel(_refusing, [(1,), (2,), (3,)]))
    assert torch.get_num_threads() == before


def _refusing(number: int) -> None:
    if number == 2:
        raise ValueError("of the second")
