"""Time and memory of one training step per method, side by side in one process: `make bench`.

    python scripts/benchmark.py [--size mini|base|large] [--batch 32] [--length 128] [--rounds 5] [--only lora,meft1]

Every round runs each contender once, in turn, so that what disturbs the machine disturbs all alike; the table shows the
median seconds and the median of the ratios to LoRA within a round, with their quartiles. Activations are what autograd
holds at most at a time (`rosa_bench.measure.saved_bytes`). The backbone has RoBERTa's shape and random weights, and all
rows have the same length, so that nothing is padded. Writes results/bench/steps-<machine>.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from rosa_bench import cli, measure
from rosa_bench.environment import environment
from rosa_bench.files import write_json
from rosa_bench.methods.base import Step

SIZES = {"mini": (128, 4, 4, 512), "base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096)}
CONTENDERS = {
    "full": ("method=full",),
    "full+checkpointing": ("method=full", "train.gradient_checkpointing=true"),
    "lora": ("method=lora",),
    "lora+checkpointing": ("method=lora", "train.gradient_checkpointing=true"),
    "dylora": ("method=dylora",),
    "rosa": ("method=rosa", "method.targets=[q,v]"),
    "meft1": ("method=meft", "method.variant=meft1"),
    "meft2": ("method=meft", "method.variant=meft2"),
    "meft3": ("method=meft", "method.variant=meft3"),
}
BASELINE = "lora"


@dataclass
class Contender:
    """One training step of a method, ready to be run again and again."""

    step: Callable[[], None]
    model: torch.nn.Module


def contender(
    overrides: tuple[str, ...], shape: tuple[int, int, int, int], batch: dict[str, torch.Tensor]
) -> Contender:
    """A model with the method attached and one whole optimiser step of it, hooks included."""
    run = cli.compose(["task=cola", "tracker=none", *overrides])
    width, layers, heads, inner = shape
    config = transformers.RobertaConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner,
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config).to(batch["input_ids"].device)
    run.method.attach(model, 0)
    if run.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    model.train()
    index = 0

    def step() -> None:
        nonlocal index
        now = Step(model, optimizer, index, per_epoch=10**9, seed=0)
        run.method.before_step(now)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=run.train.precision == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        run.method.before_update(now)
        optimizer.step()
        run.method.after_update(now)
        optimizer.zero_grad()
        index += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return Contender(step, model)


def seconds(work: Callable[[], None]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    """Measure, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", default="", help="names of contenders, with commas; all if empty")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    wanted = [name for name in CONTENDERS if not args.only or name in (BASELINE, *args.only.split(","))]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ids = torch.randint(10, 50000, (args.batch, args.length), generator=torch.Generator().manual_seed(0)).to(device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}
    ready, activations = {}, {}
    for name in wanted:
        gc.collect()
        ready[name] = contender((*CONTENDERS[name], f"train.precision={args.precision}"), SIZES[args.size], batch)
        with measure.saved_bytes(ready[name].model) as held:
            ready[name].step()
        activations[name] = held.bytes
    times: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(args.rounds):
        for name in wanted:
            times[name].append(seconds(ready[name].step))
    told: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items()}, "env": environment("auto")}
    told["methods"] = {}
    print(f"| method | s per step | over {BASELINE} (quartiles) | activations MB | of full |\n|---|---|---|---|---|")
    for name in wanted:
        ratios = [t / base for t, base in zip(times[name], times[BASELINE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        share = f"{activations[name] / activations['full']:.1%}" if "full" in activations else ""
        told["methods"][name] = {"seconds": times[name], "ratios": ratios, "activation_bytes": activations[name]}
        print(
            f"| {name} | {statistics.median(times[name]):.3f} | {middle:.2f} ({low:.2f}-{high:.2f}) "
            f"| {activations[name] / 1e6:.1f} | {share} |"
        )
    path = args.out / f"steps-{args.size}-{args.precision}-{platform.machine()}-{device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, told)
    print(json.dumps({"file": str(path)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
