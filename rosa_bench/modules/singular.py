"""Computes selected singular directions of a weight without the others. Shapes: I inputs, O outputs, R selected.

A full singular value decomposition computes min(I, O) directions, of which ROSA needs R. Here the smaller Gram matrix
of the weight is reduced to tridiagonal form. All its eigenvalues are cheap, and its eigenvectors can be computed one by
one (inverse iteration) and transformed back by the reflectors. Everything is computed in fp64, so squaring loses
nothing within the weight's own precision, and the result is verified.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rosa_bench.modules.lapack import add_square, eigenvalues, tridiagonal

BLOCK = 128  # rows or columns of a weight to convert to fp64 at a time
SMALLEST = 1e-4  # share of the largest singular value; smaller values lose too much when squared and need an SVD
TOLERANCE = 1e-10  # maximum deviation from the definition of an eigenvector
STACK_BYTES = 2**30
Directions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def by_svd(W_IO: torch.Tensor, index: torch.Tensor) -> Directions:
    """Left [I, R], values [R] and right [R, O] of the selected singular directions in fp64; index 0 is the largest."""
    U, S, Vh = torch.linalg.svd(W_IO.double(), full_matrices=False)
    index = index.to(S.device)
    return U[:, index], S[index], Vh[index]


def by_gram(W_IO: torch.Tensor, index: torch.Tensor) -> Directions:
    """Same as `by_svd` up to signs, on the CPU. Falls back to `by_svd` if a selected value is too small."""
    inputs, outputs = W_IO.shape
    W_LN = W_IO.detach().cpu() if inputs >= outputs else W_IO.detach().cpu().T  # L the longer side, N the shorter
    eigen = _eigenvectors(_gram(W_LN), index)
    if eigen is None:
        return by_svd(W_IO, index)
    squares, V_NR = eigen
    largest = float(squares[-1])
    image_LR = torch.cat([rows.double() @ V_NR for rows in W_LN.split(BLOCK)])
    values = torch.linalg.vector_norm(image_LR, dim=0)
    if not largest > 0 or float(values.min()) < SMALLEST * largest**0.5 or not _accurate(W_LN, image_LR, V_NR, largest):
        return by_svd(W_IO, index)
    unit_LR = image_LR / values
    left, right = (unit_LR, V_NR.T) if inputs >= outputs else (V_NR, unit_LR.T)
    return left.to(W_IO.device), values.to(W_IO.device), right.to(W_IO.device)


def by_stack(W_SIO: torch.Tensor, index_SR: torch.Tensor) -> tuple[Directions, torch.Tensor]:
    """Selected directions of S weights of one shape, on their device, from the eigenvectors of their Gram matrices.

    Returns left [S, I, R], values [S, R] and right [S, R, O] in fp64, and a mask [S] of the accurate results; use
    `by_svd` for the others. Weights must be finite.
    """
    inputs, outputs = W_SIO.shape[1:]
    W_SLN = (W_SIO if inputs >= outputs else W_SIO.mT).double()  # L the longer side, N the shorter
    squares, vectors = torch.linalg.eigh(W_SLN.mT @ W_SLN)  # ascending
    chosen = (W_SLN.shape[2] - 1 - index_SR).to(vectors.device)
    V_SNR = vectors.gather(2, chosen[:, None, :].expand(-1, vectors.shape[1], -1))
    image_SLR = W_SLN @ V_SNR
    values, largest = torch.linalg.vector_norm(image_SLR, dim=1), squares[:, -1]
    overlap = V_SNR.mT @ V_SNR - torch.eye(V_SNR.shape[2], dtype=V_SNR.dtype, device=V_SNR.device)
    residual = W_SLN.mT @ image_SLR - V_SNR * values.square()[:, None]
    accurate = (largest > 0) & (values.amin(1) >= SMALLEST * largest.clamp(min=0).sqrt())
    accurate &= (overlap.abs().amax((1, 2)) < TOLERANCE) & (residual.abs().amax((1, 2)) < TOLERANCE * largest)
    unit_SLR = image_SLR / values[:, None]
    pair = (unit_SLR, V_SNR.mT) if inputs >= outputs else (V_SNR, unit_SLR.mT)
    return (pair[0], values, pair[1]), accurate


def stack_size(inputs: int, outputs: int) -> int:
    """Number of [I, O] weights per call of `by_stack` that keeps its fp64 tensors below `STACK_BYTES`."""
    return max(1, STACK_BYTES // (8 * (3 * inputs * outputs + 3 * min(inputs, outputs) ** 2)))


def add_product(W_IO: torch.Tensor, A_IR: torch.Tensor, B_RO: torch.Tensor, sign: float = 1.0) -> None:
    """Add sign * A B to W in place, in fp64 and in blocks along the longer side, to avoid a second full matrix."""
    if W_IO.shape[0] > W_IO.shape[1]:
        W_IO, A_IR, B_RO = W_IO.T, B_RO.T, A_IR.T
    A = sign * A_IR.double()
    for W, B in zip(W_IO.split(BLOCK, dim=1), B_RO.split(BLOCK, dim=1), strict=True):
        W.copy_(torch.addmm(W.double(), A, B.double()))


def _gram(W_LN: torch.Tensor) -> NDArray[np.float64]:
    """The lower triangle of W' W [N, N], in fp64 and Fortran order."""
    N = W_LN.shape[1]
    G: NDArray[np.float64] = np.zeros((N, N), order="F")
    for rows in W_LN.split(BLOCK):
        part = rows.double().numpy()
        add_square(G, part if part.flags.forc else np.ascontiguousarray(part))
    return G


