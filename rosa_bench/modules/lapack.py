"""Routines of BLAS and LAPACK, called without holding Python's lock, so that threads can call them side by side.

scipy's own wrappers hold it. The addresses are those that scipy publishes for Cython (`scipy.linalg.cython_lapack`).
Matrices are fp64 in Fortran's order; an integer is passed as 64 bits, of which a library with short ones reads the
lower half.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def add_square(C_NN: Array, rows_KN: Array) -> None:
    """C + rows' rows in place, its lower triangle (`dsyrk`); rows are contiguous either way, and not copied."""
    K, N = rows_KN.shape
    by_columns = rows_KN.flags.f_contiguous
    leading, how = (K, b"T") if by_columns else (N, b"N")
    _routine("cython_blas", "dsyrk")(*_arguments(b"L", how, N, K, 1.0, rows_KN, leading, 1.0, C_NN, N))


def tridiagonal(G_NN: Array) -> tuple[Array, Array, Array] | None:
    """The diagonal [N], what is beside it [N-1] and the reflectors' factors [N-1] of a symmetric matrix (`dsytrd`).

    Its lower triangle is read, and written over with the reflectors. None where LAPACK gives up.
    """
    N = len(G_NN)
    diagonal, beside, tau, room = np.empty(N), np.empty(N - 1), np.empty(N - 1), np.empty(64 * N)
    failed = ctypes.c_int64(0)
    given = _arguments(b"L", N, G_NN, N, diagonal, beside, tau, room, len(room))
    _routine("cython_lapack", "dsytrd")(*given, ctypes.byref(failed))
    return None if failed.value else (diagonal, beside, tau)


def eigenvalues(diagonal: Array, beside: Array) -> Array | None:
    """All eigenvalues [N] of a tridiagonal matrix in ascending order (`dsterf`). None where LAPACK gives up."""
    values, overwritten, failed = diagonal.copy(), beside.copy(), ctypes.c_int64(0)
    given = _arguments(len(values), values, overwritten)
    _routine("cython_lapack", "dsterf")(*given, ctypes.byref(failed))
    return None if failed.value else values


def _arguments(*values: bytes | int | float | Array) -> list[Any]:
    """Pointers to them, as Fortran wants them; they do not keep an array alive."""
    kinds: dict[type, Callable[[Any], Any]] = {bytes: ctypes.c_char, int: ctypes.c_int64, float: ctypes.c_double}
    return [
        ctypes.c_void_p(value.ctypes.data) if isinstance(value, np.ndarray) else ctypes.byref(kinds[type(value)](value))
        for value in values
    ]


@cache
def _routine(module: str, name: str) -> Callable[..., None]:
    import importlib

    capsule = importlib.import_module(f"scipy.linalg.{module}").__pyx_capi__[name]
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(address_of(capsule, name_of(capsule)))
