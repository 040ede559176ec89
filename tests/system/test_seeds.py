"""Seeds by purpose: pinned values, independence, and no effect on the global stream."""

from __future__ import annotations

import threading

import torch

from rosa_bench.system.seeds import derive, generator, preserved_random_state, seeds


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


def test_threads_that_preserve_random_states_wait_for_each_other():
    """Otherwise the inner block would restore a state from the middle of the outer one."""
    inside, entered = threading.Event(), threading.Event()

    def other():
        inside.wait()
        with preserved_random_state():
            entered.set()

    thread = threading.Thread(target=other)
    thread.start()
    with preserved_random_state(), preserved_random_state():
        inside.set()
        assert not entered.wait(0.2)
    thread.join()
    assert entered.is_set()
