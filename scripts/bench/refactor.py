"""ROSA's splits against full decompositions: time, accuracy, the same subspaces, memory, and the share of an epoch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.harness import Found, Options, Target, alternate, number, quartiles, ratios, spread
from bench.ours import Ours, now
from bench.shapes import SIZES, folder, size_of
from rosa_bench.methods.rosa import Rosa, factorize
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.system.memory import PeakMemory
from rosa_bench.system.seeds import generator

COLA = 8551  # training rows of the public set
SAMPLED = 2  # matrices of a shape that a peer decomposes in a round, the time of the others being the same
SETS = {"attention": "[q,k,v,o]", "attention and feed-forward": "[all]"}
FULL = "torch.linalg.svd as it comes"


def measure(options: Options) -> Found:
    """In every round our split of the whole model, and the peers' decompositions of some matrices of each shape."""
    found = Found()
    size = size_of(options.size, options.quick)
    with folder(size) as model, tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        for label, targets in SETS.items():
            one = Ours(("method=rosa", f"method.targets={targets}", "train.limit_train=8"), model, Path(out) / label)
            _times(options, found, label, one)
            if label == "attention and feed-forward":
                _accuracy(found, one.model)
            del one
        _share(options, found, model, Path(out))
    found.notes.append(
        f"RoBERTa's {size} shape with random weights, rank 8. Peers decompose {SAMPLED} matrices of each shape in a "
        "round, and their time is that of a matrix times how many there are."
    )
    return found


def _times(options: Options, found: Found, label: str, one: Ours) -> None:
    weights = [module.weight_of(site).detach() for module, site in lowrank_sites(one.model)]
    method = one.run.method
    assert isinstance(method, Rosa)
    index = iter(range(1, 10**6))
    method.split(one.model, 0, 0)
    largest = max(weights, key=torch.Tensor.numel)
    thin = partial(torch.linalg.svd, full_matrices=False)
    thin(largest)
    works = {"split": lambda: method.split(one.model, 0, next(index)), "thin": lambda: thin(largest)}
    grown = alternate({name: partial(_spike, work) for name, work in works.items()}, options.rounds)
    spikes = [median(grown[name]) for name in works]
    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: _timed(lambda: method.split(one.model, 0, next(index))),
        FULL: partial(_scaled, torch.linalg.svd, weights),
        "the same, thin": partial(_scaled, thin, weights),
        "thin in fp64": partial(_scaled, lambda W: torch.linalg.svd(W.double(), full_matrices=False), weights),
    }
    measured = alternate(contenders, options.rounds)
    found.numbers[label] = {"seconds": measured, "matrices": len(weights), "growth_bytes": grown}
    held = [f"{spike / 1e6:.1f} MB" for spike in spikes]
    found.notes.append(f"{label}: a split lets the process grow by {held[0]}, one thin decomposition by {held[1]}.")
    table: list[tuple[str, ...]] = [(f"{len(weights)} matrices: {label}", "s", "ours is faster by (quartiles)")]
    for name, times in measured.items():
        table.append((name, number(quartiles(times)[1]), spread(ratios(measured, name, "ours"))))
    found.tables.append(table)
    found.targets.append(Target(f"{label}: over {FULL}", quartiles(ratios(measured, FULL, "ours"))[1], 5))
    if spikes[1]:  # a process that has been larger before shows no growth
        what = f"{label}: growth in a split over that of one thin SVD of its largest matrix"
        found.targets.append(Target(what, spikes[0] / spikes[1], 1, at_least=False))


def _timed(work: Callable[[], object]) -> float:
    began = now()
    work()
    return now() - began


def _scaled(decompose: Callable[[torch.Tensor], Any], weights: Sequence[torch.Tensor]) -> float:
    """Seconds for all weights, from some of each shape."""
    total = 0.0
    for shape in sorted({tuple(W.shape) for W in weights}):
        same = [W for W in weights if tuple(W.shape) == shape]
        some = same[:SAMPLED]
        total += _timed(lambda some=some: [decompose(W) for W in some]) * len(same) / len(some)
    return total


def _spike(work: Callable[[], object]) -> int:
    """Bytes by which the process, or a GPU's allocator, grows at most meanwhile."""
    peak = PeakMemory()
    before = peak.read()
    work()
    after = peak.read()
    peak.close()
    name = "peak_device_bytes" if "peak_device_bytes" in after else "peak_rss_bytes"
    return after[name] - before[name]


def _accuracy(found: Found, model: Any) -> None:
    """The largest errors over one matrix of each shape, and over several draws."""
    weights = {tuple(W.shape): W for W in (m.weight_of(s).detach() for m, s in lowrank_sites(model))}
    sums, sides, spaces = [0.0], [0.0], [0.0]
    for W in weights.values():
        for seed in range(3):
            (rest, A, B), (_, A_svd, B_svd) = (
                factorize(W, 8, generator(seed), "random", "a", solver) for solver in ("gram", "svd")
            )
            sums.append(float((rest + A @ B - W).norm() / W.norm()))
            sides.append(float((B @ B.T - torch.eye(8).to(B)).abs().max()))
            spaces.append(float((A @ B - A_svd @ B_svd).norm() / (A_svd @ B_svd).norm()))
    found.targets += [
        Target("|W_rest + A B - W| / |W|", max(sums), 1e-5, at_least=False),
        Target("|B B' - 1|, the largest entry", max(sides), 1e-4, at_least=False),
        Target("|A B - A B of a full decomposition| / |A B|, same draw", max(spaces), 1e-4, at_least=False),
    ]
    found.numbers["accuracy"] = {"sum": max(sums), "orthonormality": max(sides), "subspace": max(spaces)}


def _share(options: Options, found: Found, model: Path, out: Path) -> None:
    """The share of a split in an epoch of CoLA's size: its steps are timed on 512 rows."""
    rows = 32 if options.quick else 512
    one = Ours(("method=rosa", f"train.limit_train={rows}", f"train.batch_size={options.batch}"), model, out / "epoch")
    method = one.run.method
    assert isinstance(method, Rosa)
    one.train(2)
    index = iter(range(1, 10**6))
    shares = []
    for _ in range(min(3, options.rounds)):
        epoch = one.train().whole * COLA / len(one.rows)
        split = _timed(lambda: method.split(one.model, 0, next(index)))
        shares.append(split / (epoch + split))
    found.numbers["share_of_an_epoch"] = shares
    width = SIZES[size_of(options.size, options.quick)][0]
    what = f"share of a split (width {width}, q k v o) in an epoch of {COLA:,} rows"
    found.targets.append(Target(what, quartiles(shares)[1], 0.03, at_least=False))
