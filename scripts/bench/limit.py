"""Operations per second of a training step, relative to a large matrix product on the same threads."""

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

from bench.harness import DEVICE, Options, Result, Target, alternate, number, quartiles, ratios, spread
from bench.ours import Ours, now
from bench.shapes import folder, size_of
from bench.steps import build_runs, step_seconds
from rosa_bench.models import onednn

METHODS = ("full", "lora", "rosa", "dylora", "meft1")
SHARE = 0.75
KINDS = {  # kernels of a profile by the prefixes of their names
    "linear maps": ("mkldnn._linear_pointwise", "aten.addmm"),
    "products of low-rank terms": ("aten.mm",),
    "products of attention": ("aten.bmm", "aten._scaled_dot_product"),
    "masks of dropout": ("aten.bernoulli_", "aten.native_dropout"),
    "activation, softmax and norms": ("aten.gelu", "aten._softmax", "aten.native_layer_norm"),
    "sums, products and copies of single numbers": ("aten.add", "aten.mul", "aten.copy_", "aten.div", "aten.where"),
}
PRODUCT = 4096  # rows, columns and depth of the matrix product that defines the limit


def measure(options: Options) -> Result:
    """Measure the limit with each available library, and a step of each method, in every round."""
    with (
        folder(size_of(options.size, options.quick)) as model,
        tempfile.TemporaryDirectory(prefix="rosa_bench-") as out,
    ):
        runs = build_runs(options, model, Path(out), METHODS)
        operations = {name: counted(ours) for name, ours in runs.items()}
        times: dict[str, Callable[[], float]] = {name: partial(step_seconds, ours) for name, ours in runs.items()}
        speeds = {n: (lambda n=n, t=t: operations[n].total() / t()) for n, t in times.items()}
        peaks = _products(256 if options.quick else PRODUCT, options.precision)
        measured = alternate({**peaks, **speeds}, options.rounds)
        measured["limit"] = [max(both) for both in zip(*(measured[name] for name in peaks), strict=True)]
        profile = _profile(runs["lora"], operations["lora"], median(measured["limit"]))
    totals = {name: count.total() for name, count in operations.items()}
    result = Result(numbers={"operations": totals, "operations_per_s": measured})
    table: list[tuple[str, ...]] = [("", "GFLOP a step", "GFLOP/s", "share of the limit (quartiles)")]
    table += [(f"a product by {name}", "", number(median(measured[name]) / 1e9), "") for name in peaks]
    for name in METHODS:
        share = ratios(measured, name, "limit")
        table.append((name, number(totals[name] / 1e9), number(median(measured[name]) / 1e9), spread(share)))
        result.targets.append(Target(f"share of the limit, {name}", quartiles(share)[1], SHARE))
    result.tables += [table, profile]
    result.notes.append(
        f"{options.batch} rows of {options.length} tokens, {options.precision}. Operations: matrix products of a step, "
        "including those that MEFT recomputes. The limit is the product of two square matrices by the faster library."
    )
    return result


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products, including those in nested backward passes."""

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


def counted(ours: Ours) -> Counter[str]:
    """Operations in the matrix products of one step, by kernel."""
    counter = Operations()
    _within(ours, counter)
    return counter.by


def _within(ours: Ours, context: AbstractContextManager[Any]) -> None:
    """Run one forward and backward pass inside a context."""

    def prepare(trainer: Any) -> None:
        training_step = trainer.training_step

        def step(*arguments: Any, **more: Any) -> torch.Tensor:
            with context:
                loss: torch.Tensor = training_step(*arguments, **more)
            return loss

        trainer.training_step = step

    ours.train(1, prepare)


def _profile(ours: Ours, operations: Counter[str], limit: float) -> list[tuple[str, ...]]:
    """Seconds of a step by kind of kernel, and the time that its matrix products would take at the limit."""
    profiler = torch.profiler.profile()
    _within(ours, profiler)
    times = {event.key.replace("::", "."): _own_time(event) / 1e6 for event in profiler.key_averages()}
    total = sum(times.values())
    table: list[tuple[str, ...]] = [("a pass of LoRA, forward and backward", "s", "share", "at the limit, s")]
    remaining = total
    for kind, kernels in KINDS.items():
        spent = sum(time for name, time in times.items() if name.startswith(kernels))
        at_limit = sum(count for name, count in operations.items() if name.startswith(kernels)) / limit
        remaining -= spent
        table.append((kind, number(spent), f"{spent / total:.1%}", number(at_limit) if at_limit else ""))
    return [*table, ("other kernels", number(remaining), f"{remaining / total:.1%}", "")]


def _own_time(event: Any) -> float:
    """Microseconds in a kernel, without the kernels that it calls."""
    return float(event.self_device_time_total if DEVICE == "cuda" else event.self_cpu_time_total)


def _products(size: int, precision: str) -> dict[str, Callable[[], float]]:
    """Operations per second of a square product by torch and, on the CPU, by oneDNN."""
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
