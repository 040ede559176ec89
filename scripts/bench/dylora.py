"""DyLoRA's claim: one run for ranks 1 to 8 against one LoRA run per rank, on the embedded backbone."""

from __future__ import annotations

import tempfile
from statistics import mean

from bench.harness import ACCURACY, Options, Result, Target, number, quartiles, ratios, seconds, spread
from rosa_bench import run
from rosa_bench.config.compose import compose
from rosa_bench.records.record import Record

RANKS = range(1, 9)
STEPS = 150


def measure(options: Options) -> Result:
    """One seed per round: a DyLoRA run, and a LoRA run at every rank, each from loading to record."""
    ranks = range(1, 3) if options.quick else RANKS
    few = ("train.limit_train=32", "train.limit_eval=16", *ACCURACY) if options.quick else ()
    times: dict[str, list[float]] = {"one DyLoRA run": [], f"{len(ranks)} LoRA runs": []}
    scores: dict[str, dict[int, list[float]]] = {name: {rank: [] for rank in ranks} for name in ("DyLoRA", "LoRA")}
    common = ["task=cola", "tracker=none", f"train.max_steps={4 if options.quick else STEPS}", *few]

    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:

        def timed(*overrides: str) -> tuple[float, Record]:
            records: list[Record] = []
            cfg = compose([*common, f"output_dir={out}", *overrides])
            return seconds(lambda: records.append(run.run(cfg))), records[0]

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
    return _result(times, scores, options)


def _result(times: dict[str, list[float]], scores: dict[str, dict[int, list[float]]], options: Options) -> Result:
    result = Result(numbers={"seconds": times, "scores": scores})
    single, separate = times
    speedup = ratios(times, separate, single)
    head = ("embedded CoLA", "s", *(f"r{rank}" for rank in scores["LoRA"]))
    table: list[tuple[str, ...]] = [head]
    for name, method in ((single, "DyLoRA"), (separate, "LoRA")):
        scores_by_rank = [f"{mean(values):.1f}" for values in scores[method].values()]
        table.append((name, number(quartiles(times[name])[1]), *scores_by_rank))
    result.tables.append(table)
    result.targets.append(Target("time of the LoRA runs over the DyLoRA run", quartiles(speedup)[1], 6))
    result.notes.append(
        f"{STEPS} steps on the mini backbone, {options.rounds} seeds, each run timed from loading to record; "
        f"Matthews at the last step, means over seeds. Ratio {spread(speedup)}."
    )
    return result
