"""`transformers.Trainer` as the one training loop. No method or task is mentioned by name.

Order of events and hooks:

    optimizer from the parameters that require gradients (the method is attached)
    for each epoch:                         EpochSampler gives the epoch's order from (seed, epoch)
        for each optimizer step:
            method.before_step              once, before the first micro-batch
            forward, backward               for each micro-batch
            clip
            method.before_update
            optimizer.step
            method.after_update
            scheduler.step, zero_grad, global_step += 1
            [checkpoint every checkpoint_steps]
        evaluate, then checkpoint

Hooks depend only on (seed, global_step), so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rosa_bench.config import Run, Train
from rosa_bench.core.kind import Kind
from rosa_bench.core.method import Step, tally
from rosa_bench.data.batches import (
    BatchInfo,
    EpochSampler,
    Rows,
    collate_with_info,
    padded_length,
    padding_multiple,
)
from rosa_bench.errors import UsageError
from rosa_bench.models.casts import Casts
from rosa_bench.models.traits import max_length
from rosa_bench.records import checkpoints
from rosa_bench.records.best_epoch import best_epoch, chosen_by, evaluations_since_best
from rosa_bench.records.recorder import Recorder
from rosa_bench.system import distributed, memory, progress
from rosa_bench.system.seeds import seeds
from rosa_bench.training import optimizer
from rosa_bench.training.graphs import BACKENDS, CLOSE, Graphs, RefusedError, reason_against
from rosa_bench.training.loss_window import LossWindow, NotFiniteError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Scores = Mapping[str, Mapping[str, float]]
# The argument's name in later releases of transformers 5, and before.
_CHECKPOINTING = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)


NAMED = 8  # examples of a batch named in an error; the record has all of them


class LossNotFiniteError(Exception):
    """The loss became NaN or infinite."""


def micro_batch_size(train: Train) -> int:
    """Examples per forward pass of a process. Raises UsageError if the processes cannot share a batch equally."""
    world = distributed.world_size()
    micro = train.micro_batch_size or max(1, train.batch_size // world)
    if train.batch_size % (micro * world):
        raise UsageError(
            f"train.batch_size={train.batch_size} is not a multiple of {micro} examples x {world} processes; change "
            "train.batch_size, train.micro_batch_size or the number of processes"
        )
    return micro


@contextlib.contextmanager
def without_accelerate_variables() -> Iterator[None]:
    """Hide the variables of `accelerate launch`, which would replace options of the run such as its precision."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("ACCELERATE_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


@without_accelerate_variables()
def arguments(run: Run, folder: Path) -> TrainingArguments:
    """The Trainer's arguments. Raises UsageError like `micro_batch_size`."""
    train, micro = run.train, micro_batch_size(run.train)
    checkpointing: dict[str, Any] = {_CHECKPOINTING: train.gradient_checkpointing}
    on_gpu = torch.cuda.is_available() and train.device != "cpu"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=train.batch_size // (micro * distributed.world_size()),
        num_train_epochs=train.epochs or 1,
        max_steps=train.max_steps or -1,
        learning_rate=train.lr or 0.0,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        adam_beta1=train.beta1,
        adam_beta2=train.beta2,
        adam_epsilon=train.adam_epsilon,
        max_grad_norm=train.max_grad_norm,
        bf16=train.precision == "bf16",
        fp16=train.precision == "fp16",
        dataloader_num_workers=train.num_workers,
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},  # overlap copies from pinned memory with computation
        use_cpu=train.device == "cpu" or not torch.accelerator.is_available(),
        seed=seeds(run.seed).dropout,
        **optimizer.settings(train),
        logging_steps=train.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="no",  # `Loop` decides
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        **checkpointing,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one device per process; use torchrun for more
    return arguments


