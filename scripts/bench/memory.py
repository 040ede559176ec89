"""Bytes by what they are for, ours and peft's, and activations over lengths and batches against a formula."""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from bench.harness import DEVICE, Found, Options, Target
from bench.ours import Ours
from bench.peers import Peer
from bench.shapes import SIZES, even_rows, folder, size_of
from bench.steps import METHODS
from rosa_bench.config.compose import compose
from rosa_bench.system.memory import PeakMemory, saved_bytes

PHASES = ("weights", "gradients", "optimizer", "activations")
PEER = "peft's LoRA"
GRID = ("full", "lora", "lora+checkpointing", "meft1")
LENGTHS, BATCHES = (64, 128, 256, 512), (8, 16, 32, 64)
LAYERS, MORE = 2, 4  # of the models on the grid: their number is in the formula, and one more cell has them all
WITHIN = 0.05  # of the formula
ROOM = 0.5  # of the memory that is free: a cell that would take more is not measured


def measure_one(name: str, model: Path, options: Options) -> dict[str, int]:
    """Bytes of one step of a method or of peft's LoRA, and the process's peak; in a process of its own."""
    torch.set_num_threads(options.threads)
    rows = even_rows(options.batch, options.length)
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        few = (f"train.batch_size={options.batch}", "train.limit_train=8", f"train.max_length={options.length}")
        if name == PEER:
            return _of_peer(model, Path(out), rows, few)
        one = Ours((*METHODS[name], *few), model, Path(out), rows)
        peak = PeakMemory()
        one.train(1)
        found: dict[str, int] = dict(one.recorder.record.cost["memory"])
        assert one.recorder.activations is not None
        found |= {"activations": one.recorder.activations, **peak.read()}
    return found


def _of_peer(model: Path, out: Path, rows: Any, few: tuple[str, ...]) -> dict[str, int]:
    """The same counts of the peer's objects."""
    peer, train = Peer(model, out, lora=True), compose(["task=cola", f"model.path={model}", *few]).train
    found: dict[str, int] = {}
    kept: list[Any] = []

    def watched(trainer: Any) -> None:
        usual = trainer.training_step
        kept.append(trainer)

        def step(*arguments: Any, **more: Any) -> torch.Tensor:
            with saved_bytes(peer.model) as held:
                loss: torch.Tensor = usual(*arguments, **more)
            found["activations"] = held.bytes
            return loss

        trainer.training_step = step

    peak = PeakMemory()
    peer.train(rows, train, 1, prepare=watched)
    trained = [p for p in peer.model.parameters() if p.requires_grad]
    state = [t for s in kept[0].optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor) and t.dim()]
    found["weights"] = _bytes([*peer.model.parameters(), *peer.model.buffers()])
    found["gradients"], found["optimizer"] = _bytes(trained), _bytes(state)
    return found | peak.read()


