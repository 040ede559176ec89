"""ROSA's arithmetic against closed forms."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from rosa_bench.methods.rosa import Rosa, choose, factorize


def made(inputs: int, outputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(inputs, outputs, generator=torch.Generator().manual_seed(seed))


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(16, 16), (12, 30), (30, 12)])
@pytest.mark.parametrize("sample", ["random", "top", "bottom", "window"])
def test_the_parts_sum_to_the_whole(shape, sample):
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


def test_every_subset_is_as_likely_as_any():
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
