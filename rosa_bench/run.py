"""One experiment from start to end: configuration, data, model, method, training, scores, record."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig

from rosa_bench.config import Run, repeatable_config, resolve
from rosa_bench.core.method import tally
from rosa_bench.core.task import Encoded
from rosa_bench.data.batches import Rows, collate
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import Split, fingerprint, load_split
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import artefacts, diagnostics, export, inference, predict
from rosa_bench.evaluation.scorer import Scorer
from rosa_bench.models import hashing, onednn
from rosa_bench.models.identity import pinned
from rosa_bench.models.load import load, loading_facts, preserved_verbosity
from rosa_bench.models.roles import task_head
from rosa_bench.models.traits import max_length
from rosa_bench.records import checkpoints
from rosa_bench.records.record import Record
from rosa_bench.records.recorder import Recorder
from rosa_bench.records.run_key import clear_finished, config_key, finished, run_id
from rosa_bench.records.start import start_loader
from rosa_bench.system import distributed, hub, progress
from rosa_bench.system.files import unwritable, write_bytes
from rosa_bench.system.locks import claimed
from rosa_bench.system.seeds import only_thread, preserved_random_state, seeds
from rosa_bench.system.threads import on_threads
from rosa_bench.tracking.tracker import mirrored
from rosa_bench.training.trainer import check_training, evaluations, make_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_IN_PROGRESS = threading.Lock()  # held while a run is in progress: seeds and signal handlers are process-wide
FACT_ROWS = 8  # training rows passed to `Method.facts`


def run(cfg: Run | DictConfig | Mapping[str, Any]) -> Record:
    """Run one experiment, or return its record if it is already done.

    Preserves the random states of Python, NumPy and torch, and the verbosity of `transformers`.

    Raises:
        UsageError: before training, for a wrong configuration or missing input, or if another run is in progress in
            this process.
        KeyboardInterrupt: if the run is interrupted; it keeps a checkpoint.
    """
    if not _IN_PROGRESS.acquire(blocking=False):
        raise UsageError(
            "another run is in progress in this process; wait for it, or start each run in its own process"
        )
    try:
        with only_thread(), preserved_random_state(), preserved_verbosity():
            run = cfg if isinstance(cfg, Run) else resolve(cfg)
            with progress.showing(run.progress), hub.offline_unless(run.needs_hub):
                return _run(run)
    finally:
        _IN_PROGRESS.release()


def _run(run: Run) -> Record:
    run = replace(run, model=pinned(run.model))
    key = config_key(run)
    identity = run_id(run, key)
    folder = Path(run.output_dir) / identity
    record = finished(run, folder, key)
    if record is not None and not artefacts.lacking(run, folder, record):
        return record
    refuse(run)
    if record is not None:
        artefacts.add(run, folder, record)
        return record
    splits = {split: load_split(run.task, run.data, split, _limit(run, split)) for split in run.task.splits}
    model, tokenizer = load(run.model, run.task, seeds(run.seed).init)
    claim = claimed(folder) if distributed.is_first() else nullcontext()
    with on_threads(run.train.threads), claim as lock:
        if distributed.world_size() == 1 and (record := finished(run, folder, key)) is not None:
            return record  # another process finished it first
        if run.force and distributed.is_first() and finished(replace(run, force=False), folder, key) is not None:
            checkpoints.remove(checkpoints.checkpoints(folder))  # kept by the run that is repeated
        with Recorder(run, identity, key, lock) as recorder, mirrored(run, recorder.folder):
            experiment = Experiment(run, splits, model, tokenizer, recorder)
            experiment.attach()
            with experiment.matmul(model), predict.tf32(run.train.precision == "tf32"):
                history = experiment.train()
                if distributed.is_first():
                    experiment.finish(history)
            if distributed.is_first():
                experiment.measure_inference()
        if distributed.is_first():
            clear_finished(folder, run.train.keep_checkpoints)
        return recorder.record


def refuse(run: Run) -> None:
    """Raise UsageError for incompatible options or an output folder that cannot be written."""
    if (blocked := unwritable(Path(run.output_dir))) is not None:
        raise UsageError(f"output_dir={run.output_dir} cannot be written: {blocked}")
    if run.force and run.resume == "must":
        raise UsageError("force=true starts again, but resume=must needs a checkpoint; remove one of them")
    run.method.check(run.task)
    check_training(run)
    refuse_options(run)


def refuse_options(run: Run) -> None:
    """Raise UsageError for options that this machine or the method does not support."""
    if run.save in ("merged", "peft"):
        export.refuse(run, run.save, f"save={run.save}")
    on_gpu = run.train.device != "cpu" and torch.cuda.is_available()
    if run.train.graphs == "on" and not on_gpu:
        raise UsageError("train.graphs=on needs a GPU; use train.graphs=auto")
    for key in ("precision", "eval_precision"):
        if (value := getattr(run.train, key)) in ("fp16", "tf32") and not on_gpu:
            raise UsageError(f"train.{key}={value} needs a GPU; use bf16 or fp32")
    if run.train.gradient_checkpointing and not run.method.checkpointable:
        raise UsageError(f"train.gradient_checkpointing is not supported with method={run.method.name}")


def refuse_rates(run: Run, model: PreTrainedModel, head: Sequence[torch.nn.Parameter]) -> None:
    """Raise UsageError for a learning rate of parameters that the attached method does not train."""
    if run.train.head_lr is not None and not head:
        combination = f"task={run.task.name} and method={run.method.name}"
        raise UsageError(f"train.head_lr={run.train.head_lr}: {combination} train no task head")
    if run.train.lora_plus is not None and not run.method.output_factors(model):
        reason = f"needs trained factors A and B, but method={run.method.name} has none"
        raise UsageError(f"train.lora_plus={run.train.lora_plus} {reason}")


def _limit(run: Run, split: str) -> int | None:
    return run.train.limit_train if split == "train" else run.train.limit_eval


class Experiment:
    """The steps of a run in progress. Each writes its facts to the record."""

    def __init__(
        self,
        run: Run,
        splits: Mapping[str, Split],
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recorder: Recorder,
    ) -> None:
        self.run, self.splits, self.model, self.tokenizer, self.recorder = run, splits, model, tokenizer, recorder
        self.length = max_length(model, run.train.max_length, run.method.extra_tokens)
        self.scorer = Scorer(run, model, tokenizer, splits, self.length)
        self.record = recorder.record
        self.record.data = self._provenance()
        if loading := loading_facts(model):
            self.record.facts["loading"] = loading
        self.rows: Sequence[Encoded] = encode_split(run.task, tokenizer, splits["train"], self.length)
        self.scorer.encode_all()
        self.record.facts["cut_examples"] = sum(row.cut for row in self.rows)
        if not run.task.num_labels:
            self.record.facts["cut_targets"] = lost = sum(row.cut_target for row in self.rows)
            if lost:
                recorder.show(f"{lost} of {len(self.rows)} texts are longer than train.max_length and are truncated")
        if distributed.is_first():
            write_bytes(recorder.folder / "config.yaml", repeatable_config(run).encode())

    def _provenance(self) -> dict[str, Any]:
        source = fingerprint(self.run.task, self.run.data)
        source = {name: value for name, value in source.items() if name not in self.splits}
        optional = {
            "released": {name: split.released for name, split in self.splits.items() if split.released is not None},
            "upstream": {name: split.upstream for name, split in self.splits.items() if split.upstream is not None},
        }
        return source | {
            "sha256": {name: split.sha256 for name, split in self.splits.items()},
            "rows": {name: split.rows for name, split in self.splits.items()},
            **{name: values for name, values in optional.items() if values},
        }

    def attach(self) -> None:
        """Attach the method and load the tensors that the run starts from.

        A method whose initial logits differ from the backbone's is compared with it.
        """
        method, facts = self.run.method, self.record.facts
        loader = start_loader(self.run, self.model)
        if loader is not None:
            loader.before_attach()
        facts["backbone_hash"] = hashing.backbone_hash(self.model)
        before = None if method.exact_at_start else self._start()
        head = task_head(self.model)
        with self.recorder.clock("method_s"), predict.attaching(self.model, method):
            method.attach(self.model, seeds(self.run.seed).method)
        self.head = [p for p in head if p.requires_grad]
        refuse_rates(self.run, self.model, self.head)
        if before is not None:
            facts |= diagnostics.start_facts(before, self._start())
        if loader is not None:
            loader.after_attach(facts["backbone_hash"])
            facts["start"] = loader.facts()
            self.recorder.show(loader.describe())
        facts["init_hash"] = hashing.tensor_hash(checkpoints.trained_state(self.model, method))

    def _start(self) -> diagnostics.Start:
        split = self.run.task.select_split
        examples, rows = self.splits[split].examples, self.scorer.encoded(split)
        return diagnostics.start_outputs(self.model, self.run.task, examples, rows, self._pad)

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def matmul(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """A context in which a model multiplies fp32 matrices with the faster library; the record names it."""
        on_cpu = self.run.train.device == "cpu" or not torch.accelerator.is_available()
        use_onednn = self.run.train.matmul == "auto" and on_cpu and onednn.profits()
        self.record.env["matmul"] = "oneDNN" if use_onednn else "torch"
        return onednn.training(model) if use_onednn else nullcontext()

    def train(self) -> list[dict[str, Any]]:
        """Train to the end, from the last checkpoint if there is one. Returns the evaluations at epoch ends."""
        rows = Rows(self.rows, [example.id for example in self.splits["train"].examples])
        trainer = make_trainer(self.run, self.model, rows, self._pad, self.recorder, self.scorer.epoch_scores)
        trainer.head = self.head
        self.recorder.show(self._sizes())
        folder, step = self._resume()
        if folder is not None and (step >= (self.run.train.max_steps or step + 1) or trainer.ended_early(folder)):
            trainer.take_over(folder)  # all steps are done, but the Trainer would run one more
        else:
            trainer.train(resume_from_checkpoint=None if folder is None else str(folder))
            self.recorder.training_ends()
        if self.recorder.stop_asked:
            raise KeyboardInterrupt
        self.steps = trainer.state.global_step
        if (reason := trainer.loop.impatience(trainer.state)) is not None:
            epoch = evaluations(trainer.state)[-1]["epoch"]
            self.record.facts["stopped_early"] = {"epoch": epoch, "reason": reason}
            self.recorder.show(f"stopped after epoch {epoch:g}: {reason}")
        return evaluations(trainer.state)

    def _sizes(self) -> str:
        """The model's parameters and the examples of every split that is used, in words."""
        parameters = list(self.model.parameters())
        total, trained = (sum(p.numel() for p in parameters if p.requires_grad or both) for both in (True, False))
        counts = ", ".join(f"{split} {len(self.splits[split].examples):,}" for split in self.splits)
        return f"{total:,} parameters, {trained:,} trained ({100 * trained / total:.3g} %); examples: {counts}"

    def _resume(self) -> tuple[Path | None, int]:
        """The newest complete checkpoint of this run and its step, if it may be used. Drops later events."""
        newest = None
        if distributed.is_first():
            newest = last_complete(self.run, self.recorder)
            if newest[1] is None:
                artefacts.remove(self.recorder.folder)
        mark, folder = distributed.from_first(newest)
        step = -1 if folder is None else int(folder.name.rpartition("-")[2])
        self.recorder.rewind_events(step)
        if folder is not None:
            self.recorder.show(f"resuming from step {step}")
            self.recorder.continue_from(mark["clocks"], mark["measured"])
            tally(self.model).update(mark["tally"])
        return folder, step

    def finish(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Score, measure and save the trained model."""
        run, facts = self.run, self.record.facts
        with self.recorder.clock("eval_s"):
            self.scorer.finish(self.recorder, history)
        self.recorder.peak_ends()
        batch = predict.to_device(collate(self.rows[:FACT_ROWS], self._pad), self.model)
        facts |= run.method.facts(self.model, batch)
        if run.save != "none":
            facts["saved"] = {"as": run.save} | self._epochs(history)
        self.trained = trained = export.Trained(run, self.model, self.tokenizer, self.record)
        if run.save == "peft" and not self._save_peft(trained):
            facts["saved"]["as"] = "adapter"
        if run.save != "none" and facts["saved"]["as"] == "adapter":
            checkpoints.save_adapters(self.model, run.method, self.recorder.folder, facts["backbone_hash"])
        if run.method.mergeable:
            self._merge(trained)

    def _epochs(self, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The epoch of the trained weights, and the best one if it differs."""
        epoch = history[-1]["epoch"] if history else None
        best = self.record.primary.get("best_epoch")
        epochs = {} if epoch is None else {"epoch": epoch}
        return epochs | ({"best_epoch": best} if best not in (None, epoch) else {})

    def _save_peft(self, trained: export.Trained) -> bool:
        """Save every variant for `peft`. Returns False, with a message, if `peft` would compute something else."""
        try:
            difference = export.save_peft(trained, trained.folders("peft", self.recorder.folder))
        except export.ExportError as error:
            self.recorder.show(f"{error}; saving the folder adapter instead")
            self.record.facts["saved"]["peft_error"] = str(error)
            return False
        self.record.facts["saved"]["peft_max_abs_diff"] = difference
        return True

    def _merge(self, trained: export.Trained) -> None:
        """Merge the main variant, compare it with the unmerged one, and measure the update of the weights."""
        run, facts, split = self.run, self.record.facts, self.run.task.select_split
        examples, rows = self.splits[split].examples, self.scorer.encoded(split)
        main = run.method.variants()[-1]
        with run.method.active(self.model, main):
            facts |= diagnostics.merge_checked(self.model, run.task, examples, rows, self._pad)
        if not facts["merge_within_bound"]:
            difference = f"logits differ by {facts['merge_max_abs_diff']:.2g}"
            self.recorder.show(f"the merged model does not match the trained one: {difference}")
        self.backbone = backbone = trained.backbone()
        if (loader := start_loader(run, backbone)) is not None:
            loader.before_attach()
        facts |= diagnostics.update_facts(backbone, self.model)
        if run.save == "merged":
            export.save_merged(trained, self.recorder.folder / "merged", main, backbone)

    def measure_inference(self) -> None:
        """Record latency and throughput of the backbone and of the finished model, merged if possible.

        Short runs and runs of a learning-rate search are not measured.
        """
        if self.steps < inference.FEWEST_STEPS or self.run.task.tune_share is not None:
            return
        seconds = inference.budget(self.recorder.clocks()["train_s"])
        with self.recorder.optional("cost.inference"), preserved_random_state():
            self.record.cost["inference"] = self._inference(seconds)

    def _inference(self, seconds: float) -> dict[str, Any]:
        run, model, split = self.run, self.model, self.run.task.select_split
        merged, train = run.method.mergeable, run.train
        backbone = self.backbone if merged else self.trained.backbone()
        torch.nn.Module.to(backbone, model.device)
        if hasattr(backbone.config, "use_cache"):
            model.config.use_cache = backbone.config.use_cache  # gradient checkpointing switches it off
        task = inference.Inference(
            run.task,
            self.tokenizer,
            self.splits[split].examples,
            self.scorer.rows(split),
            train.eval_batch_size,
            predict.tokens_held(model, run.method.extra_tokens),
            train.eval_precision or ("bf16" if run.model.dtype == "bf16" else train.precision),
        )
        active = nullcontext() if merged else run.method.active(model, run.method.variants()[-1])
        with self.matmul(model), self.matmul(backbone), active:
            return {"merged": merged} | task.compare(model, backbone, seconds)


def last_complete(run: Run, recorder: Recorder) -> tuple[dict[str, Any], Path | None]:
    """The mark and the folder of the newest complete checkpoint. Reports and deletes damaged ones."""
    folders = checkpoints.checkpoints(recorder.folder)
    if run.resume == "never":
        checkpoints.remove(folders)
        folders = []
    for folder in folders:
        mark = checkpoints.read_mark(folder)
        if mark is not None and mark.get("key") == recorder.record.key:
            return mark, folder
        recorder.show(f"{folder.name} is damaged or belongs to another run; ignoring it")
        checkpoints.remove([folder])
    if run.resume == "must":
        raise UsageError(f"resume=must: {recorder.folder} has no complete checkpoint of this run")
    return {}, None
