"""Separate seeds and generators for each purpose, derived from the run's seed and a name.

No function here uses a global random stream, so random draws for one purpose never affect another.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    import torch


def derive(*parts: object) -> int:
    """A seed below 2**31 derived from printable parts, the same on every platform."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") >> 1


@dataclass(frozen=True)
class Seeds:
    """The seeds of a run: new weights, data order, dropout, and the method's random draws."""

    init: int
    data: int
    dropout: int
    method: int


def seeds(seed: int) -> Seeds:
    """Four independent seeds derived from a run's seed."""
    return Seeds(derive(seed, "init"), derive(seed, "data"), derive(seed, "dropout"), derive(seed, "method"))


def generator(*parts: object) -> torch.Generator:
    """A new CPU generator seeded by `parts`, so that all devices, processes and resumed runs draw the same numbers."""
    import torch

    return torch.Generator().manual_seed(derive(*parts))


_STATES = threading.RLock()


@contextlib.contextmanager
def only_thread() -> Iterator[None]:
    """Hold the process's random states, which two threads would mix. Raises UsageError if another thread has them."""
    if not _STATES.acquire(blocking=False):
        raise UsageError("another thread of this process is training; wait for it, or use another process")
    try:
        yield
    finally:
        _STATES.release()


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the global random states of Python, NumPy and torch after the block."""
    import numpy as np
    import torch

    on_gpu, seed = torch.cuda.is_initialized(), torch.initial_seed()
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpu = torch.cuda.get_rng_state_all() if on_gpu else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if on_gpu:
            torch.cuda.set_rng_state_all(gpu)
        elif torch.cuda.is_initialized():  # within the block; otherwise it would start from the caller's seed
            torch.cuda.manual_seed_all(seed)
