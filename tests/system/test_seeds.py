"""Seeds by purpose: pinned values, independence, and no effect on the global stream."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rosa_bench.errors import UsageError
from rosa_bench.system.seeds import derive, generator, only_thread, preserved_random_state, seeds


def test_values_are_pinned():
    assert derive("a", 1) == derive("a/1") == 1436096827 != derive("a", 2)
    assert 0 <= derive("x") < 2**31


def test_purposes_are_independent():
    values = [seed for run in range(50) for seed in vars(seeds(run)).values()]
    assert len(set(values)) == 200


def test_generators_leave_the_global_stream_alone():
    before = torch.random.get_rng_state()
    first, again, other = (torch.rand(5, generator=generator("m", step, "site")) for step in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_gpu_that_is_first_used_in_the_block_continues_from_the_callers_seed(monkeypatch):
    seeded, initialized = [], iter([False, True])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: next(initialized))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(5)
        with preserved_random_state():
            torch.random.default_generator.manual_seed(99)
    assert seeded == [5]


def test_random_states_belong_to_one_thread():
    """Otherwise a thread would restore a state from the middle of the work of another."""
    refused = pytest.raises(UsageError, match="another thread of this process is training")
    with ThreadPoolExecutor(1) as pool, only_thread(), only_thread(), refused:
        pool.submit(only_thread().__enter__).result()


def test_threads_of_a_run_preserve_random_states():
    """The backward pass of a GPU runs in its own thread, where MEFT repeats random draws."""

    def draw():
        with preserved_random_state():
            return torch.rand(1)

    with ThreadPoolExecutor(1) as pool, only_thread(), preserved_random_state():
        assert pool.submit(draw).result(timeout=10) >= 0
