"""Milliseconds and memory of a training step, ours and the peers', at three lengths; kernel launches and busy time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.harness import DEVICE, Options, Result, Target, alternate, number, quartiles, ratios
from bench.ours import Ours, Span
from bench.peers import Peer
from bench.shapes import even_rows, folder, size_of
from bench.steps import METHODS

FAST = ("train.fused=true",)  # the Trainer's default optimizer
PEERS = {"lora": "peft and Trainer", "full": "Trainer"}
SHORT = ("lora", "rosa", "dylora", "full", "meft1")
LONG = ("lora", "rosa", "dylora", "full", "lora+checkpointing", "meft1", "meft3")
FASTER = {"base": 2.5, 128: 1.5, 512: 1.2}  # required speedup over the peer
MEFT, ACTIVATIONS = 1.6, 0.16  # allowed: time over LoRA's, activations over full fine-tuning's


def measure(options: Options, size: str, length: int | None, names: tuple[str, ...], warm: int, steps: int) -> Result:
    """Measure every contender on rows of embedded CoLA (`length` None) or of one length, batches of 32, in bf16."""
    batch, faster = 8 if options.quick else 32, FASTER[length or size]
    warm, steps, rounds = (2, 2, 1) if options.quick else (warm, steps, options.rounds)
    length = length and (16 if options.quick else length)
    result = Result(numbers={"size": size, "length": length, "batch": batch})
    limits = (f"train.batch_size={batch}", f"train.max_length={length or 128}", f"train.limit_train={16 * batch}")
    with folder(size_of(size, options.quick)) as model, tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        rows = None if length is None else even_rows(4 * batch, length)
        runs: dict[str, Ours] = {}
        for name in names:
            overrides = (*METHODS[name], *limits, *FAST, "train.precision=bf16")
            runs[name] = Ours(overrides, model, Path(out) / name, rows)
            if name in ("lora", "full") and length is None:
                eager = (*overrides, "train.graphs=off")
                runs[f"{name}, no graphs"] = Ours(eager, model, Path(out) / f"{name}-eager", rows)
        peer_rows = rows or runs["lora"].rows
        peers = {f"{name}, {peer}": Peer(model, Path(out), lora=name == "lora") for name, peer in PEERS.items()}
        train = runs["lora"].run.train

        def ours(ours_run: Ours, name: str) -> float:
            begin = 6 * warm if name == "dylora" and length is None else warm  # a graph for each rank and length
            return 1e3 * clocked(ours_run, begin, steps)

        def theirs(peer: Peer) -> float:
            clock = Span(warm, steps)
            peer.train(peer_rows, train, warm + steps, clock=clock)
            return 1e3 * clock.each

        contenders: dict[str, Callable[[], float]] = {n: (lambda n=n, o=o: ours(o, n)) for n, o in runs.items()}
        contenders |= {name: (lambda peer=peer: theirs(peer)) for name, peer in peers.items()}
        bytes_of: dict[str, int | None] = {}
        measured = alternate(
            {name: partial(_watched, bytes_of, name, work) for name, work in contenders.items()}, rounds
        )
        activations = {name: ours_run.recorder.activations for name, ours_run in runs.items()}
        graphs = {name: ours_run.recorder.record.env.get("graphs") for name, ours_run in runs.items()}
        result.numbers |= {"ms": measured, "peak_bytes": bytes_of, "activation_bytes": activations, "graphs": graphs}
        profiles = {name: _profiled(runs[name]) for name in ("lora", "meft1") if length is None and DEVICE == "cuda"}
    _add(result, measured, bytes_of, activations, faster)
    result.numbers["profiles"] = profiles
    result.notes += [f"{name}: {text}" for name, text in profiles.items()]
    shape = f"RoBERTa's {size} shape, random weights, batches of {batch}, bf16, fused AdamW"
    row_kind = f"rows of {length} tokens" if length else "rows of embedded CoLA"
    result.notes.append(f"{shape}, {row_kind}; {steps} steps after {warm} warm-up steps.")
    return result


def clocked(ours: Ours, warm: int, steps: int) -> float:
    """Mean seconds of a step after `warm` warm-up steps."""
    clock = Span(warm, steps)
    ours.train(warm + steps, clock=clock)
    return clock.each


def _watched(bytes_of: dict[str, int | None], name: str, work: Callable[[], float]) -> float:
    """The result of a contender; its peak device memory is added to `bytes_of` (None without a GPU)."""
    if DEVICE != "cuda":
        bytes_of[name] = None
        return work()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    value = work()
    bytes_of[name] = torch.cuda.max_memory_allocated() - before
    return value


def _profiled(ours: Ours) -> str:
    """Profile five steps: kernel launches, synchronizations, and milliseconds that the GPU is busy."""
    profiler = torch.profiler.profile()

    def prepare(trainer: Any) -> None:
        training_step = trainer.training_step
        count = [0]

        def step(*arguments: Any, **more: Any) -> torch.Tensor:
            count[0] += 1
            if count[0] == 60:
                profiler.start()
            if count[0] == 65:
                profiler.stop()
            loss: torch.Tensor = training_step(*arguments, **more)
            return loss

        trainer.training_step = step

    ours.train(70, prepare, clock=Span(60, 10))
    events = profiler.key_averages()
    launches = sum(e.count for e in events if "LaunchKernel" in e.key)
    graphs = sum(e.count for e in events if "GraphLaunch" in e.key)
    waits = sum(e.count for e in events if "Synchronize" in e.key)
    busy = sum(float(e.self_device_time_total) for e in events) / 5e3
    counts = f"{launches / 5:.0f} kernel launches, {graphs / 5:.0f} graph launches, {waits / 5:.1f} synchronizations"
    return f"{counts} per step; GPU busy for {busy:.1f} ms"


def _add(
    result: Result,
    measured: dict[str, list[float]],
    bytes_of: Mapping[str, int | None],
    activations: Mapping[str, int | None],
    faster: float,
) -> None:
    rows: list[tuple[str, ...]] = [("contender", "ms per step", "over LoRA", "peak MB", "activations MB")]
    for name, times in measured.items():
        sizes = (bytes_of[name], activations.get(name))
        memory = tuple("" if size is None else f"{size / 1e6:,.0f}" for size in sizes)
        over_lora = quartiles(ratios(measured, name, "lora"))[1]
        rows.append((name, number(median(times)), number(over_lora), *memory))
    result.tables.append(rows)
    for name in ("lora", "rosa", "dylora", "full"):
        peer = f"full, {PEERS['full']}" if name == "full" else f"lora, {PEERS['lora']}"
        if name in measured:
            times = quartiles(ratios(measured, peer, name))[1]
            result.targets.append(Target(f"{peer}'s step over {name}'s", times, faster))
    full, checkpointed = activations.get("full"), activations.get("lora+checkpointing")
    for name in ("meft1", "meft3"):
        if name in measured and checkpointed:
            over_lora = quartiles(ratios(measured, name, "lora"))[1]
            result.targets.append(Target(f"a step of {name} over LoRA's", over_lora, MEFT, at_least=False))
            size = activations[name]
            if size and full:
                result.targets += [
                    Target(f"activations of {name}, of full's", size / full, ACTIVATIONS, at_least=False),
                    Target(f"activations of {name}, of checkpointing's", size / checkpointed, 1, at_least=False),
                ]


def short(options: Options) -> Result:
    """RoBERTa-base on CoLA's short rows."""
    return measure(options, "base", None, SHORT, 40, 40)


def medium(options: Options) -> Result:
    """RoBERTa-large at 128 tokens."""
    return measure(options, "large", 128, LONG, 4, 10)


def long(options: Options) -> Result:
    """RoBERTa-large at 512 tokens."""
    return measure(options, "large", 512, LONG, 3, 6)
