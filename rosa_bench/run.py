"""One experiment, whole: configuration, data, model, method, trainer, scores, record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from rosa_bench import checkpoint, methods
from rosa_bench.config import Run, repeatable_config, resolve
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import Split, fingerprint, load_split
from rosa_bench.errors import UsageError
from rosa_bench.files import unwritable, write_bytes
from rosa_bench.key import config_key, finished, run_id
from rosa_bench.models.load import load, max_length
from rosa_bench.record import Record
from rosa_bench.recorder import Recorder
from rosa_bench.scoring import Scorer
from rosa_bench.seeds import seeds
from rosa_bench.tracker import mirrored
from rosa_bench.trainer import evaluations, make_trainer


def run(cfg: Run | DictConfig | Mapping[str, Any]) -> Record:
    """Run one experiment, or return the record of the same experiment if it is done already.

    Raises:
        UsageError: for a wrong configuration or missing input, before anything is trained.
        KeyboardInterrupt: when it was asked to stop; a checkpoint is kept.
    """
    run = cfg if isinstance(cfg, Run) else resolve(cfg)
    if run.train.threads:
        torch.set_num_threads(run.train.threads)
    key = config_key(run)
    identity = run_id(run, key)
    if (record := finished(run, Path(run.output_dir) / identity, key)) is not None:
        return record
    if (blocked := unwritable(Path(run.output_dir))) is not None:
        raise UsageError(f"output_dir={run.output_dir} cannot be written: {blocked}")
    splits = {split: load_split(run.task, run.data, split, _limit(run, split)) for split in run.task.splits}
    model, tokenizer = load(run.model, run.task, seeds(run.seed).init)
    length = max_length(model.config, run.train.max_length)
    with Recorder(run, identity, key) as recorder, mirrored(run, recorder.folder):
        record = recorder.record
        record.data = _provenance(run, splits)
        record.facts["backbone_hash"] = checkpoint.tensor_hash(dict(model.base_model.named_parameters()))
        with recorder.clock("method_s"):
            run.method.attach(model, seeds(run.seed).method)
        record.facts["init_hash"] = checkpoint.tensor_hash(checkpoint.trained_state(model, run.method))
        write_bytes(recorder.folder / "config.yaml", repeatable_config(run).encode())
        scorer = Scorer(run, model, tokenizer, splits, length)
        rows = encode_split(run.task, tokenizer, splits["train"], length)
        record.facts["cut_examples"] = sum(row.cut for row in rows)
        trainer = make_trainer(run, model, rows, tokenizer.pad_token_id, recorder, scorer.epoch_scores)
        trainer.train(resume_from_checkpoint=_resume(run, recorder))
        recorder.training_ends()
        if recorder.stop_asked:
            raise KeyboardInterrupt
        with recorder.clock("eval_s"):
            scorer.finish(recorder, evaluations(trainer.state))
        record.facts |= run.method.facts(model)
        _save_model(run, model, tokenizer, recorder)
    if not run.train.keep_checkpoints:
        checkpoint.remove(checkpoint.checkpoints(recorder.folder))
    return record


def _limit(run: Run, split: str) -> int | None:
    return run.train.limit_train if split == "train" else run.train.limit_eval


def _provenance(run: Run, splits: Mapping[str, Split]) -> dict[str, Any]:
    source = {name: value for name, value in fingerprint(run.task, run.data).items() if name not in splits}
    return source | {
        "sha256": {name: split.sha256 for name, split in splits.items()},
        "rows": {name: split.rows for name, split in splits.items()},
    }


def _resume(run: Run, recorder: Recorder) -> str | None:
    """The newest whole checkpoint of this very run, if it may be used; events after it are dropped."""
    found = checkpoint.checkpoints(recorder.folder)
    if run.resume == "never" or run.force:
        checkpoint.remove(found)
        found = []
    for folder in found:
        mark = checkpoint.read_mark(folder)
        if mark is not None and mark.get("key") == recorder.record.key:
            step = int(folder.name.rpartition("-")[2])
            recorder.show(f"goes on from step {step}")
            recorder.continue_from(mark["clocks"])
            recorder.rewind_events(step)
            return str(folder)
        recorder.show(f"{folder.name} is damaged or not of this run; it is not used")
        checkpoint.remove([folder])
    if run.resume == "must":
        raise UsageError(f"resume=must, but {recorder.folder} holds no whole checkpoint of this run")
    recorder.rewind_events(-1)
    return None


def _save_model(run: Run, model: Any, tokenizer: Any, recorder: Recorder) -> None:
    if run.save == "adapter":
        checkpoint.save_adapter(model, run.method, recorder.folder / "adapter", recorder.record.facts["backbone_hash"])
    if run.save == "merged":
        if not run.method.mergeable:
            raise UsageError(f"save=merged: {recorder.record.method} cannot be merged; use save=adapter")
        methods.merge(model).save_pretrained(recorder.folder / "merged")
        tokenizer.save_pretrained(recorder.folder / "merged")