def _eigenvectors(G_NN: NDArray[np.float64], index: torch.Tensor) -> tuple[NDArray[np.float64], torch.Tensor] | None:
    """All eigenvalues [N] in ascending order, and the selected eigenvectors [N, R]; index 0 is the largest.

    Reads the lower triangle of G and overwrites G. Returns None if the matrix is too small or LAPACK fails.
    """
    from scipy.linalg import lapack

    N = len(G_NN)
    if N < 3:
        return None
    form = tridiagonal(G_NN)
    values = None if form is None else eigenvalues(*form[:2])
    if form is None or values is None:
        return None
    diagonal, off_diagonal, tau = form
    chosen = N - 1 - index.numpy()[::-1]  # ascending, as LAPACK requires
    one_block = np.ones(N, np.int32), np.r_[N, np.zeros(N - 1)].astype(np.int32)
    Z, failed = lapack.dstein(diagonal, off_diagonal, values[chosen], *one_block)
    if failed:
        return None
    # The reflectors are below the diagonal, one row further down than `dormqr` expects. Starting at the second
    # element of the matrix shifts them into place, with a last row that must be zero.
    G_NN[0, 1:] = 0
    reflectors = G_NN.reshape(-1, order="F")[1 : 1 + N * (N - 1)].reshape(N, N - 1, order="F")
    moved = np.zeros_like(Z, order="F")
    moved[:-1] = Z[1:]
    moved, _, failed = lapack.dormqr("L", "N", reflectors, tau, moved, 64 * Z.shape[1], overwrite_c=1)
    if failed:
        return None
    Z[1:] = moved[:-1]
    return values, torch.from_numpy(Z[:, ::-1].copy())


def _accurate(W_LN: torch.Tensor, image_LR: torch.Tensor, V_NR: torch.Tensor, largest: float) -> bool:
    """Whether V has orthonormal eigenvectors of W' W; inverse iteration can fail for coinciding eigenvalues."""
    product = sum(
        (rows.double().T @ image for rows, image in zip(W_LN.split(BLOCK), image_LR.split(BLOCK), strict=True)),
        torch.zeros_like(V_NR),
    )
    overlap = V_NR.T @ V_NR - torch.eye(V_NR.shape[1], dtype=V_NR.dtype)
    residual = product - V_NR * image_LR.square().sum(0)
    return bool(overlap.abs().max() < TOLERANCE) and bool(residual.abs().max() < TOLERANCE * largest)
