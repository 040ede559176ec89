"""How long until help, until the first training step, and what a cell of a sweep costs beside its run."""

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

from bench.harness import Found, Options, Target, alternate, quartiles, seconds, spread

COMMAND = (sys.executable, "-m", "rosa_bench")
CELLS = 64
TINY = ("tracker=none", "train.max_steps=2", "train.limit_train=32", "train.limit_eval=16", "train.batch_size=8")


def measure(options: Options) -> Found:
    """Commands as a user gives them, each in a fresh process with an empty token cache."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        contenders = {
            "`--help`": partial(seconds, lambda: subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)),
            "first training step, embedded default": partial(_first_step, Path(out), options.threads),
        }
        measured = alternate(contenders, options.rounds)
        cells = 2 if options.quick else CELLS
        lost = _sweep(Path(out), cells, options.threads)
    found.tables.append([("from the command on", "s (quartiles)"), *((n, spread(v)) for n, v in measured.items())])
    found.tables[0].append((f"beside training and scoring, per cell of a sweep of {cells}", spread(lost)))
    for (name, values), bound in zip(measured.items(), (1.5, 8.0), strict=True):
        found.targets.append(Target(f"s, {name}", quartiles(values)[1], bound, at_least=False))
    found.targets.append(Target(f"s per cell of a sweep of {cells}", sum(lost) / len(lost), 2, at_least=False))
    found.numbers |= {"seconds": measured, "lost_per_cell_s": lost}
    found.notes.append("A cell's cost is the time of the whole command, less what the record's clocks say, by cells.")
    return found


def _environment(folder: Path, threads: int) -> dict[str, str]:
    return os.environ | {"ROSA_BENCH_CACHE": str(folder), "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}


def _first_step(out: Path, threads: int) -> float:
    """Seconds until the default run tells its first loss; then it is ended."""
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as cache:
        began = time.perf_counter()
        overrides = ["train.log_steps=1", "force=true", f"output_dir={out}"]
        process = subprocess.Popen(
            [*COMMAND, *overrides], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=_environment(Path(cache), threads),
        )  # fmt: skip
        assert process.stdout is not None
        took = next((time.perf_counter() - began for line in process.stdout if " step 1/" in line), None)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        process.wait()
    if took is None:
        raise RuntimeError(f"python -m rosa_bench {' '.join(overrides)} ended before its first step")
    return took


def _sweep(out: Path, cells: int, threads: int) -> list[float]:
    """One sweep of tiny runs; the seconds per cell that no clock of its record has. One number, for all cells."""
    seeds = ",".join(map(str, range(1, cells + 1)))
    began = time.perf_counter()
    subprocess.run(
        [*COMMAND, "-m", f"seed={seeds}", *TINY, f"output_dir={out}/sweep"], check=True, capture_output=True,
        env=_environment(out / "cache", threads), cwd=out,
    )  # fmt: skip
    took = time.perf_counter() - began
    costs = [json.loads(p.read_text(encoding="utf-8"))["cost"] for p in sorted((out / "sweep").glob("*/record.json"))]
    if len(costs) != cells:
        raise RuntimeError(f"{len(costs)} of {cells} cells left a record")
    inside = sum(cost.get(name, 0.0) for cost in costs for name in ("train_s", "method_s", "eval_s"))
    return [(took - inside) / cells]