def check_training(run: Run) -> None:
    """Raise UsageError if the processes cannot share a batch, or an option does not suit the optimizer or the task."""
    micro_batch_size(run.train)
    if run.train.label_smoothing and run.task.kind.problem_type == "regression":
        smoothing = f"train.label_smoothing={run.train.label_smoothing}"
        raise UsageError(f"{smoothing} has no effect with task={run.task.name}, a regression; remove it")
    optimizer.check_name(run.train)
    if run.train.optimizer != "adamw" or run.train.optimizer_args:
        optimizer.check(run.train, arguments(run, Path(run.output_dir)))


class StepLoss:
    """Sum of a micro-batch's losses divided by the number of items (examples or target tokens) in the whole step.

    A model's own loss is the mean of one micro-batch. Averaging these means over micro-batches or processes weights
    examples unequally, and `transformers` scales the result wrongly for classifiers, which ignore `num_items_in_batch`.
    """

    def __init__(self, kind: Kind, label_smoothing: float) -> None:
        self.kind, self.label_smoothing = kind, label_smoothing

    def __call__(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """Map logits [examples, outputs] or [examples, length, vocabulary] and labels to a scalar in nats.

        Regression uses the squared error; its items are the numbers in `labels`, [examples] or [examples, outputs].
        """
        return self.kind.loss(outputs.logits.float(), labels, self.label_smoothing) / num_items_in_batch


class EndedError(Exception):
    """Training ended before its first step: patience was exhausted at the checkpoint it resumes from."""


class BenchTrainer(Trainer):
    """A Trainer with the package's own batches and checkpoints, and with measurements around training steps."""

    model: PreTrainedModel

    def __init__(
        self,
        *,
        run: Run,
        sampler: EpochSampler,
        loop: Loop,
        no_graphs: str | None = None,
        padding: int = 1,
        **kwargs: Any,
    ) -> None:
        self.no_graphs, self.padding = no_graphs, padding
        self.run, self.sampler, self.recorder, self.loop = run, sampler, loop.recorder, loop
        self.head: Sequence[torch.nn.Parameter] = ()  # of the task
        self._ops_per_cell: int | None = None
        super().__init__(callbacks=[loop], **kwargs)
        # Without a GPU reading a loss is free, so each is checked before its update.
        micro_batches = run.train.log_steps * self.args.gradient_accumulation_steps
        self.losses = LossWindow(micro_batches if self.args.device.type == "cuda" else 1)
        loop.trainer = self

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with parameter groups for other weight decays or rates, including the method's."""
        instance: torch.optim.Optimizer | None = self.optimizer
        if instance is None:
            instance = super().create_optimizer(*args, **kwargs)
            decayed = set(self.get_decay_parameter_names(self.model))
            decaying = [p for name, p in self.model.named_parameters() if name in decayed]
            optimizer.arrange(instance, self.run.train, decaying, self.head, self.run.method.output_factors(self.model))
            self.run.method.optimizer_made(self.model, instance)
        return instance

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """The Trainer's names, plus those it excludes only because an enclosing module is named like a norm.

        These are weights of linear layers inside a norm, as in an adapter around it, and the parameters of a backbone
        such as `roberta_prelayernorm`.
        """
        rule, prefix = super().get_decay_parameter_names, model.base_model_prefix
        linear = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        inside = [f"{prefix}.{name}" for name in rule(model.base_model)]
        return list(dict.fromkeys([*rule(model), *inside, *(name for name in linear if "bias" not in name)]))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        state = Path(checkpoint or "") / "optimizer.pt"
        inner = cast(Any, self.optimizer).optimizer  # without accelerate's wrapper
        with optimizer.allowed(state, inner) if state.is_file() else contextlib.nullcontext():
            super()._load_optimizer_and_scheduler(checkpoint)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The Trainer's schedule; from the second step on the method may change its factor."""
        created = self.lr_scheduler is None
        scheduler: Any = super().create_scheduler(num_training_steps, optimizer)
        if created:
            scheduler.lr_lambdas = [self._method_schedule(schedule) for schedule in scheduler.lr_lambdas]
        return scheduler

    def _method_schedule(self, schedule: Callable[[int], float]) -> Callable[[int], float]:
        return lambda index: self.run.method.lr_factor(index, schedule, self.loop.per_epoch)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return self.sampler

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:  # the Trainer calls this in every process
            return
        folder = Path(str(output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        state = checkpoints.trained_state(self.model, self.run.method)
        checkpoints.save_tensors(state, folder / checkpoints.STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_state(self.model, self.run.method, Path(resume_from_checkpoint) / checkpoints.STATE)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, from a checkpoint if one is given, and record graphs and padding, which determine speed."""
        output = None
        with contextlib.suppress(EndedError):
            output = super().train(*args, **kwargs)
        graphs = self.__dict__.get("graphs")
        facts = graphs.summary() if graphs is not None else {"none": self.eager_because}
        self.recorder.record.env |= {"graphs": facts, "padding_multiple": self.padding}
        return output

    def ended_early(self, folder: Path) -> bool:
        """Whether training stopped at this checkpoint because patience was exhausted."""
        return self.loop.impatience(TrainerState.load_from_json(str(folder / "trainer_state.json"))) is not None

    def take_over(self, folder: Path) -> None:
        """Load weights and history of a checkpoint without training further."""
        self._load_from_checkpoint(str(folder))
        self.accelerator.prepare_model(self.model, evaluation_mode=True)  # precision and device, as in training
        self.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        self.loop.catch_up(self.state)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one micro-batch. Counts tokens and padding, and measures activations in the first one.

        Raises LossNotFiniteError in all processes if the loss of any is not finite; on a GPU up to
        `train.log_steps` steps later.
        """
        info: BatchInfo = inputs.pop("info")
        self.recorder.count_batch(len(info.rows), info.cells, info.tokens)
        if variants := self.run.method.summed_variants():
            loss = torch.zeros((), device=self.args.device)
            for variant in variants:
                with self.run.method.active(self.model, variant):
                    loss = loss + self._pass(model, dict(inputs), num_items_in_batch, len(info.rows), variant)
        else:
            loss = self._pass(model, inputs, num_items_in_batch, len(info.rows), self.loop.phase)
        with self.naming_examples():
            self.losses.add(loss, self.state.global_step, info.rows)
        return loss

    def _pass(self, model: Any, inputs: dict[str, Any], items: Any, examples: int, phase: Hashable) -> torch.Tensor:
        """Run forward and backward, accumulate gradients, and return the loss."""
        loss = self._replayed(model, inputs, items, examples, phase)
        if loss is None:
            with self._measured(), self.casts.in_place():
                loss = super().training_step(model, inputs, items)
        return loss

    @cached_property
    def casts(self) -> Casts:
        """Copies of weights in the training precision, created at the first step."""
        method = self.run.method
        low = self.run.train.precision == "bf16" and method.plain_linears
        moved, changing = method.moved(self.model) if low else (), self.eager_because is None
        casts = Casts(self.model, torch.bfloat16 if low else None, moved, changing)
        self.recorder.record.cost["memory"]["weights"] += casts.bytes
        return casts

    @property
    def eager_because(self) -> str | None:
        """Why steps do not run as graphs: known in advance, or found when capturing the first; None if they do."""
        return self.no_graphs or self.recorder.graphs_refused

    @cached_property
    def graphs(self) -> Graphs | None:
        """Captured steps; None if steps run eagerly."""
        if self.eager_because is not None:
            return None
        return Graphs(
            self.model,
            self._loss_of,
            BACKENDS[self.args.device.type](self.args.device),
            self.casts,
            single=self.args.gradient_accumulation_steps * max(1, len(self.run.method.summed_variants())) == 1,
            tolerance=CLOSE[self.run.train.precision],
        )

    def _loss_of(self, inputs: dict[str, Any], items: Any) -> torch.Tensor:
        with self.compute_loss_context_manager():
            return cast(torch.Tensor, self.compute_loss(self.model, inputs, num_items_in_batch=items))

    def _replayed(
        self, model: Any, inputs: dict[str, Any], items: Any, examples: int, phase: Hashable
    ) -> torch.Tensor | None:
        """Run a micro-batch as a graph and return the loss; None if it must run eagerly.

        A smaller last batch of an epoch runs eagerly, because its graph would hardly be reused. Raises RefusedError if
        steps cannot be captured and `train.graphs=on`.
        """
        if self.graphs is None or examples < self.args.per_device_train_batch_size:
            return None
        if not model.training:
            model.train()
        if self.optimizer is not None and hasattr(self.optimizer, "train"):  # schedule-free optimizers
            self.optimizer.train()
        loss = self.graphs.step(inputs, items, phase, self._measured())
        if loss is None:
            if self.run.train.graphs == "on":
                raise RefusedError(f"train.graphs=on: {self.graphs.refused}; use train.graphs=auto to train without")
            self.recorder.graphs_refused, self.graphs = self.graphs.refused, None
        return loss

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        """Measure the activations of a forward and backward pass, the first time only."""
        if self.recorder.activations is not None:
            yield
            return
        with memory.saved_bytes(self.model, self.casts.tensors) as saved:
            yield
        self.recorder.activations = saved.bytes

    @contextlib.contextmanager
    def naming_examples(self) -> Iterator[None]:
        """Convert NotFiniteError to LossNotFiniteError, and record the ids of all examples of the batch."""
        try:
            yield
        except NotFiniteError as error:
            all_ids = cast(Rows, self.train_dataset).ids
            ids = [all_ids[number] for number in error.rows]
            self.recorder.record.facts["loss_not_finite"] = {"step": error.step, "examples": ids}
            named = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
            value = "not finite" if math.isfinite(error.loss) else str(error.loss)
            raise LossNotFiniteError(
                f"the loss is {value} at step {error.step}; the examples of the batch: {named}"
            ) from None

    def check_casts(self) -> None:
        """Check that weights that were cast once have not changed. Raises RuntimeError if they have."""
        if "casts" in self.__dict__:
            self.casts.check()

    def check_losses(self) -> None:
        """Check all losses that have not been checked. Raises LossNotFiniteError."""
        with self.naming_examples():
            self.losses.check()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The Trainer's estimate, with the number of parameters counted once instead of at every step."""
        cells = int(inputs["input_ids"].numel())
        if self._ops_per_cell is None:
            self._ops_per_cell = super().floating_point_ops(inputs) // cells
        return self._ops_per_cell * cells


class Loop(TrainerCallback):
    """Calls the method's hooks, evaluates and checkpoints at epoch ends, shows progress, and stops on request."""

    def __init__(self, run: Run, recorder: Recorder, sampler: EpochSampler, evaluate: Callable[[], Scores]) -> None:
        self.run, self.recorder, self.sampler, self.evaluate = run, recorder, sampler, evaluate
        self.per_epoch = 1
        self.shown = 0.0
        self.loss: float | None = None  # the last one logged
        self.scores: Scores = {}  # of the last evaluation
        self.task: progress.Task
        self.stopping = False
        self.phase: Hashable = ()
        self.trainer: BenchTrainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Compute the number of steps per epoch, and complete an interrupted evaluation."""
        self.per_epoch = max(1, math.ceil(len(kw["train_dataloader"]) / args.gradient_accumulation_steps))
        self.recorder.training_begins(kw["model"])
        self.scores = next((entry["evaluation"] for entry in reversed(evaluations(state))), {})
        self.catch_up(state)
        self.task = progress.Task("", state.max_steps, done=state.global_step, details=self.details)
        if self.impatience(state) is not None:
            raise EndedError

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Set the epoch's order. Also called when a run resumes within an epoch."""
        self.sampler.epoch = state.global_step // self.per_epoch
        self.trainer.check_casts()

    def _step(self, state: TrainerState, kw: Mapping[str, Any]) -> Step:
        seed = seeds(self.run.seed).method
        return Step(kw["model"], kw["optimizer"], state.global_step, self.per_epoch, seed, state.max_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Call `before_step`, timed separately."""
        step = self._step(state, kw)
        wait = torch.cuda.synchronize if args.device.type == "cuda" and self.run.method.long_before(step) else None
        if wait:
            wait()  # finish earlier steps, whose time is not the method's
        with self.recorder.clock("method_s"):
            self.run.method.before_step(step)
            if wait:
                wait()
        if self.trainer.eager_because is None:
            self.phase = self.run.method.phase(step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any
    ) -> None:
        """Call `before_update`, after gradients are accumulated and clipped."""
        self.run.method.before_update(self._step(state, kw))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any
    ) -> None:
        """Call `after_update`; `global_step` is not yet increased."""
        skipped = self.trainer.accelerator.optimizer_step_was_skipped
        self.run.method.after_update(replace(self._step(state, kw), skipped=skipped))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Request a checkpoint if one is due, with a log line so that a resumed run reports the same losses."""
        if self.trainer.accelerator.optimizer_step_was_skipped:  # the Trainer then keeps the previous step's rate
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # which says that nothing was updated yet
                kw["lr_scheduler"].step()
        if state.global_step == 1 or self._epoch_ends(state):  # optimizer state exists from the first gradient on
            self.recorder.optimizer_ready(kw["optimizer"])
        due = state.global_step % self.run.train.checkpoint_steps == 0 and state.global_step < state.max_steps
        control.should_save |= due and state.global_step % self.per_epoch != 0
        control.should_log |= control.should_save or self._epoch_ends(state)
        # On several GPUs a collective waits for all queued work, so agree on stopping only when waiting anyway.
        if control.should_log or not distributed.on_devices():
            self.stopping = self.recorder.stop_asked = distributed.any_of(self.recorder.stop_asked)
        control.should_save |= self.stopping
        control.should_log |= self.stopping
        control.should_training_stop |= self.stopping
        if control.should_log or control.should_training_stop:  # check before writing anything
            self.trainer.check_losses()
            self.recorder.sum_counts()
        self.task.advance()

    def details(self) -> list[str]:
        """Loss, metric, speed and memory for the line of progress, as far as they are known."""
        from tqdm import tqdm

        metric, split = chosen_by(self.run.task), self.run.task.select_split
        score, speed = self.scores.get(split, {}).get(metric), self.recorder.examples_per_s()
        return [
            "" if self.loss is None else f"loss {self.loss:.4f}",
            "" if score is None else f"{metric} {score:.2f}",
            "" if speed is None else f"{speed:.3g} ex/s",
            tqdm.format_sizeof(self.recorder.peak_bytes(), "B", 1000),
        ]

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Write the training curve and, every few seconds, a line of progress."""
        logs = kw.get("logs") or {}
        if "loss" not in logs:
            return
        self.recorder.event(step=state.global_step, epoch=state.epoch, loss=logs["loss"], lr=logs["learning_rate"])
        self.loss = logs["loss"]
        if not progress.on_terminal() and time.monotonic() - self.shown > 5:
            self.shown = time.monotonic()
            self.recorder.show(f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}")

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Evaluate and checkpoint. A stopping run already has its checkpoint and evaluates after it resumes."""
        if self.stopping:
            return
        self._score(state)
        control.should_save = True
        if self.impatience(state) is not None:
            control.should_training_stop = True

    def impatience(self, state: TrainerState) -> str | None:
        """Why training stops early at this evaluation; None if it continues. The schedule is not shortened."""
        patience, history, task = self.run.train.patience, evaluations(state), self.run.task
        if (
            patience is None
            or not history
            or history[-1]["step"] != state.global_step
            or state.global_step == state.max_steps
        ):
            return None
        if (waited := evaluations_since_best(task, history)) < patience:
            return None
        return f"{chosen_by(task)} on {task.select_split} did not improve in the last {waited} evaluations"

    def _epoch_ends(self, state: TrainerState) -> bool:
        return state.global_step % self.per_epoch == 0 or state.global_step == state.max_steps

    def catch_up(self, state: TrainerState) -> None:
        """Evaluate if the run was stopped at an epoch end before its evaluation."""
        scored = {entry["step"] for entry in evaluations(state)}
        if state.global_step and self._epoch_ends(state) and state.global_step not in scored:
            self.recorder.rewind_events(state.global_step, scored=False)
            self._score(state)

    def _score(self, state: TrainerState) -> None:
        """Evaluate, and store the scores in the state that checkpoints save."""
        with self.recorder.clock("eval_s"):
            self.scores = scores = self.evaluate()
        epoch = round(float(state.epoch or 0), 4)
        state.log_history.append(cast(Any, {"evaluation": scores, "epoch": epoch, "step": state.global_step}))
        self.recorder.event(step=state.global_step, epoch=epoch, scores=scores)
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), math.nan)
        split = self.run.task.select_split
        shown = "  ".join(f"{name} {value:.2f}" for name, value in scores[split].items()) or "no score"
        self.recorder.show(f"epoch {epoch:g}/{state.num_train_epochs:g}  loss {loss:.4f}  {shown} ({split})")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Complete the checkpoint; keep it, the previous one and, for generation, the best epoch's. Delete others."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        distributed.wait()  # until every process has written the state of its random generators
        if not state.is_world_process_zero:
            return
        recorder = self.recorder
        recorder.check()
        mark = {"key": recorder.record.key, "clocks": recorder.clocks(), "measured": recorder.measured()}
        checkpoints.mark_complete(folder, mark | {"tally": tally(kw["model"])})
        if not self.run.train.keep_checkpoints:
            best = best_epoch(self.run.task, evaluations(state)) if self.run.task.kind.decodes else None
            best_name = f"checkpoint-{best['step']}" if best else ""
            checkpoints.remove(p for p in checkpoints.checkpoints(folder.parent)[2:] if p.name != best_name)


@without_accelerate_variables()
def make_trainer(
    run: Run,
    model: PreTrainedModel,
    rows: Rows,
    pad_id: int,
    recorder: Recorder,
    evaluate: Callable[[], Scores],
) -> BenchTrainer:
    """Create a run's trainer for a model with the method attached and the encoded training split.

    `evaluate` is called at epoch ends and returns scores by split. Raises UsageError if `train.graphs=on` cannot work.
    """
    lengths = [len(row.input_ids) for row in rows.encoded]
    sampler = EpochSampler(lengths, run.train.batch_size, seeds(run.seed).data, run.train.bucket)
    args, phases = arguments(run, recorder.folder), run.method.phases
    limit = max_length(model, run.train.max_length, run.method.extra_tokens)
    # Always pad on a GPU, so that a step has the same shapes with and without graphs.
    padding = padding_multiple(lengths, phases, limit) if args.device.type == "cuda" else 1
    shapes = len({padded_length(length, padding, limit) for length in lengths}) * phases
    train, processes = run.train, distributed.world_size()
    no_graphs = reason_against(train.graphs, args.device, train.precision, processes, shapes)
    if train.graphs == "on" and no_graphs is not None:
        raise UsageError(f"train.graphs=on is not possible: {no_graphs}; use train.graphs=auto")
    trainer = BenchTrainer(
        run=run,
        sampler=sampler,
        loop=Loop(run, recorder, sampler, evaluate),
        no_graphs=no_graphs,
        padding=padding,
        model=model,
        args=args,
        train_dataset=rows,
        data_collator=partial(collate_with_info, pad_id=pad_id, multiple=padding, limit=limit),
        optimizer_cls_and_kwargs=optimizer.recipe(run.train, args, model),
        compute_loss_func=StepLoss(run.task.kind, run.train.label_smoothing),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def evaluations(state: TrainerState) -> list[dict[str, Any]]:
    """Evaluations at epoch ends: dicts of `epoch`, `step` and `evaluation` ({split: {metric: value}})."""
    return [entry for entry in state.log_history if "evaluation" in entry]
