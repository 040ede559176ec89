"""Time and memory, each against a peer in the same process: `make bench`.

    python scripts/benchmark.py [--part NAME] [--rounds 5] [--size base] [--threads 2] [--quick]

Every round runs each contender once, so that disturbances on the machine affect all equally. Tables show medians, and
medians of the ratios within a round, with quartiles. Each part runs in its own process and is added to
results/bench/<host class>.json and .md. "Ours" is what `python -m rosa_bench` runs; peers run from their packages.
`--quick` runs every line in toy size; its figures mean nothing.

    training   examples per second of LoRA and full fine-tuning, against `peft` and `transformers.Trainer`
    steps      one optimizer step of every method, relative to LoRA's
    limit      operations per second of a step, relative to a large matrix product
    refactor   ROSA's factorizations, against full decompositions
    memory     bytes of weights, gradients, optimizer and activations; activations by length and batch size
    dylora     one DyLoRA run, against a LoRA run for every rank
    start      time to --help, to the first step, and the overhead of a cell of a sweep
    scale      cost by model size, rank and number of rows
    decoding   batches with our search, against one input at a time with `generate`

`decoding` reads its inputs from FOLDER/e2e_nlg/test.jsonl with `--data FOLDER` (default: ../shared/data if it exists),
else from the embedded task.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

from bench import exit_code, parser

from rosa_bench.system.cores import processor_cores
from rosa_bench.system.signals import command

ROOT = Path(__file__).parent.parent
REAL_ROWS = ROOT.parent / "shared" / "data"
PARTS = ("start", "steps", "limit", "training", "refactor", "memory", "dylora", "scale", "decoding")


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__, PARTS, rounds=5)
    options.add_argument("--size", choices=["toy", "mini", "small", "base", "large"], default="base")
    options.add_argument("--threads", type=int, default=processor_cores())
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--length", type=int, default=128)
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the parts steps and limit")
    options.add_argument("--only", default="", help="contenders of the part steps, separated by commas (default: all)")
    options.add_argument("--inputs", type=int, default=630, help="number of test inputs to decode")
    options.add_argument("--beams", type=int, nargs="+", default=[1, 10])
    options.add_argument("--data", default=str(REAL_ROWS) if REAL_ROWS.is_dir() else None, metavar="FOLDER")
    options.add_argument("--task", default="e2e", help="task of the part decoding")
    options.add_argument("--method", default="full", help="method of the part decoding")
    options.add_argument("--eval-batch", type=int, default=64)
    return options.parse_args(argv)


def main() -> int:
    """Measure one part in this process, or several in new processes; return 1 if one failed."""
    args = parsed()
    parts = args.part or list(PARTS)
    if len(parts) == 1:
        return measure(parts[0], args)
    others = [a for i, a in enumerate(sys.argv[1:]) if a != "--part" and sys.argv[i] != "--part"]
    failed = [name for name in parts if subprocess.run([sys.executable, __file__, *others, "--part", name]).returncode]
    return exit_code(failed)


def measure(name: str, args: argparse.Namespace) -> int:
    """Measure one part and print its tables."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # read when torch is imported
    from bench.harness import Options, run_part

    values = {key: value for key, value in vars(args).items() if key not in ("part", "out")}
    values |= {"only": tuple(filter(None, args.only.split(","))), "beams": tuple(args.beams)}
    if args.quick:
        values |= {"rounds": min(2, args.rounds), "inputs": 4, "batch": 8, "length": 16, "beams": (1, 2)}
    module = importlib.import_module(f"bench.{name}")
    run_part(name, module.measure, Options(**values), args.out)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
