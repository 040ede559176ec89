"""Errors of low-rank updates in linear regression, in closed form. Shapes: N rows, I inputs, O outputs, R rank.

The ROSA paper claims that T = ceil(rank(X W0 - Y) / R) re-samplings reach the optimum of full fine-tuning, which LoRA
of rank R cannot. `resampled` computes the error after each re-sampling, if training is perfect in between. The claim
holds exactly if a factorization does not change the weight (`add`, `random_add`): every step then removes the R largest
directions of the remaining error. `equal`, the method itself, first removes R directions of W and spends rank on
restoring them, so it needs more steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rosa_bench.methods.rosa import Rosa


def floor(X_NI: torch.Tensor, difference_IO: torch.Tensor, rank: int) -> float:
    """The least mean squared error over rows and outputs with an update of this rank.

    `difference_IO` is the update with zero error. By the Eckart-Young theorem, the error consists of the singular
    values of X (W* - W0) beyond the first `rank`.
    """
    error = X_NI.double() @ difference_IO.double()
    return float(torch.linalg.svdvals(error)[rank:].square().sum() / error.numel())


def resampled(
    X_NI: torch.Tensor, Y_NO: torch.Tensor, W_IO: torch.Tensor, method: Rosa, rank: int, generator: torch.Generator
) -> Iterator[float]:
    """Yield the mean squared error after each re-sampling, with the best A and B of their rank; endless."""
    X, Y, W = X_NI.double(), Y_NO.double(), W_IO.double()
    Q, triangle = torch.linalg.qr(X)
    while True:
        rest = W.clone()
        method.take(rest, rank, generator)
        U, S, Vh = torch.linalg.svd(Q.T @ (Y - X @ rest), full_matrices=False)
        A = torch.linalg.solve_triangular(triangle, U[:, :rank] * S[:rank], upper=True)
        W = rest + A @ Vh[:rank]
        yield float((X @ W - Y).square().mean())
