"""The trained model of a finished run, from what the run left on disk."""

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
    """The model of a run's folder as it was at the end, on the run's device, and its tokenizer.

    It is read from `save=adapter`, or from the last checkpoint of `train.keep_checkpoints=true`.

    Raises:
        UsageError: for missing or damaged tensors, or those of another backbone or method.
    """
    adapter = (folder / "adapter" / "adapter.json").is_file()
    whole = (path for path in checkpoints.checkpoints(folder) if checkpoints.read_mark(path) is not None)
    checkpoint = None if adapter else next(whole, None)
    if not adapter and checkpoint is None:
        raise UsageError(f"{folder} holds no trained weights; run it with save=adapter (force=true if it is done)")
    if run.train.threads:
        torch.set_num_threads(run.train.threads)
    model, tokenizer = load(run.model, run.task, seeds(run.seed).init)
    moved = dataclasses.replace(run, output_dir=str(folder.parent))  # where ids of runs are looked up
    around = predict.attaching(model, run.method)
    backbone_hash, _ = attach_method(moved, model, seeds(run.seed).method, around)
    if checkpoint is None:
        checkpoints.load_adapter(model, run.method, folder / "adapter", backbone_hash)
    else:
        checkpoints.load_state(model, run.method, checkpoint / checkpoints.STATE)
    if run.train.device == "cuda" or (run.train.device == "auto" and torch.cuda.is_available()):
        model.to("cuda")  # type: ignore[arg-type]
    return model, tokenizer
