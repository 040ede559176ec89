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


def trained_weights(folder: Path) -> Path | None:
    """The adapter in a run's folder, or its newest complete checkpoint; None if the run kept neither."""
    adapter = folder / "adapter"
    if (adapter / "adapter.json").is_file():
        return adapter
    return next((path for path in checkpoints.checkpoints(folder) if checkpoints.read_mark(path) is not None), None)


def restored(run: Run, folder: Path, weights: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """The trained model of a run's folder on the CPU, its tokenizer and the hash of its backbone.

    Raises:
        UsageError: if tensors are missing or damaged, or belong to another backbone or method.
    """
    model, tokenizer = load(run.model, run.task, seeds(run.seed).init)
    moved = dataclasses.replace(run, output_dir=str(folder.absolute().parent))  # where `start` looks up ids of runs
    around = predict.attaching(model, run.method)
    backbone_hash, _ = attach_method(moved, model, seeds(run.seed).method, around)
    if weights.name == "adapter":
        checkpoints.load_adapter(model, run.method, weights, backbone_hash)
    else:
        checkpoints.load_state(model, run.method, weights / checkpoints.STATE)
    return model, tokenizer, backbone_hash


def trained_model(run: Run, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The trained model of a run's folder, on the run's device, and its tokenizer.

    Raises:
        UsageError: if the run kept no weights, or in the cases of `restored`.
    """
    weights = trained_weights(folder)
    if weights is None:
        raise UsageError(f"{folder} has no trained weights; run it with save=adapter (and force=true if it is done)")
    if run.train.threads:
        torch.set_num_threads(run.train.threads)
    model, tokenizer, _ = restored(run, folder, weights)
    if run.train.device == "cuda" or (run.train.device == "auto" and torch.cuda.is_available()):
        model.to("cuda")  # type: ignore[arg-type]
    return model, tokenizer
