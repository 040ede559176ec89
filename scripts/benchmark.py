"""Time and memory, each against its peer in one process: `make bench`.

    python scripts/benchmark.py [--part NAME] [--rounds 5] [--size base] [--threads 2] [--quick]

Every round runs each contender once, in turn, so that what disturbs the machine disturbs all alike; tables show
medians, and medians of the ratios within a round, with their quartiles. Each part runs in a process of its own and is
written into results/bench/<host class>.json and .md, beside the parts that stand there. "Ours" is what
`python -m rosa_bench` runs; peers run from their packages. `--quick` tries every line in toy sizes; its figures mean
nothing.

    training   examples per second of LoRA and full fine-tuning, against `peft` and `transformers.Trainer`
    steps      one optimiser step of every method, over LoRA's
    limit      operations per second of a step, over those of a large matrix product
    refactor   ROSA's splits, against full decompositions
    memory     bytes of weights, gradients, optimiser and activations; activations over lengths and batches
    dylora     one DyLoRA run against a LoRA run for every rank
    start      until help, until the first step, and what a cell of a sweep costs beside its run
    scale      cost over model size, rank and rows
    decoding   batches by our search, against one input at a time by `generate`

The inputs of `decoding` are real ones with `--data FOLDER`, FOLDER/e2e_nlg/test.jsonl (../shared/data if that is
there), else embedded ones.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
REAL_ROWS = ROOT.parent / "shared" / "data"
PARTS = ("start", "steps", "limit", "training", "refactor", "memory", "dylora", "scale", "decoding")


def parsed(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="all if not said")
    parser.add_argument("--quick", action="store_true", help="toy sizes: tries everything, measures nothing")
    parser.add_argument("--size", choices=["toy", "mini", "small", "base", "large"], default="base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of steps and limit")
    parser.add_argument("--only", default="", help="contenders of steps, with commas; all if empty")
    parser.add_argument("--inputs", type=int, default=630, help="test inputs to decode")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--data", default=str(REAL_ROWS) if REAL_ROWS.is_dir() else None, metavar="FOLDER")
    parser.add_argument("--task", default="e2e", help="of the inputs to decode")
    parser.add_argument("--method", default="full", help="attached to the model that decodes")
    parser.add_argument("--eval-batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    return parser.parse_args(argv)


def main() -> int:
    """Measure one part here, or several in processes of their own; returns 1 if one of them failed."""
    args = parsed()
    parts = args.part or list(PARTS)
    if len(parts) == 1:
        return measure(parts[0], args)
    rest = [a for i, a in enumerate(sys.argv[1:]) if a != "--part" and sys.argv[i] != "--part"]
    failed = [name for name in parts if subprocess.run([sys.executable, __file__, *rest, "--part", name]).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def measure(name: str, args: argparse.Namespace) -> int:
    """Measure one part and print its tables."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before anything that reads it is imported
    from bench.harness import Options, run_part

    given = {key: value for key, value in vars(args).items() if key not in ("part", "out")}
    given |= {"only": tuple(filter(None, args.only.split(","))), "beams": tuple(args.beams)}
    if args.quick:
        given |= {"rounds": min(2, args.rounds), "inputs": 4, "batch": 8, "length": 16, "beams": (1, 2)}
    module = importlib.import_module(f"bench.{name}")
    run_part(name, module.measure, Options(**given), args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
