"""What low-rank updates can reach in linear regression, in closed form. Shapes: N rows, I inputs, O outputs, R rank.

The ROSA paper claims that T = ceil(rank(X W0 - Y) / R) re-samplings reach the optimum of full fine-tuning, which LoRA
of rank R cannot. `resampled` computes what each re-sampling reaches when training between two of them is perfect. The
claim holds exactly where a split leaves the weight whole (`add`, `random_add`): every step then takes the R largest
directions off the remaining error. `equal`, the method itself, first takes R directions of W out and has to spend rank
on putting back what it lost, so it needs more steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rosa_bench.methods.rosa import Rosa


def floor(X_NI: torch.Tensor, difference_IO: torch.Tensor, rank: int) -> float:
    """The least mean squared error over rows and outputs that an update of this rank leaves.

    `difference_IO` is the update that would leave none. By Eckart and Young what remains are the singular values of
    X (W* - W0) beyond the first `rank`.
    """
    error = X_NI.double() @ difference_IO.double()
    return float(torch.linalg.svdvals(error)[rank:].square().sum() / error.numel())


def resampled(
    X_NI: torch.Tensor, Y_NO: torch.Tensor, W_IO: torch.Tensor, method: Rosa, rank: int, generator: torch.Generator
) -> Iterator[float]:
    """The mean squared error after each re-sampling, A and B being the best of their rank every time; endless."""
    X, Y, W = X_NI.double(), Y_NO.double(), W_IO.double()
    Q, triangle = torch.linalg.qr(X)
    while True:
        rest = W.clone()
        method.take(rest, rank, generator)
        U, S, Vh = torch.linalg.svd(Q.T @ (Y - X @ rest), full_matrices=False)
        A = torch.linalg.solve_triangular(triangle, U[:, :rank] * S[:rank], upper=True)
        W = rest + A @ Vh[:rank]
        yield float((X @ W - Y).square().mean())
