"""Common helpers: compose a run as the command line does, and small runs."""

from __future__ import annotations

import copy
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import backbones
import pytest
import torch
from omegaconf import OmegaConf

from rosa_bench import config
from rosa_bench.config import Run
from rosa_bench.config.fast_compose import composer
from rosa_bench.core.method import Step
from rosa_bench.data.batches import collate
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.models.load import load
from rosa_bench.system import hub

NODES = {name: node for group, name, node in config.group_nodes() if group == "method"}
METHODS = [name for name, node in NODES.items() if not OmegaConf.missing_keys(node)]  # a bridge alone is none
THIN = {name for name, node in NODES.items() if node.get("preset")}  # a bridge with values
REPRESENTATIVES = {"adalora", "ia3", "prompt_tuning"}  # a family each; the other presets are tried by slow tests
EACH = pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[pytest.mark.slow] if m in THIN - REPRESENTATIVES else []) for m in METHODS],
)
TASKS = config.choices("task")
MINIS = {"roberta_mini": "cola", "gpt2_mini": "e2e"}  # with the task they are tried on
BASES = {"roberta_base": "cola", "gpt2_base": "e2e"}  # 124 million parameters of random weights
CLASSES = {"bart": "cola", "opt": "sciq"}  # small and random; own methods only, all but one test slow
BACKBONES = MINIS | {"bert": "cola"} | CLASSES | BASES
ROWS = {"gpt2_mini": 8} | dict.fromkeys(BASES, 4)  # that a test trains on; of the others 24, which are shorter
SMALL = [
    "tracker=none",
    "train.limit_train=48",
    "train.limit_eval=24",
    "train.batch_size=8",
    "train.max_steps=9",
    "train.max_length=48",
    "train.device=cpu",
    "train.log_steps=2",
    "train.checkpoint_steps=2",
]


def composed(*overrides: str) -> config.Run:
    """The run for these command-line overrides, composed without Hydra's 0.25 s."""
    return composer()(overrides)


def small(folder: Path, *overrides: str) -> config.Run:
    """A run of a few steps whose records go below `folder`."""
    return composed(*SMALL, f"output_dir={folder}", *overrides)


def on(name: str) -> tuple[str, ...]:
    """The overrides that select one of `BACKBONES` and its task."""
    task = f"task={BACKBONES[name]}"
    if name in MINIS:
        return task, f"model={name}"
    if name in BASES:
        return task, f"model.path={backbones.folder(name.removesuffix('_base'), whole=False)}", "model.random_init=true"
    return task, f"model.path={backbones.folder(name)}"


_LOADED: dict[str, tuple[Any, torch.Tensor]] = {}


def loaded(run: Run, name: str, seed: int = 3):
    """What `load` returns, and encoded training rows: copies of what was loaded once, for all but the large backbones.

    Random numbers drawn afterwards are those drawn after loading, which seeds them.
    """
    key = repr((run.model, run.task, run.data, name, seed))
    if key not in _LOADED:
        model, tokenizer = load(run.model, run.task, seed)
        after = torch.get_rng_state()
        split = load_split(run.task, run.data, "train", ROWS.get(name, 24))
        fresh = model, tokenizer, encode_split(run.task, tokenizer, split, 64)
        if name in BASES:
            return fresh
        _LOADED[key] = fresh, after
    fresh, after = _LOADED[key]
    torch.set_rng_state(after)
    return copy.deepcopy(fresh)


def prepared(method: str, name: str, *overrides: str, seed: int = 3):
    """A run, its model with the method attached, the tokenizer, and encoded training rows."""
    run = composed(f"method={method}", *on(name), *overrides)
    model, tokenizer, rows = loaded(run, name, seed)
    run.method.attach(model, seed)
    return run, model, tokenizer, rows


def steps(run: Run, model, rows, count: int, lr: float) -> list[float]:
    """Train on one batch with the method's hooks and without dropout; return the loss before each step."""
    model.eval()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    batch, losses = collate(rows, pad_id=1), []
    for index in range(count):
        step = Step(model, optimizer, index, per_epoch=10, seed=3, total=count)
        for group in optimizer.param_groups:
            group["lr"] = lr * run.method.lr_factor(index, lambda _: 1.0, step.per_epoch)
        run.method.before_step(step)
        loss = model(**batch).loss
        loss.backward()
        run.method.before_update(step)
        optimizer.step()
        run.method.after_update(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@cache
def refusal(method: str, name: str) -> str:
    """Why a method does not support a backbone; empty if it does. Each method's own test lists them."""
    run = composed(f"method={method}", *on(name))
    try:
        run.method.check(run.task)
        prepared(method, name)
    except UsageError as error:
        return str(error)
    return ""


def skip_refused(method: str, name: str) -> None:
    """Skip the test if the method refuses the backbone."""
    if why := refusal(method, name):
        pytest.skip(why)


def interrupt(run: config.Run, step: int) -> None:
    """Run until a stop request after an optimizer step."""
    from rosa_bench.run import run as run_experiment
    from rosa_bench.training.trainer import Loop

    original = Loop.on_step_end

    def stop(self, args, state, control, **kw):
        self.recorder.stop_asked |= state.global_step == step
        original(self, args, state, control, **kw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(run)


def overflow(patch: pytest.MonkeyPatch, *skipped: int) -> None:
    """Skip these optimizer steps (from 1) as a gradient scaler does when fp16 gradients overflow."""
    from accelerate.optimizer import AcceleratedOptimizer

    original, count = AcceleratedOptimizer.step, itertools.count(1)

    def step(self, closure=None):
        self._is_overflow = next(count) in skipped
        if not self._is_overflow:
            original(self, closure)
            return
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            p.grad.fill_(torch.inf)

    patch.setattr(AcceleratedOptimizer, "step", step)


def without_cost(record: Any) -> dict[str, Any]:
    """The part of a record that must be equal when a run is repeated."""
    return {name: getattr(record, name) for name in ("key", "status", "scores", "primary", "data", "variant_names")}


def forget_hubs() -> None:
    """Clear this process's caches about hubs."""
    import huggingface_hub._tree_cache as tree_cache

    for function in (hub.commit, hub.model, hub.dataset):
        function.cache_clear()
    tree_cache._IN_MEMORY_TREE_CACHE.clear()
