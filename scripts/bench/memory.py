"""Memory of a step by purpose, ours and peft's; activations by length and batch size against a formula."""

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

from bench.harness import DEVICE, Options, Result, Target
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
LAYERS, MORE = 2, 4  # layers of the models on the grid; one more cell has the complete model
WITHIN = 0.05  # allowed relative difference from the formula
ROOM = 0.5  # share of the free memory that a cell may need; larger cells are skipped


def measure_one(name: str, model: Path, options: Options) -> dict[str, int]:
    """Bytes of one step of a method or of peft's LoRA, and the peak of the process. Call it in a new process."""
    torch.set_num_threads(options.threads)
    rows = even_rows(options.batch, options.length)
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        few = (f"train.batch_size={options.batch}", "train.limit_train=8", f"train.max_length={options.length}")
        if name == PEER:
            return _of_peer(model, Path(out), rows, few)
        ours = Ours((*METHODS[name], *few), model, Path(out), rows)
        peak = PeakMemory()
        ours.train(1)
        sizes: dict[str, int] = dict(ours.recorder.record.cost["memory"])
        assert ours.recorder.activations is not None
        sizes |= {"activations": ours.recorder.activations, **peak.read()}
    return sizes


def _of_peer(model: Path, out: Path, rows: Any, few: tuple[str, ...]) -> dict[str, int]:
    """The same sizes for the peer."""
    peer, train = Peer(model, out, lora=True), compose(["task=cola", f"model.path={model}", *few]).train
    sizes: dict[str, int] = {}
    trainers: list[Any] = []

    def prepare(trainer: Any) -> None:
        training_step = trainer.training_step
        trainers.append(trainer)

        def step(*arguments: Any, **more: Any) -> torch.Tensor:
            with saved_bytes(peer.model) as saved:
                loss: torch.Tensor = training_step(*arguments, **more)
            sizes["activations"] = saved.bytes
            return loss

        trainer.training_step = step

    peak = PeakMemory()
    peer.train(rows, train, 1, prepare=prepare)
    trained = [p for p in peer.model.parameters() if p.requires_grad]
    values = [value for state in trainers[0].optimizer.state.values() for value in state.values()]
    state = [value for value in values if isinstance(value, torch.Tensor) and value.dim()]
    sizes["weights"] = _bytes([*peer.model.parameters(), *peer.model.buffers()])
    sizes["gradients"], sizes["optimizer"] = _bytes(trained), _bytes(state)
    return sizes | peak.read()


