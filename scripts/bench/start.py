"""Time to --help and to the first training step, and the overhead per cell of a sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.harness import Options, Result, Target, alternate, quartiles, seconds, spread

COMMAND = (sys.executable, "-m", "rosa_bench")
CELLS = 64
TINY = ("tracker=none", "train.max_steps=2", "train.limit_train=32", "train.limit_eval=16", "train.batch_size=8")


def measure(options: Options) -> Result:
    """Run commands as a user would, each in a new process; a run has an empty token cache."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        contenders = {
            "`--help`": partial(seconds, lambda: subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)),
            "first training step, embedded default": partial(_first_step, Path(out), options.threads),
        }
        measured = alternate(contenders, options.rounds)
        cells = 2 if options.quick else CELLS
        overheads = _sweep(Path(out), cells, options.threads)
    result.tables.append([("from the command", "s (quartiles)"), *((n, spread(v)) for n, v in measured.items())])
    result.tables[0].append((f"overhead per cell of a sweep of {cells}", spread(overheads)))
    for (name, values), bound in zip(measured.items(), (1.5, 8.0), strict=True):
        result.targets.append(Target(f"s, {name}", quartiles(values)[1], bound, at_least=False))
    mean = sum(overheads) / len(overheads)
    result.targets.append(Target(f"s per cell of a sweep of {cells}", mean, 2, at_least=False))
    result.numbers |= {"seconds": measured, "lost_per_cell_s": overheads}
    result.notes.append("Overhead: time of the command minus the times in the records, per cell.")
    return result


def _environment(folder: Path, threads: int) -> dict[str, str]:
    return os.environ | {"ROSA_BENCH_CACHE": str(folder), "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def _first_step(out: Path, threads: int) -> float:
    """Seconds until the default run prints its first loss; then it is stopped."""
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as cache:
        began = time.perf_counter()
        overrides = ["train.log_steps=1", "resume=never", f"output_dir={out}"]
        process = subprocess.Popen(
            [*COMMAND, *overrides], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=_environment(Path(cache), threads),
        )  # fmt: skip
        assert process.stdout is not None
        seconds_taken = next((time.perf_counter() - began for line in process.stdout if " step 1/" in line), None)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        process.wait()
    if seconds_taken is None:
        raise RuntimeError(f"python -m rosa_bench {' '.join(overrides)} ended before its first step")
    return seconds_taken


def _sweep(out: Path, cells: int, threads: int) -> list[float]:
    """Mean overhead in seconds per cell of one sweep of tiny runs, as a list of one number."""
    seeds = ",".join(map(str, range(1, cells + 1)))
    began = time.perf_counter()
    subprocess.run(
        [*COMMAND, "-m", f"seed={seeds}", *TINY, f"output_dir={out}/sweep"], check=True, capture_output=True,
        env=_environment(out / "cache", threads), cwd=out,
    )  # fmt: skip
    total = time.perf_counter() - began
    costs = [json.loads(p.read_text(encoding="utf-8"))["cost"] for p in sorted((out / "sweep").glob("*/record.json"))]
    if len(costs) != cells:
        raise RuntimeError(f"{len(costs)} of {cells} cells left a record")
    inside = sum(cost.get(name, 0.0) for cost in costs for name in ("train_s", "method_s", "eval_s"))
    return [(total - inside) / cells]
