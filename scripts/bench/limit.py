"""Operations per second of a training step, as a share of what a large matrix product reaches on the same threads."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.harness import DEVICE, Found, Options, Target, alternate, number, quartiles, ratios, spread
from bench.ours import Ours, now
from bench.shapes import folder, size_of
from bench.steps import made, step_seconds
from rosa_bench.models import onednn

METHODS = ("full", "lora", "rosa", "dylora", "meft1")
SHARE = 0.75
KINDS = {  # of kernels in a profile, by how their names begin
    "linear maps": ("mkldnn._linear_pointwise", "aten.addmm"),
    "products of low-rank terms": ("aten.mm",),
    "products of attention": ("aten.bmm", "aten._scaled_dot_product"),
    "masks of dropout": ("aten.bernoulli_", "aten.native_dropout"),
    "activation, softmax and norms": ("aten.gelu", "aten._softmax", "aten.native_layer_norm"),
    "sums, products and copies of single numbers": ("aten.add", "aten.mul", "aten.copy_", "aten.div", "aten.where"),
}
PRODUCT = 4096  # rows, columns and depth of the product whose speed is the limit


def measure(options: Options) -> Found:
    """In every round the limit, by each library there is, and a step of each method."""
    with (
        folder(size_of(options.size, options.quick)) as model,
        tempfile.TemporaryDirectory(prefix="rosa_bench-") as out,
    ):
        runs = made(options, model, Path(out), METHODS)
        operations = {name: counted(one) for name, one in runs.items()}
        times: dict[str, Callable[[], float]] = {name: partial(step_seconds, one) for name, one in runs.items()}
        speeds = {n: (lambda n=n, t=t: operations[n].total() / t()) for n, t in times.items()}
        peaks = _products(256 if options.quick else PRODUCT, options.precision)
        measured = alternate({**peaks, **speeds}, options.rounds)
        measured["limit"] = [max(both) for both in zip(*(measured[name] for name in peaks), strict=True)]
        profile = _profile(runs["lora"], operations["lora"], median(measured["limit"]))
    totals = {name: count.total() for name, count in operations.items()}
    found = Found(numbers={"operations": totals, "operations_per_s": measured})
    table: list[tuple[str, ...]] = [("", "GFLOP a step", "GFLOP/s", "share of the limit (quartiles)")]
    table += [(f"a product by {name}", "", number(median(measured[name]) / 1e9), "") for name in peaks]
    for name in METHODS:
        share = ratios(measured, name, "limit")
        table.append((name, number(totals[name] / 1e9), number(median(measured[name]) / 1e9), spread(share)))
        found.targets.append(Target(f"share of the limit, {name}", quartiles(share)[1], SHARE))
    found.tables += [table, profile]
    found.notes.append(
        f"{options.batch} rows of {options.length} tokens, {options.precision}. Operations: matrix products of a step, "
        "with what MEFT computes again; the limit: two square matrices by the faster library."
    )
    return found


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products as they are called, in backward passes within backward passes too."""

    def __init__(self) -> None:
        super().__init__()
        self.by: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        if onednn.available() and packet is torch.ops.mkldnn._linear_pointwise:
            x, weight_OI = args[:2]
            self.by[str(packet)] += 2 * x.numel() * weight_OI.shape[0]
        elif packet in flop_registry:
            self.by[str(packet)] += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        return out


def counted(one: Ours) -> Counter[str]:
    """Operations of the matrix products of one step, by kernel."""
    counter = Operations()
    _within(one, counter)
    return counter.by


def _within(one: Ours, context: AbstractContextManager[Any]) -> None:
    """One forward and backward pass in a context."""

    def watched(trainer: Any) -> None:
        usual = trainer.training_step

        def step(*arguments: Any, **more: Any) -> torch.Tensor:
            with context:
                loss: torch.Tensor = usual(*arguments, **more)
            return loss

        trainer.training_step = step

    one.train(1, watched)


def _profile(one: Ours, operations: Counter[str], limit: float) -> list[tuple[str, ...]]:
    """Where the time of a step goes: seconds by kind of kernel, and what its products alone would take at the limit."""
    profiler = torch.profiler.profile()
    _within(one, profiler)
    times = {event.key.replace("::", "."): _own_time(event) / 1e6 for event in profiler.key_averages()}
    whole = sum(times.values())
    table: list[tuple[str, ...]] = [("a pass of LoRA, forward and backward", "s", "share", "at the limit, s")]
    rest = whole
    for kind, kernels in KINDS.items():
        spent = sum(time for name, time in times.items() if name.startswith(kernels))
        least = sum(count for name, count in operations.items() if name.startswith(kernels)) / limit
        rest -= spent
        table.append((kind, number(spent), f"{spent / whole:.1%}", number(least) if least else ""))
    return [*table, ("everything else", number(rest), f"{rest / whole:.1%}", "")]


def _own_time(event: Any) -> float:
    """Microseconds in a kernel without those that it calls."""
    return float(event.self_device_time_total if DEVICE == "cuda" else event.self_cpu_time_total)


def _products(size: int, precision: str) -> dict[str, Callable[[], float]]:
    """Operations per second of a square product by torch's own way and, without a GPU, by oneDNN."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    ways: dict[str, Callable[[], torch.Tensor]] = {"torch": lambda: a @ b}
    if DEVICE == "cpu" and onednn.available():
        ways["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    def speed(way: Callable[[], torch.Tensor]) -> float:
        began = now()
        way()
        return 2 * size**3 / (now() - began)

    return {name: partial(speed, way) for name, way in ways.items()}
