"""How many threads work: as many as a run asks for, and on many matrices at a time one thread for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Found = TypeVar("Found")


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """`count` threads of torch inside, the usual number if it is None; outside all is as it was, for the next run."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parallel(work: Callable[..., Found], items: Iterable[tuple[Any, ...]]) -> Iterator[Found]:
    """`work(*item)` of every item, in order, as many at a time as torch has threads.

    The libraries of linear algebra, torch's own included, have one thread for each item: decompositions of a
    transformer's weights gain little from two, and the results are the same for any number of threads.
    """
    threads = torch.get_num_threads()
    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads, initializer=_alone) as pool:
        try:
            yield from pool.map(lambda item: work(*item), items)
        finally:
            torch.set_num_threads(threads)  # what a worker set is what threads to come would begin with


_alone = partial(torch.set_num_threads, 1)


@cache
def _libraries() -> Any:
    import scipy.linalg  # noqa: F401  # so that its library is among those that are found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
