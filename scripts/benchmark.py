"""Time and memory, each against its peer in one process: `make bench`.

    python scripts/benchmark.py [--part steps] [--part decoding] [--size mini|base|large] [--rounds 5]

Every round runs each contender once, in turn, so that what disturbs the machine disturbs all alike; the tables show
medians, and the median of the ratios within a round with their quartiles. Writes results/bench/.

`steps`: one optimiser step of every method, over LoRA's. The backbone has RoBERTa's shape and random weights, and all
rows have the same length, so that nothing is padded. Activations are what autograd holds at most at a time.
`decoding`: E2E test inputs in batches by our search, over one by one by `generate` of transformers, greedily and with
ten beams. Every round takes its share of the inputs and decodes it both ways; the outputs are compared. The inputs are
real ones with `--data FOLDER`, FOLDER/e2e_nlg/test.jsonl (../shared/data if that is there), else embedded ones.
"""

from __future__ import annotations

import argparse
import gc
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

from rosa_bench import cli, decoding, evaluate, measure
from rosa_bench.data.source import load_split
from rosa_bench.environment import environment
from rosa_bench.files import write_json
from rosa_bench.methods.base import Step
from rosa_bench.models.load import load

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
REAL_ROWS = Path(__file__).parent.parent.parent / "shared" / "data"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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


def measure_steps(args: argparse.Namespace) -> dict[str, Any]:
    """One optimiser step of every contender, in turn."""
    wanted = [name for name in CONTENDERS if not args.only or name in (BASELINE, *args.only.split(","))]
    ids = torch.randint(10, 50000, (args.batch, args.length), generator=torch.Generator().manual_seed(0)).to(DEVICE)
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
    print(f"| method | s per step | over {BASELINE} (quartiles) | activations MB | of full |\n|---|---|---|---|---|")
    told = {}
    for name in wanted:
        ratios = [t / base for t, base in zip(times[name], times[BASELINE], strict=True)]
        share = f"{activations[name] / activations['full']:.1%}" if "full" in activations else ""
        told[name] = {"seconds": times[name], "ratios": ratios, "activation_bytes": activations[name]}
        print(
            f"| {name} | {statistics.median(times[name]):.3f} | {spread(ratios)} "
            f"| {activations[name] / 1e6:.1f} | {share} |"
        )
    return told


def measure_decoding(args: argparse.Namespace) -> dict[str, Any]:
    """Our search in batches against transformers' one input at a time: the same inputs, beams and outputs."""
    source = ["data=local", f"data.dir={args.data}"] if args.data else []
    told: dict[str, Any] = {"rows": str(args.data or "embedded")}
    print("| decoding | inputs | tokens/s in batches | one by one | ratio (quartiles) | other outputs |")
    print("|---|---|---|---|---|---|")
    for beams in args.beams:
        options = [f"task.num_beams={beams}", f"task.no_repeat_ngram={4 * (beams > 1)}"]
        run = cli.compose([f"task={args.task}", f"method={args.method}", "tracker=none", *options, *source])
        model, tokenizer = load(run.model, run.task, 0)
        run.method.attach(model, 0)
        model.to(DEVICE)
        examples = load_split(run.task, run.data, "test", args.inputs).examples
        batch = evaluate.decoding_batch(run.task, model, args.eval_batch)
        how, limit = evaluate.how_to_search(run.task, tokenizer), model.config.n_positions
        rates, others = [], 0
        for share in (examples[i :: args.rounds] for i in range(args.rounds)):
            began = time.perf_counter()
            ours = [str(p.value) for p in evaluate.decode(run.task, model, tokenizer, share, batch, limit)]
            middle = time.perf_counter()
            prompts = {example.texts: run.task.prompt_ids(example, tokenizer) for example in share}
            with evaluate.evaluating(model):
                found = {key: decoding.generated(model, [ids], how)[0] for key, ids in prompts.items()}
            theirs = {key: tokenizer.decode(ids, skip_special_tokens=True).strip() for key, ids in found.items()}
            ended = time.perf_counter()
            tokens = sum(len(ids) + 1 for ids in found.values())
            rates.append((tokens / (middle - began), tokens / (ended - middle)))
            others += sum(text != theirs[example.texts] for text, example in zip(ours, share, strict=True))
        ratios = [batched / single for batched, single in rates]
        medians = [f"{statistics.median(found):.0f}" for found in zip(*rates, strict=True)]
        told[f"beams {beams}"] = {"tokens_per_s": rates, "ratios": ratios, "inputs": len(examples), "others": others}
        name = "greedy" if beams == 1 else f"{beams} beams"
        print(f"| {name} | {len(examples)} | {medians[0]} | {medians[1]} | {spread(ratios)} | {others} |", flush=True)
    return told


def spread(ratios: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


PARTS = {"steps": measure_steps, "decoding": measure_decoding}


def main() -> int:
    """Measure, print a table for each part, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="all if not said")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", default="", help="names of contenders, with commas; all if empty")
    parser.add_argument("--inputs", type=int, default=630, help="test inputs to decode")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--data", type=Path, default=REAL_ROWS if REAL_ROWS.is_dir() else None, metavar="FOLDER")
    parser.add_argument("--task", default="e2e", help="of the inputs to decode")
    parser.add_argument("--method", default="full", help="attached to the model that decodes")
    parser.add_argument("--eval-batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.part or PARTS:
        told = {"arguments": {k: str(v) for k, v in vars(args).items()}, "env": environment("auto")}
        told[part] = PARTS[part](args)
        name = f"steps-{args.size}-{args.precision}" if part == "steps" else part
        path = args.out / f"{name}-{platform.machine()}-{DEVICE}.json"
        write_json(path, told)
        print(f"\n{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
