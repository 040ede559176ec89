"""One optimiser step of every method in turn, over LoRA's, hooks included, on rows of one length."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from bench.harness import Found, Measured, Options, Target, alternate, number, quartiles, ratios, spread
from bench.ours import Ours
from bench.shapes import even_rows, folder, size_of

METHODS = {
    "full": ("method=full",),
    "full+checkpointing": ("method=full", "train.gradient_checkpointing=true"),
    "lora": ("method=lora",),
    "lora+checkpointing": ("method=lora", "train.gradient_checkpointing=true"),
    "dylora": ("method=dylora",),
    "rosa": ("method=rosa", "method.targets=[q,v]"),
    "meft1": ("method=meft", "method.variant=meft1"),
    "meft2": ("method=meft", "method.variant=meft2"),
    "meft3": ("method=meft", "method.variant=meft3"),
}
BASELINE = "lora"
SLOWER = {"rosa": 1.1, "dylora": 1.1, "meft1": 1.6, "meft2": 1.6, "meft3": 1.6}  # at most, over LoRA


def made(options: Options, model: Path, out: Path, names: tuple[str, ...]) -> dict[str, Ours]:
    """A run of each of these methods on the same weights and rows."""
    rows = even_rows(2 * options.batch, options.length)
    few = (f"train.batch_size={options.batch}", f"train.precision={options.precision}", "train.limit_train=8")
    return {n: Ours((*METHODS[n], *few, f"train.max_length={options.length}"), model, out / n, rows) for n in names}


def step_seconds(one: Ours) -> float:
    """The second of two steps: the first one makes the optimiser's state."""
    return one.train(2).last


def measure(options: Options) -> Found:
    """Seconds of a step and the activations it holds."""
    names = tuple(name for name in METHODS if not options.only or name in (BASELINE, *options.only))
    size = size_of(options.size, options.quick)
    with folder(size) as model, tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        runs = made(options, model, Path(out), names)
        activations = {name: one.activations() for name, one in runs.items()}
        measured = alternate({name: partial(step_seconds, one) for name, one in runs.items()}, options.rounds)
    found = Found(numbers={"seconds": measured, "activation_bytes": activations, "size": size})
    found.tables.append(_table(measured, activations))
    found.targets += [
        Target(f"a step of {name} over LoRA's", quartiles(ratios(measured, name, BASELINE))[1], bound, at_least=False)
        for name, bound in SLOWER.items()
        if name in measured
    ]
    shape = f"RoBERTa's {size} shape, {options.batch} rows of {options.length} tokens, {options.precision}"
    found.notes.append(f"{shape}; rank 8 on q and v, bottleneck 8. ROSA's step is one without a split.")
    return found


def _table(measured: Measured, activations: dict[str, int]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [("method", "s per step", "over LoRA (quartiles)", "activations MB", "of full")]
    for name, times in measured.items():
        share = f"{activations[name] / activations['full']:.1%}" if "full" in activations else ""
        over = spread(ratios(measured, name, BASELINE))
        table.append((name, number(median(times)), over, f"{activations[name] / 1e6:,.1f}", share))
    return table
