"""Estimates how long the suites of the papers take on one GPU.

    python scripts/hours.py [--card NAME]

Prints the table of docs/howto/reproduce.md; nothing is measured. A step takes as long as its arithmetic at a given
speed, but at least a fixed time per layer. With `--card` both come from the steps that `make bench-gpu` measured
(results/bench/NAME.json), otherwise from `ASSUMED`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rosa_bench import config
from rosa_bench.config import Run
from rosa_bench.suite import plan


@dataclass(frozen=True)
class Speed:
    """Operations per second of a GPU, and its seconds per layer of a step and of a decoded token."""

    flops: float
    layer_s: float  # forward, backward and update
    token_s: float  # per batch and layer


# Sustained by an A100 with train.precision=bf16: a fifth of its peak.
ASSUMED = Speed(flops=60e12, layer_s=2.5e-3, token_s=1.5e-3)
PARAMETERS = {  # without embeddings, with the output layer of decoders
    "roberta_base": (86e6, 12),
    "roberta_large": (303e6, 24),
    "gpt2": (124e6, 12),
    "gpt2_medium": (354e6, 24),
    "gpt2_large": (773e6, 36),
    "opt_1_3b": (1316e6, 24),
}
# Training examples, evaluated rows, and tokens per example (words and punctuation of the real sets times 1.1 or 1.2).
ROWS = {
    "cola": (8551, 1043, 12),
    "sst2": (67349, 872, 13),
    "mrpc": (3668, 408, 56),
    "stsb": (5749, 1500, 30),
    "qqp": (363846, 40430, 30),
    "mnli": (392702, 19647, 42),
    "qnli": (104743, 5463, 53),
    "rte": (2490, 277, 73),
    "e2e": (42061, 630, 64),
    "webnlg": (18102, 1862, 55),
    "dart": (62659, 5097, 67),
    # Multiple choice: every choice of a scored row is read. PIQA's and SciQ's lengths are guesses.
    "openbookqa": (4957, 4000, 21),
    "piqa": (16113, 3676, 37),
    "arc_easy": (2251, 11784, 33),
    "arc_challenge": (1119, 5884, 38),
    "sciq": (11679, 8000, 130),
}


def measured(path: Path) -> Speed:
    """The speed of a GPU from its results. Raises ValueError, naming the part, if one is missing."""
    parts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in ("short", "long", "decoding"):
        if name not in parts:
            raise ValueError(f"{path} has no part {name}; run make bench-gpu on that GPU")
    short, long, decoding = (parts[name]["numbers"] for name in ("short", "long", "decoding"))
    size, _ = PARAMETERS[f"roberta_{long['size']}"]
    _, layers = PARAMETERS[f"roberta_{short['size']}"]
    cells = long["length"] * long["batch"]
    batches = math.ceil(decoding["inputs"] / 64)
    return Speed(
        flops=4 * size * cells / (median(long["ms"]["lora"]) / 1e3),
        layer_s=median(short["ms"]["lora"]) / 1e3 / layers,
        token_s=median(decoding["seconds"]["ours"]) / (batches * 64 * decoding["layers"]),
    )


def hours(run: Run, speed: Speed = ASSUMED) -> float:
    """Hours of a run: training, evaluation at every epoch, and decoding of every variant at the end."""
    examples, scored, tokens = ROWS[run.task.name]
    size, layers = PARAMETERS[run.model.name]
    batch = run.train.batch_size
    per_parameter = 6 if type(run.method).__name__ == "Full" else 4  # no gradients of frozen weights
    step_s = max(per_parameter * size * tokens * batch / speed.flops, speed.layer_s * layers)
    step_s *= max(1, len(run.method.summed_variants()))
    epochs = run.train.epochs or run.task.epochs
    steps = run.train.max_steps or epochs * math.ceil(examples / batch)
    seconds = steps * step_s
    if run.task.kind.decodes:
        parts = len(run.method.variants()) + 1  # and the best epoch
        return (seconds + parts * math.ceil(scored / 64) * 64 * layers * speed.token_s) / 3600
    pass_s = max(2 * size * tokens * 128 / speed.flops, speed.layer_s * layers / 3)
    return (seconds + epochs * math.ceil(scored / 128) * pass_s) / 3600


def rounded(value: float) -> str:
    """A number with two digits at most, since it is an estimate."""
    if value < 0.1:
        return "< 0.1"
    return f"{value:.1f}" if value < 1 else f"{float(f'{value:.2g}'):,.0f}"


def lines(speed: Speed = ASSUMED) -> list[str]:
    """The lines of the table."""
    out = ["| suite | runs | hours of one GPU | of one seed |", "|---|---|---|---|"]
    for name in config.choices("suite"):
        suite = plan.load(name)
        if suite.paper is not None:
            cells = plan.plan(suite)
            all_hours, first = (
                sum(hours(cell.run, speed) for cell in cells if cell.run.seed in seeds)
                for seeds in ({cell.run.seed for cell in cells}, suite.seeds[:1])
            )
            out.append(f"| `{name}` | {len(cells)} | {rounded(all_hours)} | {rounded(first)} |")
    return out


def main() -> int:
    """Print the table; return 2 if there are no measurements of the GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", help="name of a file in results/bench, without .json (default: assumed speeds)")
    args = parser.parse_args()
    speed = ASSUMED
    if args.card is not None:
        try:
            speed = measured(Path("results/bench") / f"{args.card}.json")
        except (OSError, ValueError, KeyError) as error:
            print(f"hours: cannot read measurements of {args.card} ({error})", file=sys.stderr)
            return 2
    print("\n".join(lines(speed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
