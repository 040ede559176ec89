"""A run as `python -m rosa_bench` creates it, with training that can be repeated and observed."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rosa_bench.config.compose import compose
from rosa_bench.core.task import Encoded
from rosa_bench.data.batches import Rows
from rosa_bench.data.source import load_split
from rosa_bench.models.load import load
from rosa_bench.records.recorder import Recorder
from rosa_bench.records.run_key import config_key, run_id
from rosa_bench.run import Experiment
from rosa_bench.system.seeds import seeds
from rosa_bench.training.trainer import BenchTrainer, make_trainer

Prepare = Callable[[BenchTrainer], None]


class Clock(TrainerCallback):
    """Records when the steps of any Trainer begin and end; prevents its last checkpoint."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Record the time before the first micro-batch."""
        self.began.append(now())

    def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Record the time after the update."""
        self.ended.append(now())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Prevent the checkpoint, which is not measured."""
        control.should_save = False

    @property
    def total(self) -> float:
        """Seconds from the start of the first step to the end of the last."""
        return self.ended[-1] - self.began[0]

    @property
    def last(self) -> float:
        """Seconds of the last step, including hooks and batching between steps."""
        return self.ended[-1] - self.ended[-2]


class Span(Clock):
    """Times many steps together after `warm` warm-up steps, without synchronizing a GPU between them."""

    def __init__(self, warm: int, steps: int) -> None:
        super().__init__()
        self.warm, self.steps = warm, steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Not measured."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
        """Record the end of the warm-up and of the last step."""
        if state.global_step in (self.warm, self.warm + self.steps):
            self.ended.append(now())

    @property
    def each(self) -> float:
        """Mean seconds of a step."""
        return (self.ended[1] - self.ended[0]) / self.steps


def now() -> float:
    """The time in seconds, after all queued GPU work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Ours:
    """An experiment with its model loaded, method attached and rows encoded. Omits scoring."""

    def __init__(
        self, overrides: Sequence[str], model: Path | None, out: Path, rows: Sequence[Encoded] | None = None
    ) -> None:
        model_path = [f"model.path={model}"] if model else []
        common = ["task=cola", "tracker=none", "train.limit_eval=8", "resume=never", f"output_dir={out}"]
        self.run = compose([*common, *model_path, *overrides])
        self.recorder = self._recorder()
        splits = {
            split: load_split(
                self.run.task, self.run.data, split, self.run.train.limit_train if split == "train" else 8
            )
            for split in self.run.task.splits
        }
        backbone, tokenizer = load(self.run.model, self.run.task, seeds(self.run.seed).init)
        with self.recorder, _quiet():
            self.experiment = Experiment(self.run, splits, backbone, tokenizer, self.recorder)
            self.experiment.attach()
        if rows is not None:
            self.experiment.rows = rows

    def _recorder(self) -> Recorder:
        key = config_key(self.run)
        recorder = Recorder(self.run, run_id(self.run, key), key, lock=None)
        recorder.folder.mkdir(parents=True, exist_ok=True)
        return recorder

    @property
    def model(self) -> Any:
        """The model with the method attached."""
        return self.experiment.model

    @property
    def rows(self) -> Sequence[Encoded]:
        """The encoded training rows."""
        return self.experiment.rows

    def train(self, steps: int | None = None, prepare: Prepare | None = None, clock: Clock | None = None) -> Clock:
        """Train for an epoch or `steps` steps with a new optimizer. Only the first call measures activations."""
        per_epoch = math.ceil(len(self.rows) / self.run.train.batch_size)
        run = replace(self.run, train=replace(self.run.train, epochs=1, max_steps=steps or per_epoch))
        clock, pad = clock or Clock(), int(self.experiment.tokenizer.pad_token_id)
        with self.recorder, _quiet(), self.experiment.matmul(self.model):
            rows = Rows(self.rows, [str(number) for number in range(len(self.rows))])
            trainer = make_trainer(run, self.model, rows, pad, self.recorder, lambda: {run.task.select_split: {}})
            trainer.add_callback(clock)
            if prepare:
                prepare(trainer)
            trainer.train()
            self.recorder.training_ends()
        del trainer
        forget(self.model)
        if self.recorder.stop_asked:
            raise KeyboardInterrupt
        return clock

    def activations(self, steps: int = 1) -> int:
        """The most bytes that autograd saves in the first of these steps."""
        self.recorder.activations = None
        self.train(steps)
        assert self.recorder.activations is not None
        return self.recorder.activations


def forget(model: Any) -> None:
    """Undo what a Trainer leaves in a model: the wrapped forward pass and the optimizer."""
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        model.__dict__.pop(name, None)
    gc.collect()


def losses_of(trainer: Any, losses: list[float]) -> None:
    """Append the loss of every micro-batch of a Trainer to `losses`."""
    training_step = trainer.training_step

    def step(*arguments: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = training_step(*arguments, **options)
        losses.append(float(loss))
        return loss

    trainer.training_step = step


@contextlib.contextmanager
def _quiet() -> Any:
    """Suppress the output of a run."""
    with contextlib.redirect_stdout(None):
        yield
