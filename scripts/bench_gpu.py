"""Time, memory and exactness on a GPU, each against its peer in one process: `make bench-gpu`.

    python scripts/bench_gpu.py [--part NAME] [--again] [--quick]

Takes less than eight minutes on one card, a process for each part, and writes results/bench/<card>.md and .json. What
this card and this commit have been measured for is not measured again unless `--again` is given, so that a benchmark
that was stopped continues where it was. `--quick` tries every part in toy size, without a GPU too; its figures mean
nothing.

    capture    whether torch can do what graphs need of it, also after a failed capture
    streams    MEFT's compiled arithmetic against the eager one
    short      a step of RoBERTa-base on CoLA's rows, against `peft` and `transformers.Trainer`
    medium     a step of RoBERTa-large at 128 tokens; memory
    long       the same at 512 tokens
    decoding   ten beams of GPT-2 medium against `generate` in batches
    split      ROSA's split on the card against LAPACK on the host
    exact      losses by graphs against eager ones; a resumed run against an uninterrupted one
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# By part: its function, and after how many seconds it is stopped.
PARTS = {
    "capture": ("capture.measure", 30),
    "streams": ("kernels.streams", 80),
    "short": ("steps.short", 150),
    "medium": ("steps.medium", 100),
    "long": ("steps.long", 110),
    "decoding": ("decoding.measure", 60),
    "split": ("kernels.split", 50),
    "exact": ("exact.measure", 100),
}
WHOLE = 480  # seconds for all parts


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS], action="append", help="default: all")
    parser.add_argument("--again", action="store_true", help="measure parts again that this commit has results of")
    parser.add_argument("--quick", action="store_true", help="toy sizes: tries everything, measures nothing")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    return parser.parse_args(argv)


def main() -> int:
    """Measure the parts that are missing, each in a process of its own; 1 if one failed, 2 without a GPU."""
    args = parsed()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    if not torch.cuda.is_available() and not args.quick:
        print("bench-gpu: this machine has no CUDA GPU; scripts/bench_gpu.py --quick tries its parts without one")
        return 2
    parts = args.part or list(PARTS)
    if len(parts) == 1 and os.environ.get("ROSA_BENCH_GPU_PART"):
        return measure(parts[0], args)
    return in_processes(parts, args)


def in_processes(parts: list[str], args: argparse.Namespace) -> int:
    """Each part with its own limit, as long as there is time for it."""
    import time

    began, failed = time.monotonic(), []
    options = [f"--rounds={args.rounds}", f"--out={args.out}", *(["--quick"] if args.quick else [])]
    for name in parts:
        if not args.again and measured(name, args):
            print(f"{name}: measured before; --again measures it once more")
            continue
        left = WHOLE - (time.monotonic() - began)
        limit: float = min(PARTS[name][1], left) if not args.quick else 600
        if not args.quick and left < PARTS[name][1] / 2:
            print(f"{name}: no time is left; run the same command again to measure it")
            failed.append(name)
            continue
        command = [sys.executable, __file__, *options, "--part", name]
        try:
            code = subprocess.run(command, env=os.environ | {"ROSA_BENCH_GPU_PART": "1"}, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after {limit:.0f} s", file=sys.stderr)
            code = 1
        failed += [name] if code else []
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def measured(name: str, args: argparse.Namespace) -> bool:
    """Whether this card has results of a part by this commit."""
    from bench.harness import card

    from rosa_bench.records.environment import code_state

    path = args.out / f"{card()}{'-quick' if args.quick else ''}.json"
    parts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    env = parts.get(name, {}).get("env", {})
    return bool(env) and {key: env.get(key) for key in ("git_sha", "git_dirty")} == {
        key: code_state().get(key) for key in ("git_sha", "git_dirty")
    }


def measure(name: str, args: argparse.Namespace) -> int:
    """Measure one part and print its tables."""
    from bench.harness import Options, card, run_part

    module, function = PARTS[name][0].split(".")
    work = getattr(importlib.import_module(f"bench.gpu.{module}"), function)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rounds = 1 if args.quick else args.rounds
    run_part(name, work, Options(rounds=rounds, threads=threads, quick=args.quick), args.out, card())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
