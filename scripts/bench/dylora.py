"""DyLoRA's claim: one run that serves ranks 1 to 8, against a LoRA run for each of them, by the embedded default."""

from __future__ import annotations

import tempfile
from statistics import mean

from bench.harness import ALWAYS_DEFINED, Found, Options, Target, number, quartiles, ratios, seconds, spread
from rosa_bench import run
from rosa_bench.config.compose import compose
from rosa_bench.records.record import Record

RANKS = range(1, 9)
STEPS = 150


def measure(options: Options) -> Found:
    """A seed a round: DyLoRA's run, and LoRA's at every rank, each from loading to record."""
    ranks = range(1, 3) if options.quick else RANKS
    few = ("train.limit_train=32", "train.limit_eval=16", *ALWAYS_DEFINED) if options.quick else ()
    times: dict[str, list[float]] = {"one DyLoRA run": [], f"{len(ranks)} LoRA runs": []}
    scores: dict[str, dict[int, list[float]]] = {name: {rank: [] for rank in ranks} for name in ("DyLoRA", "LoRA")}
    common = ["task=cola", "tracker=none", f"train.max_steps={4 if options.quick else STEPS}", *few]

    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:

        def timed(*overrides: str) -> tuple[float, Record]:
            kept: list[Record] = []
            cfg = compose([*common, f"output_dir={out}", *overrides])
            return seconds(lambda: kept.append(run.run(cfg))), kept[0]

        for seed in range(1, options.rounds + 1):
            took, record = timed("method=dylora", f"method.rank_max={max(ranks)}", f"seed={seed}")
            times["one DyLoRA run"].append(took)
            split = record.primary["split"]
            for rank in ranks:
                scores["DyLoRA"][rank].append(record.scores[split][f"r{rank}"][record.primary["metric"]])
            every = [timed("method=lora", f"method.rank={rank}", f"seed={seed}") for rank in ranks]
            times[f"{len(ranks)} LoRA runs"].append(sum(took for took, _ in every))
            for rank, (_, lora) in zip(ranks, every, strict=True):
                scores["LoRA"][rank].append(lora.primary["last"])
    return _told(times, scores, options)


def _told(times: dict[str, list[float]], scores: dict[str, dict[int, list[float]]], options: Options) -> Found:
    found = Found(numbers={"seconds": times, "scores": scores})
    one, many = times
    less = ratios(times, many, one)
    head = ("embedded CoLA", "s", *(f"r{rank}" for rank in scores["LoRA"]))
    table: list[tuple[str, ...]] = [head]
    for name, method in ((one, "DyLoRA"), (many, "LoRA")):
        told = [f"{mean(values):.1f}" for values in scores[method].values()]
        table.append((name, number(quartiles(times[name])[1]), *told))
    found.tables.append(table)
    found.targets.append(Target("time of the LoRA runs over that of the one", quartiles(less)[1], 6))
    found.notes.append(
        f"{STEPS} steps on the mini backbone, {options.rounds} seeds, each run from loading to record; "
        f"Matthews at the last step, means over seeds. Ratio {spread(less)}."
    )
    return found
