"""Draws docs/background/figures/synthetic.png from records: error over rank of three methods, and the theory.

Run `python -m rosa_bench.suite synthetic` first; then `python scripts/synthetic_figure.py [--runs DIR] [--out FILE]`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import rosa_theory as theory
import torch

from rosa_bench.config.compose import compose
from rosa_bench.methods.rosa import Rosa
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record

STYLES = {"full": ("black", "none"), "lora": ("#d55e00", "o"), "rosa": ("#0072b2", "s")}  # color-blind safe
VARIANTS = {"random_add": ("black", "o"), "equal": ("#0072b2", "s"), "projection": ("#d55e00", "^")}
LABELS = {"lora": "LoRA", "rosa": "ROSA"}
LEAST = 1e-6  # end of the axis, as a share of the error before training


def errors(records: list[Record], layers: int) -> dict[str, dict[int, float]]:
    """Training error over rank by method; full fine-tuning has rank 0."""
    by_method: dict[str, dict[int, float]] = {}
    for record in records:
        if record.task == "synthetic" and record.config["task"]["layers"] == layers:
            rank = record.config["method"].get("rank", 0)
            by_method.setdefault(record.method, {})[rank] = record.scores["train"][""]["mse"]
    return by_method


def linear() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training vectors and labels (minus the bias) of the one-layer task, and its start weight [I, O]."""
    task: Any = compose(["task=synthetic"]).task
    sample = task.world()
    start = sample.start.network["fc1"]
    rows = slice(0, task.train_rows)
    return sample.vectors[rows], (sample.labels[rows] - start.bias).detach(), start.weight.T.detach()


def draw_errors(axis: Any, by_method: dict[str, dict[int, float]], start: float, title: str) -> None:
    """One panel: error over rank, as a share of the error before training."""
    for method, by_rank in sorted(by_method.items()):
        color, marker = STYLES[method]
        shares = {rank: max(error / start, LEAST) for rank, error in sorted(by_rank.items())}
        if method == "full":
            axis.axhline(shares[0], color=color, linestyle="--", label="full fine-tuning")
        else:
            axis.plot(list(shares), list(shares.values()), color=color, marker=marker, label=LABELS[method])
    axis.set(title=title, xlabel="rank", yscale="log")


def main() -> int:
    """Draw the three panels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("results/runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/background/figures/synthetic.png"))
    args = parser.parse_args()
    records = collect([args.runs]).records
    X, Y, W = linear()
    start = float((X @ W - Y).square().mean())
    difference = torch.linalg.lstsq(X.double(), (Y - X @ W).double()).solution
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")

    draw_errors(axes[0], errors(records, 1), start, "one layer, trained")
    floors = [theory.floor(X, difference, rank) / start for rank in range(1, 24)]
    axes[0].plot(range(1, 24), floors, color="grey", linestyle=":", label="least error of an update of that rank")
    axes[0].set_ylabel("training error / error at the start")
    axes[0].legend(loc=(0.28, 0.3))
    two_layers = errors(records, 2)
    task: Any = compose(["task=synthetic", "task.layers=2"]).task
    sample = task.world()
    with torch.no_grad():
        before = sample.start(torch.arange(task.train_rows)[:, None]).logits - sample.labels[: task.train_rows]
    draw_errors(axes[1], two_layers, float(before.square().mean()), "two layers, trained")
    for variant, (color, marker) in VARIANTS.items():
        steps = theory.resampled(X, Y, W, Rosa(variant=variant), 4, torch.Generator().manual_seed(1))
        shares = [1.0, *(max(error / start, LEAST) for error in itertools.islice(steps, 14))]
        axes[2].plot(shares, color=color, marker=marker, label=f"variant={variant}")
    axes[2].axvline(6, color="grey", linestyle=":", label="ceil(24 / 4) = 6")
    axes[2].set(title="one layer, rank 4, best A and B at every step", xlabel="re-samplings", yscale="log")
    axes[2].legend()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
