"""Whether steps replayed from CUDA graphs equal eager ones, and resumed runs uninterrupted ones."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bench.harness import Options, Result, Target, number
from bench.shapes import folder
from rosa_bench.config.compose import compose
from rosa_bench.run import run as run_experiment
from rosa_bench.training.graphs import as_if_capturing
from rosa_bench.training.trainer import Loop

CASES = [
    ("lora", "fp32"), ("dylora", "fp32"), ("rosa", "fp32"), ("meft", "fp32"), ("lora", "bf16"), ("full", "bf16"),
    ("meft", "bf16"),
]  # fmt: skip
TOYS = [("lora", "fp32"), ("meft", "bf16")]
CLOSE = {"fp32": 1e-3, "bf16": 3e-2}  # allowed relative difference of losses


def measure(options: Options) -> Result:
    """Train a small backbone with dropout: eagerly twice, with graphs, and with graphs and a resume."""
    result = Result(tables=[[("method", "precision", "eager again", "graphs", "resumed", "graphs recorded")]])
    steps = 4 if options.quick else 20
    worst = dict.fromkeys(CLOSE, 0.0)
    changed = 0
    # Eager steps normally omit a mask of ones, which selects a kernel with different dropout; prevent that.
    with (
        as_if_capturing(),
        folder("toy" if options.quick else "mini") as model,
        tempfile.TemporaryDirectory(prefix="rosa_bench-") as out,
    ):
        for method, precision in TOYS if options.quick else CASES:
            common = [
                "task=cola", "tracker=none", f"method={method}", f"model.path={model}", f"train.max_steps={steps}",
                "train.limit_train=128", "train.limit_eval=8", "train.batch_size=16", "train.log_steps=1",
                f"train.precision={precision}", "save=adapter", "train.checkpoint_steps=1000",
            ]  # fmt: skip
            eager, repeated, graphs, stopped = (
                _trained([*common, f"output_dir={out}/{method}-{precision}-{name}", f"train.graphs={mode}"], stop)
                for name, mode, stop in (
                    ("a", "off", 0), ("b", "off", 0), ("c", "auto", 0), ("d", "auto", steps // 2)
                )
            )  # fmt: skip
            pairs = {"again": (eager, repeated), "graphs": (eager, graphs), "resumed": (graphs, stopped)}
            apart = {name: _difference(*pair) for name, pair in pairs.items()}
            worst[precision] = max(worst[precision], apart["graphs"])
            changed += apart["resumed"] > 0
            shown = [_shown(value) for value in apart.values()]
            result.tables[0].append((method, precision, *shown, json.dumps(graphs[2])))
            result.numbers[f"{method} {precision}"] = apart
    result.targets += [
        Target(f"losses of graphs against eager ones, {p}", worst[p], CLOSE[p], at_least=False) for p in CLOSE
    ]
    result.targets.append(Target("runs that differ after a resume", changed, 0, at_least=False))
    result.notes.append("Relative differences of losses over all steps; `bitwise`: tensors and losses are equal.")
    return result


def _trained(overrides: list[str], stop: int) -> tuple[list[float], dict[str, torch.Tensor], Any]:
    """Losses and saved tensors of a run; with `stop`, it is stopped after that many steps and resumed."""
    run = compose(overrides)
    if stop:
        on_step_end = Loop.on_step_end

        def stopping(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.recorder.stop_asked |= state.global_step == stop
            on_step_end(self, args, state, control, **more)

        Loop.on_step_end = stopping  # type: ignore[method-assign]
        try:
            run_experiment(run)
        except KeyboardInterrupt:
            pass
        finally:
            Loop.on_step_end = on_step_end  # type: ignore[method-assign]
    record = run_experiment(run)
    path = Path(run.output_dir) / record.run_id
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    tensors: dict[str, torch.Tensor] = load_file(next(path.glob("adapter/*.safetensors")))
    return [line["loss"] for line in lines if "loss" in line], tensors, record.env.get("graphs")


def _difference(first: Any, second: Any) -> float:
    """The largest relative difference of losses; 0 only if losses and tensors are bitwise equal."""
    difference = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(first[0], second[0], strict=True))
    same = all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    return difference if difference or same else 1e-12


def _shown(value: float) -> str:
    return "bitwise" if value == 0 else number(value)
