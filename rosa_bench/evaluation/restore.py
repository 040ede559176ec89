"""Restores the trained model of a finished run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rosa_bench.config import Run
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict
from rosa_bench.models.load import load
from rosa_bench.records import checkpoints
from rosa_bench.records.start import attach_method
from rosa_bench.system.seeds import seeds

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def trained_model(run: Run, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The final model of a run's folder, on the run's device, and its tokenizer.

    Loads the adapter of `save=adapter`, or the last checkpoint of `train.keep_checkpoints=true`.

    Raises:
        UsageError: if tensors are missing, damaged, or of another backbone or method.
    """
    adapter = (folder / "adapter" / "adapter.json").is_file()
    complete = (path for path in checkpoints.checkpoints(folder) if checkpoints.read_mark(path) is not None)
    checkpoint = None if adapter else next(complete, None)
    if not adapter and checkpoint is None:
        raise UsageError(f"{folder} has no trained weights; run it with save=adapter (and force=true if it is done)")
    if run.train.threads:
        torch.set_num_threads(run.train.threads)
    model, tokenizer = load(run.model, run.task, seeds(run.seed).init)
    moved = dataclasses.replace(run, output_dir=str(folder.parent))  # where `start` looks up ids of runs
    around = predict.attaching(model, run.method)
    backbone_hash, _ = attach_method(moved, model, seeds(run.seed).method, around)
    if checkpoint is None:
        checkpoints.load_adapter(model, run.method, folder / "adapter", backbone_hash)
    else:
        checkpoints.load_state(model, run.method, checkpoint / checkpoints.STATE)
    if run.train.device == "cuda" or (run.train.device == "auto" and torch.cuda.is_available()):
        model.to("cuda")  # type: ignore[arg-type]
    return model, tokenizer
