"""Whether a step that is replayed from a CUDA graph is the eager one, and a resumed run the uninterrupted one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bench.harness import Found, Options, Target, number
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
CLOSE = {"fp32": 1e-3, "bf16": 3e-2}  # of losses, relative


def measure(options: Options) -> Found:
    """Runs of a small backbone with dropout: eager twice, by graphs, and by graphs but stopped in the middle."""
    found = Found(tables=[[("method", "precision", "eager again", "graphs", "resumed", "graphs recorded")]])
    steps = 4 if options.quick else 20
    worst = dict.fromkeys(CLOSE, 0.0)
    kept = 0
    # Eager steps leave out a mask of ones, for which another kernel draws other dropout; here they may not.
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
            eager, again, graphs, stopped = (
                _trained([*common, f"output_dir={out}/{method}-{precision}-{name}", f"train.graphs={mode}"], stop)
                for name, mode, stop in (
                    ("a", "off", 0), ("b", "off", 0), ("c", "auto", 0), ("d", "auto", steps // 2)
                )
            )  # fmt: skip
            repeat, off, resumed = (_apart(eager, again), _apart(eager, graphs), _apart(graphs, stopped))
            worst[precision] = max(worst[precision], off)
            kept += resumed > 0
            shown = [_shown(value) for value in (repeat, off, resumed)]
            found.tables[0].append((method, precision, *shown, json.dumps(graphs[2])))
            found.numbers[f"{method} {precision}"] = {"again": repeat, "graphs": off, "resumed": resumed}
    found.targets += [
        Target(f"losses of graphs off eager ones, {p}", worst[p], CLOSE[p], at_least=False) for p in CLOSE
    ]
    found.targets.append(Target("runs that are another after a resume", kept, 0, at_least=False))
    found.notes.append("Relative differences of losses over all steps; `bitwise` where tensors and losses are equal.")
    return found


def _trained(overrides: list[str], stop: int) -> tuple[list[float], dict[str, torch.Tensor], Any]:
    """The losses and saved tensors of a run that is stopped after some steps and resumed, unless `stop` is 0."""
    run = compose(overrides)
    if stop:
        usual = Loop.on_step_end

        def stopping(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.recorder.stop_asked |= state.global_step == stop
            usual(self, args, state, control, **more)

        Loop.on_step_end = stopping  # type: ignore[method-assign]
        try:
            run_experiment(run)
        except KeyboardInterrupt:
            pass
        finally:
            Loop.on_step_end = usual  # type: ignore[method-assign]
    record = run_experiment(run)
    path = Path(run.output_dir) / record.run_id
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    tensors: dict[str, torch.Tensor] = load_file(next(path.glob("adapter/*.safetensors")))
    return [line["loss"] for line in lines if "loss" in line], tensors, record.env.get("graphs")


def _apart(one: Any, other: Any) -> float:
    """The largest relative difference of losses; 0 only if losses and tensors are equal in every bit."""
    off = max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(one[0], other[0], strict=True))
    same = all(torch.equal(one[1][name], other[1][name]) for name in one[1])
    return off if off or same else 1e-12


def _shown(value: float) -> str:
    return "bitwise" if value == 0 else number(value)
