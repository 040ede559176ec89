"""Seeds by purpose: pinned values, independence, and no effect on the global stream."""

from __future__ import annotations

import torch

from rosa_bench.system.seeds import derive, generator, seeds


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
