"""One optimizer step of every method, including its hooks, relative to LoRA's, on rows of one length."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from bench.harness import Measured, Options, Result, Target, alternate, number, quartiles, ratios, spread
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
SLOWER = {"rosa": 1.1, "dylora": 1.1, "meft1": 1.6, "meft2": 1.6, "meft3": 1.6}  # allowed ratio to LoRA


def build_runs(options: Options, model: Path, out: Path, names: tuple[str, ...]) -> dict[str, Ours]:
    """A run of each method on the same weights and rows."""
    rows = even_rows(2 * options.batch, options.length)
    few = (f"train.batch_size={options.batch}", f"train.precision={options.precision}", "train.limit_train=8")
    return {n: Ours((*METHODS[n], *few, f"train.max_length={options.length}"), model, out / n, rows) for n in names}


def step_seconds(ours: Ours) -> float:
    """Seconds of the second of two steps; the first creates the optimizer's state."""
    return ours.train(2).last


def measure(options: Options) -> Result:
    """Measure seconds and activations of a step."""
    names = tuple(name for name in METHODS if not options.only or name in (BASELINE, *options.only))
    size = size_of(options.size, options.quick)
    with folder(size) as model, tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        runs = build_runs(options, model, Path(out), names)
        activations = {name: ours.activations() for name, ours in runs.items()}
        measured = alternate({name: partial(step_seconds, ours) for name, ours in runs.items()}, options.rounds)
    result = Result(numbers={"seconds": measured, "activation_bytes": activations, "size": size})
    result.tables.append(_table(measured, activations))
    result.targets += [
        Target(f"a step of {name} over LoRA's", quartiles(ratios(measured, name, BASELINE))[1], bound, at_least=False)
        for name, bound in SLOWER.items()
        if name in measured
    ]
    shape = f"RoBERTa's {size} shape, {options.batch} rows of {options.length} tokens, {options.precision}"
    result.notes.append(f"{shape}; rank 8 on q and v, bottleneck 8. ROSA's step does not include a split.")
    return result


def _table(measured: Measured, activations: dict[str, int]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [("method", "s per step", "over LoRA (quartiles)", "activations MB", "of full")]
    for name, times in measured.items():
        share = f"{activations[name] / activations['full']:.1%}" if "full" in activations else ""
        over = spread(ratios(measured, name, BASELINE))
        table.append((name, number(median(times)), over, f"{activations[name] / 1e6:,.1f}", share))
    return table
