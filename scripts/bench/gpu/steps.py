"""Milliseconds of a training step, ours and the peers', in turn, at three lengths; memory, launches, busy time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.harness import DEVICE, Found, Options, Target, alternate, number, quartiles, ratios
from bench.ours import Ours, Span
from bench.peers import Peer
from bench.shapes import even_rows, folder, size_of
from bench.steps import METHODS

FAST = ("train.fused=true",)  # the Trainer's default optimiser
PEERS = {"lora": "peft and Trainer", "full": "Trainer"}
SHORT = ("lora", "rosa", "dylora", "full", "meft1")
LONG = ("lora", "rosa", "dylora", "full", "lora+checkpointing", "meft1", "meft3")
FASTER = {"base": 2.5, 128: 1.5, 512: 1.2}  # at least, over the peer
MEFT, ACTIVATIONS = 1.6, 0.16  # at most: a step over LoRA's, activations over full fine-tuning's


def measure(options: Options, size: str, length: int | None, names: tuple[str, ...], warm: int, steps: int) -> Found:
    """Every contender on rows of embedded CoLA (`length` None) or of one length, batches of 32, in bf16."""
    few, faster = 8 if options.quick else 32, FASTER[length or size]
    warm, steps, rounds = (2, 2, 1) if options.quick else (warm, steps, options.rounds)
    length = length and (16 if options.quick else length)
    found = Found(numbers={"size": size, "length": length, "batch": few})
    shared = (f"train.batch_size={few}", f"train.max_length={length or 128}", f"train.limit_train={16 * few}", *FAST)
    with folder(size_of(size, options.quick)) as model, tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        rows = None if length is None else even_rows(4 * few, length)
        runs: dict[str, Ours] = {}
        for name in names:
            low = (*METHODS[name], *shared, "train.precision=bf16")
            runs[name] = Ours(low, model, Path(out) / name, rows)
            if name in ("lora", "full") and length is None:
                runs[f"{name}, no graphs"] = Ours((*low, "train.graphs=off"), model, Path(out) / f"{name}-eager", rows)
        given = rows or runs["lora"].rows
        peers = {f"{name}, {peer}": Peer(model, Path(out), lora=name == "lora") for name, peer in PEERS.items()}
        train = runs["lora"].run.train

        def ours(one: Ours, name: str) -> float:
            begin = 6 * warm if name == "dylora" and length is None else warm  # a graph for each rank and length
            return 1e3 * clocked(one, begin, steps)

        def theirs(peer: Peer) -> float:
            clock = Span(warm, steps)
            peer.train(given, train, warm + steps, clock=clock)
            return 1e3 * clock.each

        contenders: dict[str, Callable[[], float]] = {n: (lambda n=n, o=o: ours(o, n)) for n, o in runs.items()}
        contenders |= {name: (lambda peer=peer: theirs(peer)) for name, peer in peers.items()}
        bytes_of: dict[str, int | None] = {}
        measured = alternate(
            {name: partial(_watched, bytes_of, name, work) for name, work in contenders.items()}, rounds
        )
        activations = {name: one.recorder.activations for name, one in runs.items()}
        told = {name: one.recorder.record.env.get("graphs") for name, one in runs.items()}
        found.numbers |= {"ms": measured, "peak_bytes": bytes_of, "activation_bytes": activations, "graphs": told}
        profiles = {name: _profiled(runs[name]) for name in ("lora", "meft1") if length is None and DEVICE == "cuda"}
    _tell(found, measured, bytes_of, activations, faster)
    found.numbers["profiles"] = profiles
    found.notes += [f"{name}: {text}" for name, text in profiles.items()]
    shape = f"RoBERTa's {size} shape, random weights, batches of {few}, bf16, fused AdamW"
    where = f"rows of {length} tokens" if length else "rows of embedded CoLA"
    found.notes.append(f"{shape}, {where}; {steps} steps after {warm} that do not count.")
    return found


def clocked(one: Ours, warm: int, steps: int) -> float:
    """Seconds of a step after some that do not count."""
    clock = Span(warm, steps)
    one.train(warm + steps, clock=clock)
    return clock.each


def _watched(bytes_of: dict[str, int | None], name: str, work: Callable[[], float]) -> float:
    """What a contender gives; the most device memory it takes beside what others hold is noted, None without a GPU."""
    if DEVICE != "cuda":
        bytes_of[name] = None
        return work()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    value = work()
    bytes_of[name] = torch.cuda.max_memory_allocated() - before
    return value


def _profiled(one: Ours) -> str:
    """What the host and the card do in five steps: launches, waits of the host, share of the time the card is busy."""
    profiler = torch.profiler.profile()

    def watched(trainer: Any) -> None:
        usual = trainer.training_step
        count = [0]

        def step(*arguments: Any, **more: Any) -> torch.Tensor:
            count[0] += 1
            if count[0] == 60:
                profiler.start()
            if count[0] == 65:
                profiler.stop()
            loss: torch.Tensor = usual(*arguments, **more)
            return loss

        trainer.training_step = step

    one.train(70, watched, clock=Span(60, 10))
    events = profiler.key_averages()
    launches = sum(e.count for e in events if "LaunchKernel" in e.key)
    graphs = sum(e.count for e in events if "GraphLaunch" in e.key)
    waits = sum(e.count for e in events if "Synchronize" in e.key)
    busy = sum(float(e.self_device_time_total) for e in events) / 5e3
    counts = f"a step launches {launches / 5:.0f} kernels and {graphs / 5:.0f} graphs, waits {waits / 5:.1f} times"
    return f"{counts}, and keeps the card busy for {busy:.1f} ms"


def _tell(
    found: Found,
    measured: dict[str, list[float]],
    bytes_of: Mapping[str, int | None],
    activations: Mapping[str, int | None],
    faster: float,
) -> None:
    rows: list[tuple[str, ...]] = [("contender", "ms per step", "over LoRA", "peak MB", "activations MB")]
    for name, times in measured.items():
        peak, held = bytes_of[name], activations.get(name)
        over = number(quartiles(ratios(measured, name, "lora"))[1])
        memory = tuple("" if value is None else f"{value / 1e6:,.0f}" for value in (peak, held))
        rows.append((name, number(median(times)), over, *memory))
    found.tables.append(rows)
    for name in ("lora", "rosa", "dylora", "full"):
        peer = f"full, {PEERS['full']}" if name == "full" else f"lora, {PEERS['lora']}"
        if name in measured:
            times = quartiles(ratios(measured, peer, name))[1]
            found.targets.append(Target(f"{peer}'s step over {name}'s", times, faster))
    full, checkpointed = activations.get("full"), activations.get("lora+checkpointing")
    for name in ("meft1", "meft3"):
        if name in measured and checkpointed:
            over = quartiles(ratios(measured, name, "lora"))[1]
            found.targets.append(Target(f"a step of {name} over LoRA's", over, MEFT, at_least=False))
            held = activations[name]
            if held and full:
                share, rest = held / full, held / checkpointed
                found.targets.append(Target(f"activations of {name}, of full's", share, ACTIVATIONS, at_least=False))
                found.targets.append(Target(f"activations of {name}, of checkpointing's", rest, 1, at_least=False))


def short(options: Options) -> Found:
    """RoBERTa-base on CoLA's short rows."""
    return measure(options, "base", None, SHORT, 40, 40)


def medium(options: Options) -> Found:
    """RoBERTa-large at 128 tokens."""
    return measure(options, "large", 128, LONG, 4, 10)


def long(options: Options) -> Found:
    """RoBERTa-large at 512 tokens."""
    return measure(options, "large", 512, LONG, 3, 6)
