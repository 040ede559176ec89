"""ROSA's factorizations against full decompositions: time, accuracy, memory, and their share of an epoch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.harness import Options, Result, Target, alternate, number, quartiles, ratios, spread
from bench.ours import Ours, now
from bench.shapes import SIZES, folder, size_of
from rosa_bench.methods.rosa import Rosa, factorize
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.system.memory import PeakMemory
from rosa_bench.system.seeds import generator

COLA = 8551  # training rows of the public set
SAMPLED = 2  # matrices per shape that a peer decomposes in a round; the others take the same time
SETS = {"attention": "[q,k,v,o]", "attention and feed-forward": "[all]"}
FULL = "torch.linalg.svd"


def measure(options: Options) -> Result:
    """Measure our split of the whole model, and the peers' decompositions of some matrices of each shape."""
    result = Result()
    size = size_of(options.size, options.quick)
    with folder(size) as model, tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        for label, targets in SETS.items():
            ours = Ours(("method=rosa", f"method.targets={targets}", "train.limit_train=8"), model, Path(out) / label)
            _times(options, result, label, ours)
            if label == "attention and feed-forward":
                _accuracy(result, ours.model)
            del ours
        _share(options, result, model, Path(out))
    result.notes.append(
        f"RoBERTa's {size} shape with random weights, rank 8. Peers decompose {SAMPLED} matrices of each shape in a "
        "round; their time is scaled to all matrices."
    )
    return result


def _times(options: Options, result: Result, label: str, ours: Ours) -> None:
    weights = [module.weight_of(site).detach() for module, site in lowrank_sites(ours.model)]
    method = ours.run.method
    assert isinstance(method, Rosa)
    index = iter(range(1, 10**6))
    method.split(ours.model, 0, 0)
    largest = max(weights, key=torch.Tensor.numel)
    thin = partial(torch.linalg.svd, full_matrices=False)
    thin(largest)
    works = {"split": lambda: method.split(ours.model, 0, next(index)), "thin": lambda: thin(largest)}
    growths = alternate({name: partial(_spike, work) for name, work in works.items()}, options.rounds)
    spikes = [median(growths[name]) for name in works]
    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: _timed(lambda: method.split(ours.model, 0, next(index))),
        FULL: partial(_scaled, torch.linalg.svd, weights),
        "the same, thin": partial(_scaled, thin, weights),
        "thin in fp64": partial(_scaled, lambda W: torch.linalg.svd(W.double(), full_matrices=False), weights),
    }
    measured = alternate(contenders, options.rounds)
    result.numbers[label] = {"seconds": measured, "matrices": len(weights), "growth_bytes": growths}
    growth = [f"{spike / 1e6:.1f} MB" for spike in spikes]
    result.notes.append(f"{label}: a split grows the process by {growth[0]}, one thin decomposition by {growth[1]}.")
    table: list[tuple[str, ...]] = [(f"{len(weights)} matrices: {label}", "s", "ours is faster by (quartiles)")]
    for name, times in measured.items():
        table.append((name, number(quartiles(times)[1]), spread(ratios(measured, name, "ours"))))
    result.tables.append(table)
    result.targets.append(Target(f"{label}: over {FULL}", quartiles(ratios(measured, FULL, "ours"))[1], 5))
    if spikes[1]:  # no growth is visible if the process was larger before
        what = f"{label}: growth in a split over that of one thin SVD of its largest matrix"
        result.targets.append(Target(what, spikes[0] / spikes[1], 1, at_least=False))


def _timed(work: Callable[[], object]) -> float:
    began = now()
    work()
    return now() - began


def _scaled(decompose: Callable[[torch.Tensor], Any], weights: Sequence[torch.Tensor]) -> float:
    """Seconds for all weights, extrapolated from some of each shape."""
    total = 0.0
    for shape in sorted({tuple(W.shape) for W in weights}):
        same = [W for W in weights if tuple(W.shape) == shape]
        sample = same[:SAMPLED]
        total += _timed(lambda sample=sample: [decompose(W) for W in sample]) * len(same) / len(sample)
    return total


def _spike(work: Callable[[], object]) -> int:
    """The largest growth of the process, or of a GPU's allocator, during `work`, in bytes."""
    peak = PeakMemory()
    before = peak.read()
    work()
    after = peak.read()
    peak.close()
    name = "peak_device_bytes" if "peak_device_bytes" in after else "peak_rss_bytes"
    return after[name] - before[name]


def _accuracy(result: Result, model: Any) -> None:
    """The largest errors over one matrix of each shape and several draws."""
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
    result.targets += [
        Target("|W_rest + A B - W| / |W|", max(sums), 1e-5, at_least=False),
        Target("|B B' - 1|, the largest entry", max(sides), 1e-4, at_least=False),
        Target("|A B - A B of a full decomposition| / |A B|, same draw", max(spaces), 1e-4, at_least=False),
    ]
    result.numbers["accuracy"] = {"sum": max(sums), "orthonormality": max(sides), "subspace": max(spaces)}


def _share(options: Options, result: Result, model: Path, out: Path) -> None:
    """The share of a split in an epoch of CoLA's size, extrapolated from 512 rows."""
    rows = 32 if options.quick else 512
    ours = Ours(("method=rosa", f"train.limit_train={rows}", f"train.batch_size={options.batch}"), model, out / "epoch")
    method = ours.run.method
    assert isinstance(method, Rosa)
    ours.train(2)
    index = iter(range(1, 10**6))
    shares = []
    for _ in range(min(3, options.rounds)):
        epoch = ours.train().total * COLA / len(ours.rows)
        split = _timed(lambda: method.split(ours.model, 0, next(index)))
        shares.append(split / (epoch + split))
    result.numbers["share_of_an_epoch"] = shares
    width = SIZES[size_of(options.size, options.quick)][0]
    name = f"share of a split (width {width}, q k v o) in an epoch of {COLA:,} rows"
    result.targets.append(Target(name, quartiles(shares)[1], 0.03, at_least=False))