def _bytes(tensors: list[Any]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def measure_apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a new process; in this one if all is a toy."""
    if arguments[-1].quick:
        return work(*arguments)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def measure_grid(name: str, folders: dict[int, Path], options: Options) -> dict[tuple[int, int, int], int]:
    """Activations of a method by (length, batch, layers), as far as memory reaches."""
    torch.set_num_threads(options.threads)
    lengths, batches = ((16, 32, 64), (2, 4)) if options.quick else (LENGTHS, BATCHES)
    cells = [(length, batches[0], layers) for layers in (LAYERS, MORE) for length in lengths[:2]]
    cells += [c for c in ((n, b, LAYERS) for n in lengths for b in batches) if c not in cells]
    cells += [(lengths[1], batches[0], layers) for layers in folders if layers not in (LAYERS, MORE)]
    found: dict[tuple[int, int, int], int] = {}
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        runs: dict[int, Ours] = {}
        for cell in cells:
            length, batch, layers = cell
            if len(found) >= 4 and predicted(found, cell) > ROOM * _free():
                continue
            if layers not in runs:
                few = (f"train.batch_size={max(batches)}", "train.limit_train=8", f"train.max_length={max(lengths)}")
                runs[layers] = Ours((*METHODS[name], *few), folders[layers], Path(out) / str(layers))
            runs[layers].experiment.rows = even_rows(batch, length)
            found[cell] = runs[layers].activations()
            gc.collect()
    return found


def _free() -> float:
    return float(torch.cuda.mem_get_info()[0] if DEVICE == "cuda" else psutil.virtual_memory().available)


def _terms(cell: tuple[int, int, int]) -> list[int]:
    """Per example: what grows with the length, once and per layer, and with its square, once and per layer."""
    length, batch, layers = cell
    return [batch * length, batch * length * layers, batch * length**2, batch * length**2 * layers]


def predicted(found: dict[tuple[int, int, int], int], cell: tuple[int, int, int]) -> float:
    """Bytes by the formula whose four constants the first four cells give."""
    known = list(found)[:4]
    constants = np.linalg.solve(np.array([_terms(c) for c in known], float), np.array([found[c] for c in known], float))
    return float(np.array(_terms(cell)) @ constants)


def measure(options: Options) -> Found:
    """Both tables."""
    found, size = Found(), size_of(options.size, options.quick)
    with folder(size) as model:
        names = ["full", "lora", "rosa", "meft1", PEER] if options.quick else [*METHODS, PEER]
        bytes_of = {name: measure_apart(measure_one, name, model, options) for name in names}
    _phases(found, bytes_of)
    with folder(size, LAYERS) as few, folder(size, MORE) as more, folder(size) as whole:
        folders = {LAYERS: few, MORE: more, SIZES[size][1]: whole}
        grids = {name: measure_apart(measure_grid, name, folders, options) for name in GRID}
    _grid(found, grids)
    found.notes += [
        f"RoBERTa's {size} shape, {options.batch} rows of {options.length} tokens, fp32, each in a process of its own.",
        "Activations: what autograd holds at most at a time, forward and backward, parameters apart.",
        f"Grid: models of {LAYERS} layers; four cells with {LAYERS} and {MORE} layers give a formula's constants (per "
        "token, per token and layer, per pair of tokens, per pair and layer), the others are compared with it.",
    ]
    return found


def _phases(found: Found, bytes_of: dict[str, dict[str, int]]) -> None:
    table: list[tuple[str, ...]] = [("MB", *PHASES, "sum", "peak of the process")]
    for name, told in bytes_of.items():
        phases = [told[phase] / 1e6 for phase in PHASES]
        peak = told.get("peak_device_bytes", told["peak_rss_bytes"]) / 1e6
        table.append((name, *(f"{mb:,.1f}" for mb in phases), f"{sum(phases):,.1f}", f"{peak:,.0f}"))
    found.tables.append(table)
    found.numbers["bytes"] = bytes_of
    theirs = sum(bytes_of[PEER][phase] for phase in PHASES)
    for name in ("lora", "rosa"):
        mine = sum(bytes_of[name][phase] for phase in PHASES)
        found.targets.append(Target(f"bytes of {name} over {PEER}", mine / theirs, 1, at_least=False))
    full = bytes_of["full"]["activations"]
    found.targets += [
        Target(f"activations of {name}, share of full's", bytes_of[name]["activations"] / full, 0.16, at_least=False)
        for name in ("meft1", "meft2", "meft3")
        if name in bytes_of
    ]


def _grid(found: Found, grids: dict[str, dict[tuple[int, int, int], int]]) -> None:
    cells = list(dict.fromkeys(cell for grid in grids.values() for cell in sorted(grid, key=lambda c: (c[2], *c[:2]))))
    table: list[tuple[str, ...]] = [("tokens x rows (layers)", *(f"{name}, MB" for name in grids))]
    worst = 0.0
    for cell in cells:
        told = []
        for grid in grids.values():
            by_formula = predicted(grid, cell)
            off = grid[cell] / by_formula - 1 if cell in grid else 0.0
            worst = max(worst, abs(off))
            measured = f"{grid[cell] / 1e6:,.1f} ({off:+.1%})" if cell in grid else ""
            told.append(measured or f"formula: {by_formula / 1e6:,.0f}")
        table.append((f"{cell[0]} x {cell[1]} ({cell[2]})", *told))
    found.tables.append(table)
    found.numbers["grid"] = {name: [[*cell, held] for cell, held in grid.items()] for name, grid in grids.items()}
    found.targets.append(Target("largest difference from the formula", worst, WITHIN, at_least=False))
