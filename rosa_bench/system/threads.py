"""Thread counts: torch's threads for a run, and one thread per matrix for parallel linear algebra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Use `count` torch threads in the block (None: the current number), then restore the previous number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parallel(work: Callable[..., Result], items: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """Yield `work(*item)` for every item in order, with as many workers as torch has threads.

    Each worker runs linear algebra, including torch's, on one thread: decompositions of a transformer's weights gain
    little from more threads, and the results do not depend on the number of workers.
    """
    threads = torch.get_num_threads()
    alone = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    with _libraries().limit(limits=1, user_api="blas"), alone as pool:
        try:
            yield from pool.map(lambda item: work(*item), items)
        finally:
            torch.set_num_threads(threads)  # otherwise new threads would inherit a worker's setting


@cache
def _libraries() -> Any:
    import scipy.linalg  # noqa: F401  # loads its BLAS, so that the controller detects it
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
