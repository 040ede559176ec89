"""Examples per second of LoRA and full fine-tuning, ours and the peers', with the same rows and weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from bench.harness import ACCURACY, Options, Result, Target, alternate, number, quartiles, ratios, spread
from bench.ours import Clock, Ours, losses_of
from bench.peers import Peer
from bench.shapes import folder, size_of
from rosa_bench import run
from rosa_bench.config.compose import compose
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import load_split
from rosa_bench.evaluation import predict
from rosa_bench.models.load import load
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.system.seeds import seeds

ROWS, PADDED = 512, 512  # rows of an epoch; tokens to which the reference code pads its rows
MICRO = 8  # rows of 512 tokens per micro-batch: 32 of them exceed the memory of many machines
SAME_OPTIMISER = ("train.fused=true",)  # the default of the Trainer
BEST = ("train.precision=bf16", *SAME_OPTIMISER)
SCORES = ("task=cola", "method=lora", "train.lr=2e-3")
MOVING = ("train.schedule=constant_with_warmup", "train.warmup=0")  # so that the losses change from the first step
SAME = 1e-4  # allowed relative difference of losses after some steps with two libraries' fp32 products


def measure(options: Options) -> Result:
    """Measure throughput, then losses on the same batches, then scores of the same setting over seeds."""
    result = Result()
    rows = 64 if options.quick else ROWS
    with (
        folder(size_of(options.size, options.quick)) as model,
        tempfile.TemporaryDirectory(prefix="rosa_bench-") as out,
    ):
        base = (f"train.limit_train={rows}", f"train.batch_size={options.batch}")
        _throughput(options, result, base, (model, Path(out)))
        for name in ("lora", "full"):
            pairs = _losses(name, base, model, Path(out))
            result.numbers[f"losses_{name}"] = pairs
            difference = max(abs(own_loss - peer_loss) / abs(peer_loss) for own_loss, peer_loss in pairs)
            target = f"{name}: largest relative difference of losses"
            result.targets.append(Target(target, difference, SAME, at_least=False))
    _scores(options, result)
    return result


def _throughput(options: Options, result: Result, base: tuple[str, ...], paths: tuple[Path, Path]) -> None:
    model, out = paths
    best = BEST if torch.cuda.is_available() or _has_bf16() else SAME_OPTIMISER
    ours = {
        "LoRA, ours": Ours(("method=lora", *SAME_OPTIMISER, *base), model, out / "a"),
        "LoRA, ours, best setting": Ours(("method=lora", *best, *base), model, out / "b"),
        "full, ours": Ours(("method=full", *SAME_OPTIMISER, *base), model, out / "c"),
        "full, ours, best setting": Ours(("method=full", *best, *base), model, out / "d"),
    }
    fp32, low = ours["LoRA, ours"].run.train, ours["LoRA, ours, best setting"].run.train
    full = ours["full, ours"].run.train
    rows = ours["LoRA, ours"].rows
    lora, plain = Peer(model, out, lora=True), Peer(model, out, lora=False)
    steps = -(-len(rows) // options.batch)

    def rate(clock: Clock, count: int) -> float:
        return count / clock.total

    contenders: dict[str, Callable[[], float]] = {
        name: (lambda experiment=experiment: rate(experiment.train(), len(rows))) for name, experiment in ours.items()
    }
    contenders |= {
        "LoRA, peft and Trainer": lambda: rate(lora.train(rows, fp32, steps), len(rows)),
        "LoRA, peft and Trainer, at that precision": lambda: rate(lora.train(rows, low, steps), len(rows)),
        "full, Trainer": lambda: rate(plain.train(rows, full, steps), len(rows)),
    }
    for experiment in ours.values():
        experiment.train(2)  # a run measures activations once
    for peer, train in ((lora, fp32), (plain, full)):
        peer.train(rows, train, 1)
    measured = alternate(contenders, options.rounds)
    micro = min(MICRO, options.batch)
    padded = {
        "LoRA, ours": contenders["LoRA, ours"],
        "LoRA, padded to 512": lambda: rate(lora.train(rows, fp32, 1, pad_to=PADDED, micro=micro), options.batch),
    }
    few = alternate(padded, min(3, options.rounds))
    _add(result, measured, few, micro)


def _has_bf16() -> bool:
    """Whether the processor has bf16 instructions."""
    try:
        return "avx512_bf16" in (text := Path("/proc/cpuinfo").read_text()) or "amx_bf16" in text
    except OSError:
        return False


def _add(result: Result, measured: dict[str, list[float]], few: dict[str, list[float]], micro: int) -> None:
    peers = {"LoRA": "LoRA, peft and Trainer", "full": "full, Trainer"}
    table: list[tuple[str, ...]] = [("training", "examples/s", "over the peer in fp32 (quartiles)")]
    for name, values in measured.items():
        over = ratios(measured, name, peers[name.partition(",")[0]])
        table.append((name, number(quartiles(values)[1]), spread(over)))
    times = ratios(few, "LoRA, ours", "LoRA, padded to 512")
    middle = quartiles(few["LoRA, padded to 512"])[1]
    table.append(("LoRA, padded to 512", number(middle), f"ours is {spread(times)} times"))
    result.tables.append(table)

    def ratio(one: str, other: str) -> float:
        return quartiles(ratios(measured, one, other))[1]

    best, low = "LoRA, ours, best setting", "LoRA, peft and Trainer, at that precision"
    result.targets += [
        Target("LoRA over peft and Trainer, fp32", ratio("LoRA, ours", peers["LoRA"]), 2),
        Target("LoRA at our best setting over peft and Trainer in fp32", ratio(best, peers["LoRA"]), 4),
        Target("LoRA at our best setting over peft and Trainer at that precision", ratio(best, low), 2),
        Target("full over Trainer, fp32", ratio("full, ours", peers["full"]), 2),
        Target("full at our best setting over Trainer in fp32", ratio("full, ours, best setting", peers["full"]), 4),
        Target("LoRA over rows padded to 512 tokens", quartiles(times)[1], 60),
    ]
    result.notes += [
        "Random weights; rows of embedded CoLA, 11 tokens long on average. Peers take the Trainer's defaults: random "
        "order, fused AdamW. Ours: batches of similar length, also with fused AdamW (train.fused=true).",
        f"Padded to 512 tokens: one optimizer step per round, in micro-batches of {micro} rows, at most three rounds.",
    ]
    result.numbers |= {"examples_per_s": measured, "padded_to_512": few}


def _losses(name: str, base: tuple[str, ...], model: Path, out: Path, steps: int = 4) -> list[tuple[float, float]]:
    """Losses of our run and the peer's by step, with the same batches and weights and without dropout."""
    ours = Ours((f"method={name}", *base, *MOVING), model, out / f"same-{name}")
    peer = Peer(model, out, lora=name == "lora")
    for module in [*ours.model.modules(), *peer.model.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    peer_modules = dict(peer.model.named_modules())
    with torch.no_grad():
        for module, site in lowrank_sites(ours.model):
            peer_modules[f"base_model.model.{site.name}"].lora_A["default"].weight.copy_(module.A[site.role].T)
    ours_losses: list[float] = []
    their_losses: list[float] = []
    order: list[int] = []

    def prepare(trainer: Any) -> None:
        losses_of(trainer, ours_losses)
        order.extend(trainer.sampler)

    steps = min(steps, -(-len(ours.rows) // ours.run.train.batch_size))
    ours.train(steps, prepare)
    peer.train(
        [ours.rows[i] for i in order], ours.run.train, steps, in_order=True,
        prepare=partial(losses_of, losses=their_losses),
    )  # fmt: skip
    return list(zip(ours_losses, their_losses, strict=True))


def _scores(options: Options, result: Result) -> None:
    """Final scores of the embedded backbone over seeds: ours in fp32, ours at the best setting, and the peer's."""
    steps, limits = (4, ("train.limit_train=64", "train.limit_eval=32", *ACCURACY)) if options.quick else (300, ())
    count = 2 if options.quick else 5
    names: dict[str, list[float]] = {"ours": [], "ours, best setting": [], "peft and Trainer": []}
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
        for seed in range(1, count + 1):
            common = [*SCORES, f"train.max_steps={steps}", f"seed={seed}", "tracker=none", f"output_dir={out}", *limits]
            for name, more in (("ours", ()), ("ours, best setting", BEST)):
                record = run.run(compose([*common, *more]))
                names[name].append(record.primary["last"])
            names["peft and Trainer"].append(_peer_score(compose(common), Path(out), seed))
    result.numbers["scores"] = names
    table = [(f"{steps} steps on embedded CoLA, mini backbone", "Matthews, mean over seeds", "deviation")]
    result.tables.append([*table, *((n, f"{mean(v):.1f}", f"{stdev(v):.1f}") for n, v in names.items())])
    spread_of = max(stdev(values) for values in names.values()) * (2 / count) ** 0.5
    for name in ("ours, best setting", "peft and Trainer"):
        difference = abs(mean(names[name]) - mean(names["ours"]))
        bound = 2.3 * spread_of  # Student's t for about eight degrees of freedom, 95 %
        result.targets.append(Target(f"score of {name} minus ours in fp32, points", difference, bound, at_least=False))


def _peer_score(cfg: Any, out: Path, seed: int) -> float:
    """Score of the peer on the same rows and backbone, by our metric."""
    from rosa_bench.models.identity import source_of

    split = load_split(cfg.task, cfg.data, "train", cfg.train.limit_train)
    _, tokenizer = load(cfg.model, cfg.task, seeds(seed).init)
    peer = Peer(Path(source_of(cfg.model)), out, lora=True, seed=seed)
    rows = encode_split(cfg.task, tokenizer, split, cfg.train.max_length)
    peer.train(rows, cfg.train, cfg.train.max_steps)
    scored = load_split(cfg.task, cfg.data, cfg.task.select_split, cfg.train.limit_eval)
    encoded = encode_split(cfg.task, tokenizer, scored, cfg.train.max_length)
    values = predict.Predictor(peer.model, cfg.train.eval_batch_size, tokenizer.pad_token_id).logits(encoded)[0]
    predictions = cfg.task.kind.predictions(cfg.task, scored.examples, values)
    return float(cfg.task.score(cfg.task.select_split, predictions)[cfg.task.primary])