def _bytes(tensors: list[Any]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def in_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process and return its result; with --quick, in this process."""
    if arguments[-1].quick:
        return work(*arguments)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def measure_grid(name: str, folders: dict[int, Path], options: Options) -> dict[tuple[int, int, int], int]:
    """Activations of a method by (length, batch, layers), for the cells that fit into memory."""
    torch.set_num_threads(options.threads)
    lengths, batches = ((16, 32, 64), (2, 4)) if options.quick else (LENGTHS, BATCHES)
    cells = [(length, batches[0], layers) for layers in (LAYERS, MORE) for length in lengths[:2]]
    cells += [c for c in ((n, b, LAYERS) for n in lengths for b in batches) if c not in cells]
    cells += [(lengths[1], batches[0], layers) for layers in folders if layers not in (LAYERS, MORE)]
    activations: dict[tuple[int, int, int], int] = {}
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        runs: dict[int, Ours] = {}
        for cell in cells:
            length, batch, layers = cell
            if len(activations) >= 4 and predicted(activations, cell) > ROOM * _free():
                continue
            if layers not in runs:
                few = (f"train.batch_size={max(batches)}", "train.limit_train=8", f"train.max_length={max(lengths)}")
                runs[layers] = Ours((*METHODS[name], *few), folders[layers], Path(out) / str(layers))
            runs[layers].experiment.rows = even_rows(batch, length)
            activations[cell] = runs[layers].activations()
            gc.collect()
    return activations


def _free() -> float:
    return float(torch.cuda.mem_get_info()[0] if DEVICE == "cuda" else psutil.virtual_memory().available)


def _terms(cell: tuple[int, int, int]) -> list[int]:
    """Terms of the formula: linear in the length, once and per layer; quadratic, once and per layer."""
    length, batch, layers = cell
    return [batch * length, batch * length * layers, batch * length**2, batch * length**2 * layers]


def predicted(activations: dict[tuple[int, int, int], int], cell: tuple[int, int, int]) -> float:
    """Bytes by the formula, with its four constants fitted to the first four cells."""
    first_cells = list(activations)[:4]
    terms = np.array([_terms(c) for c in first_cells], float)
    constants = np.linalg.solve(terms, np.array([activations[c] for c in first_cells], float))
    return float(np.array(_terms(cell)) @ constants)


def measure(options: Options) -> Result:
    """Measure the memory of a step by method, and activations over the grid."""
    result, size = Result(), size_of(options.size, options.quick)
    with folder(size) as model:
        names = ["full", "lora", "rosa", "meft1", PEER] if options.quick else [*METHODS, PEER]
        bytes_of = {name: in_new_process(measure_one, name, model, options) for name in names}
    _phases(result, bytes_of)
    with folder(size, LAYERS) as fewer, folder(size, MORE) as more, folder(size) as complete:
        folders = {LAYERS: fewer, MORE: more, SIZES[size][1]: complete}
        grids = {name: in_new_process(measure_grid, name, folders, options) for name in GRID}
    _grid(result, grids)
    result.notes += [
        f"RoBERTa's {size} shape, {options.batch} rows of {options.length} tokens, fp32, each in a new process.",
        "Activations: the most that autograd saves at a time, forward and backward, without parameters.",
        f"Grid: models of {LAYERS} layers. Four cells with {LAYERS} and {MORE} layers give a formula's constants (per "
        "token, per token and layer, per pair of tokens, per pair and layer); the other cells are compared with it.",
    ]
    return result


def _phases(result: Result, bytes_of: dict[str, dict[str, int]]) -> None:
    table: list[tuple[str, ...]] = [("MB", *PHASES, "sum", "peak of the process")]
    for name, sizes in bytes_of.items():
        phases = [sizes[phase] / 1e6 for phase in PHASES]
        peak = sizes.get("peak_device_bytes", sizes["peak_rss_bytes"]) / 1e6
        table.append((name, *(f"{mb:,.1f}" for mb in phases), f"{sum(phases):,.1f}", f"{peak:,.0f}"))
    result.tables.append(table)
    result.numbers["bytes"] = bytes_of
    peer_total = sum(bytes_of[PEER][phase] for phase in PHASES)
    for name in ("lora", "rosa"):
        own_total = sum(bytes_of[name][phase] for phase in PHASES)
        result.targets.append(Target(f"bytes of {name} over {PEER}", own_total / peer_total, 1, at_least=False))
    full = bytes_of["full"]["activations"]
    result.targets += [
        Target(f"activations of {name}, share of full's", bytes_of[name]["activations"] / full, 0.16, at_least=False)
        for name in ("meft1", "meft2", "meft3")
        if name in bytes_of
    ]


def _grid(result: Result, grids: dict[str, dict[tuple[int, int, int], int]]) -> None:
    cells = list(dict.fromkeys(cell for grid in grids.values() for cell in sorted(grid, key=lambda c: (c[2], *c[:2]))))
    table: list[tuple[str, ...]] = [("tokens x rows (layers)", *(f"{name}, MB" for name in grids))]
    worst = 0.0
    for cell in cells:
        row = []
        for grid in grids.values():
            by_formula = predicted(grid, cell)
            deviation = grid[cell] / by_formula - 1 if cell in grid else 0.0
            worst = max(worst, abs(deviation))
            measured = f"{grid[cell] / 1e6:,.1f} ({deviation:+.1%})" if cell in grid else ""
            row.append(measured or f"formula: {by_formula / 1e6:,.0f}")
        table.append((f"{cell[0]} x {cell[1]} ({cell[2]})", *row))
    result.tables.append(table)
    result.numbers["grid"] = {name: [[*cell, size] for cell, size in grid.items()] for name, grid in grids.items()}
    result.targets.append(Target("largest difference from the formula", worst, WITHIN, at_least=False))
