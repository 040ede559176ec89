"""Measurements cover exactly their period."""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from rosa_bench.system.memory import PeakMemory, saved_bytes

BIG = 60_000_000  # floats: 240 MB


def test_a_peak_is_forgotten_by_the_next_measurement():
    first = PeakMemory()
    block = torch.ones(BIG)
    during = first.read()["peak_rss_bytes"]
    del block
    second = PeakMemory()
    after = second.read()["peak_rss_bytes"]
    assert during - after > 0.8 * 4 * BIG


def test_saved_bytes_of_a_matrix_product():
    layer = torch.nn.Linear(100, 50, bias=False)
    x = torch.randn(8, 100, requires_grad=True)
    with saved_bytes(layer) as saved:
        layer(x).sum().backward()
    assert saved.bytes == 8 * 100 * 4  # the input; the weight is a parameter


def test_saved_bytes_count_a_shared_storage_once():
    x = torch.randn(1000, requires_grad=True)
    with saved_bytes(torch.nn.Identity()) as saved:
        y = x.exp()  # keeps its output
        (y * y).sum().backward()  # keeps y, which is the same storage
    assert saved.bytes == 4 * 1000


def test_saved_bytes_are_the_most_at_a_time():
    x = torch.randn(1000, requires_grad=True)
    with saved_bytes(torch.nn.Identity()) as saved:
        for _ in range(3):
            x.exp().sum().backward()  # its output is free again before the next
        assert saved.now == 0 and saved.bytes == 4 * 1000
        both = x.exp().sum(), x.exp().sum()
    assert saved.bytes == 8 * 1000 and len(both) == 2


def test_saved_bytes_include_recomputed_activations():
    """At most the inputs of all layers and the activations of one layer."""
    layers = torch.nn.ModuleList(
        torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16)) for _ in range(6)
    )
    x = torch.randn(1000, 16, requires_grad=True)
    with saved_bytes(layers) as saved:
        h = x
        for layer in layers:
            h = checkpoint(layer, h, use_reentrant=False)
        assert saved.now == 4 * 1000 * 6 * 16
        h.sum().backward()
    assert saved.bytes == 4 * 1000 * (6 * 16 + 64) and saved.now == 0
