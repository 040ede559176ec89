"""Time, memory and exactness on a GPU, each against a peer in the same process: `make bench-gpu`.

    python scripts/bench_gpu.py [--part NAME] [--again] [--quick]

Takes less than eight minutes on one GPU. Each part runs in its own process and writes results/bench/<card>.md and
.json. Parts already measured for this GPU and commit are skipped unless `--again` is given, so a stopped benchmark
continues where it was. `--quick` runs every part in toy size, also without a GPU; its figures mean nothing.

    capture    whether torch supports what CUDA graphs need, also after a failed capture
    streams    MEFT's compiled arithmetic against the eager one
    short      a step of RoBERTa-base on CoLA's rows, against `peft` and `transformers.Trainer`
    medium     a step of RoBERTa-large at 128 tokens, and its memory
    long       the same at 512 tokens
    decoding   ten beams of GPT-2 medium, against `generate` in batches
    split      ROSA's split on the GPU, against LAPACK on the host
    exact      losses with graphs against eager ones; a resumed run against an uninterrupted one
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from typing import Any

from bench import exit_code, parser

from rosa_bench.system.cores import processor_cores
from rosa_bench.system.signals import command

# By part: its function, and the seconds after which it is stopped.
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
LIMIT_S = 480  # seconds for all parts


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__, PARTS, rounds=2)
    options.add_argument("--again", action="store_true", help="also measure parts that this commit has results of")
    return options.parse_args(argv)


def main() -> int:
    """Measure the missing parts, each in its own process; return 1 if one failed, 2 without a GPU."""
    args = parsed()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    if not torch.cuda.is_available() and not args.quick:
        print("bench-gpu: this machine has no CUDA GPU; run scripts/bench_gpu.py --quick to try its parts without one")
        return 2
    parts = args.part or list(PARTS)
    if len(parts) == 1 and os.environ.get("ROSA_BENCH_GPU_PART"):
        return measure(parts[0], args)
    return in_processes(parts, args)


def in_processes(parts: list[str], args: argparse.Namespace) -> int:
    """Run each part within its time limit, until the total limit is reached."""
    import time

    began, failed = time.monotonic(), []
    options = [f"--rounds={args.rounds}", f"--out={args.out}", *(["--quick"] if args.quick else [])]
    for name in parts:
        if not args.again and measured(name, args):
            print(f"{name}: already measured; use --again to measure it again")
            continue
        remaining = LIMIT_S - (time.monotonic() - began)
        limit: float = min(PARTS[name][1], remaining) if not args.quick else 600
        if not args.quick and remaining < PARTS[name][1] / 2:
            print(f"{name}: no time left; run the same command again to measure it")
            failed.append(name)
            continue
        arguments = [sys.executable, __file__, *options, "--part", name]
        try:
            code = subprocess.run(arguments, env=os.environ | {"ROSA_BENCH_GPU_PART": "1"}, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after {limit:.0f} s", file=sys.stderr)
            code = 1
        failed += [name] if code else []
    return exit_code(failed)


def measured(name: str, args: argparse.Namespace) -> bool:
    """Whether there are results of a part for this GPU and commit."""
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
    rounds = 1 if args.quick else args.rounds
    run_part(name, work, Options(rounds=rounds, threads=processor_cores(), quick=args.quick), args.out, card())
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
