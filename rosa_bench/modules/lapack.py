"""BLAS and LAPACK routines called without holding the GIL, so that threads can run them in parallel.

scipy's own wrappers hold the GIL, so the routines are called through pointers that scipy exports for Cython
(`scipy.linalg.cython_lapack`). If a scipy build exports none, its wrappers compute the same bits, one matrix at a time:
on two threads a 768 x 768 matrix then takes 36 ms instead of 20. Matrices are fp64 in Fortran order. Integers are
passed as 64 bits; a library with 32-bit integers reads the lower half.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

Array = NDArray[np.float64]


def add_square(C_NN: Array, rows_KN: Array) -> None:
    """Add rows^T rows to the lower triangle of C in place (`dsyrk`). Rows in C or Fortran order are not copied."""
    K, N = rows_KN.shape
    by_columns = rows_KN.flags.f_contiguous
    if (dsyrk := _routine("cython_blas", "dsyrk")) is None:
        rows, transposed = (rows_KN, 1) if by_columns else (rows_KN.T, 0)
        blas.dsyrk(1.0, rows, 1.0, C_NN, trans=transposed, lower=1, overwrite_c=1)
        return
    leading, transpose = (K, b"T") if by_columns else (N, b"N")
    dsyrk(*_arguments(b"L", transpose, N, K, 1.0, rows_KN, leading, 1.0, C_NN, N))


def tridiagonal(G_NN: Array) -> tuple[Array, Array, Array] | None:
    """Reduce a symmetric matrix to tridiagonal form (`dsytrd`).

    Returns the diagonal [N], the off-diagonal [N-1] and the scalar factors of the reflectors [N-1], or None if LAPACK
    fails. Reads the lower triangle and overwrites it with the reflectors.
    """
    N = len(G_NN)
    if (dsytrd := _routine("cython_lapack", "dsytrd")) is None:
        _, *parts, failure = lapack.dsytrd(G_NN, lower=1, lwork=64 * N, overwrite_a=1)
        return None if failure else (parts[0], parts[1], parts[2])
    diagonal, off_diagonal, tau, work = np.empty(N), np.empty(N - 1), np.empty(N - 1), np.empty(64 * N)
    failed = ctypes.c_int64(0)
    arguments = _arguments(b"L", N, G_NN, N, diagonal, off_diagonal, tau, work, len(work))
    dsytrd(*arguments, ctypes.byref(failed))
    return None if failed.value else (diagonal, off_diagonal, tau)


def eigenvalues(diagonal: Array, off_diagonal: Array) -> Array | None:
    """All eigenvalues [N] of a tridiagonal matrix in ascending order (`dsterf`), or None if LAPACK fails."""
    if (dsterf := _routine("cython_lapack", "dsterf")) is None:
        values, failure = lapack.dsterf(diagonal, off_diagonal)
        return None if failure else values
    values, overwritten, failed = diagonal.copy(), off_diagonal.copy(), ctypes.c_int64(0)
    arguments = _arguments(len(values), values, overwritten)
    dsterf(*arguments, ctypes.byref(failed))
    return None if failed.value else values


def _arguments(*values: bytes | int | float | Array) -> list[Any]:
    """Pointers to the values, as Fortran expects them. They do not keep arrays alive."""
    kinds: dict[type, Callable[[Any], Any]] = {bytes: ctypes.c_char, int: ctypes.c_int64, float: ctypes.c_double}
    return [
        ctypes.c_void_p(value.ctypes.data) if isinstance(value, np.ndarray) else ctypes.byref(kinds[type(value)](value))
        for value in values
    ]


@cache
def _routine(module: str, name: str) -> Callable[..., None] | None:
    """The routine that scipy exports, or None if this scipy does not."""
    try:
        capsule = importlib.import_module(f"scipy.linalg.{module}").__pyx_capi__[name]
    except (ImportError, AttributeError, KeyError):
        return None
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(address_of(capsule, name_of(capsule)))
