"""Cost by size of the backbone, rank, and number of rows."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import transformers

from bench.harness import Options, Result, Target, alternate, number, seconds, spread
from bench.ours import Ours
from bench.shapes import even_rows, folder, size_of
from bench.steps import step_seconds
from rosa_bench.config.compose import compose
from rosa_bench.data.batches import EpochSampler
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import Split, load_split
from rosa_bench.models.identity import source_of
from rosa_bench.system.memory import PeakMemory

MODELS = ("mini", "small", "base", "large")
RANKS = (1, 4, 16, 64, 256)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
LINEAR = 1.5  # allowed ratio of seconds per row between the largest and the second largest number of rows
MOST = 2e9  # allowed bytes


def measure(options: Options) -> Result:
    """Measure the three curves."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        few = replace(options, rounds=min(3, options.rounds))
        _models(few, result, Path(out))
        _ranks(few, result, Path(out))
    _rows(options, result)
    return result


def _run(options: Options, model: Path, out: Path, *overrides: str) -> Ours:
    few = (f"train.batch_size={options.batch}", "train.limit_train=8", f"train.max_length={options.length}")
    return Ours(("method=lora", *few, *overrides), model, out, even_rows(2 * options.batch, options.length))


def _models(options: Options, result: Result, out: Path) -> None:
    """A step of LoRA on every size, with one model in memory at a time."""
    table: list[tuple[str, ...]] = [("LoRA of rank 8 on", "parameters", "s per step (quartiles)", "activations MB")]
    for size in ("toy",) if options.quick else MODELS:
        with folder(size) as model:
            ours = _run(options, model, out / size)
            activations = ours.activations()
            times = alternate({size: partial(step_seconds, ours)}, options.rounds)[size]
        count = sum(p.numel() for p in ours.model.parameters())
        table.append((size, f"{count:,}", spread(times), f"{activations / 1e6:,.1f}"))
        result.numbers[f"model {size}"] = {"parameters": count, "seconds": times, "activation_bytes": activations}
    result.tables.append(table)
    result.notes.append(f"Steps: {options.batch} rows of {options.length} tokens, fp32, {options.rounds} rounds.")


def _ranks(options: Options, result: Result, out: Path) -> None:
    size = size_of(options.size, options.quick)
    ranks = RANKS[:2] if options.quick else RANKS
    with folder(size) as model:
        runs = {f"rank {rank}": _run(options, model, out / f"r{rank}", f"method.rank={rank}") for rank in ranks}
        activations = {name: ours.activations() for name, ours in runs.items()}
        times = alternate({name: partial(step_seconds, ours) for name, ours in runs.items()}, options.rounds)
    table: list[tuple[str, ...]] = [(f"LoRA on {size}", "s per step (quartiles)", "activations MB")]
    table += [(name, spread(values), f"{activations[name] / 1e6:,.1f}") for name, values in times.items()]
    result.tables.append(table)
    result.numbers["ranks"] = {"seconds": times, "activation_bytes": activations}


def _rows(options: Options, result: Result) -> None:
    """Encode each number of rows in a new process, because memory is measured."""
    counts = (100, 1_000) if options.quick else ROWS
    table: list[tuple[str, ...]] = [("training rows", "s to tokenise", "s from the cache", "s to order an epoch", "MB")]
    costs: dict[int, dict[str, float]] = {}
    for count in counts:
        if options.quick:
            costs[count] = encode_rows(count)
        else:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                costs[count] = pool.apply(encode_rows, (count,))
        names = ("tokenise_s", "cached_s", "order_s")
        table.append((f"{count:,}", *(number(costs[count][n]) for n in names), number(costs[count]["bytes"] / 1e6)))
    result.tables.append(table)
    result.numbers["rows"] = costs
    for name in ("tokenise_s", "order_s"):
        last, before = counts[-1], counts[-2]
        slope = (costs[last][name] / last) / (costs[before][name] / before)
        result.targets.append(Target(f"{name} per row, of {last:,} over {before:,}", slope, LINEAR, at_least=False))
    most = max(values["bytes"] for values in costs.values())
    result.targets.append(Target("bytes of rows, tokens and cache at most", most, MOST, at_least=False))
    result.notes.append("Rows: those of embedded CoLA, repeated; bytes: growth of the process.")


def encode_rows(count: int) -> dict[str, float]:
    """Seconds to tokenize rows, read them from the cache and order an epoch, and growth of the process in bytes."""
    run = compose(["task=cola", "tracker=none"])
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source_of(run.model))
    examples = load_split(run.task, run.data, "train").examples
    peak = PeakMemory()
    before = peak.read()["peak_rss_bytes"]
    split = Split([replace(examples[i % len(examples)], id=str(i)) for i in range(count)], count, f"{count} rows")
    costs: dict[str, float] = {}
    encoded: list[Any] = []
    with (
        tempfile.TemporaryDirectory(prefix="rosa_bench-") as cache,
        mock.patch.dict(os.environ, ROSA_BENCH_CACHE=cache),
    ):
        for name in ("tokenise_s", "cached_s"):
            encoded = []
            costs[name] = seconds(lambda encoded=encoded: encoded.extend(encode_split(run.task, tokenizer, split, 128)))
    sampler = EpochSampler([len(row.input_ids) for row in encoded], run.train.batch_size, 1, run.train.bucket)
    orders: list[float] = [seconds(lambda: list(sampler)) for _ in range(3)]
    costs["order_s"] = median(orders)
    return costs | {"bytes": peak.read()["peak_rss_bytes"] - before}
