"""Trained weights on disk: only tensors that training changes, with checksums, loaded strictly.

A checkpoint is complete if `complete.json` exists and every file in it has the recorded hash. A run that was killed
while writing a checkpoint resumes from the previous one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rosa_bench.config import node_dict
from rosa_bench.core.method import Method
from rosa_bench.errors import UsageError
from rosa_bench.records.start import read_adapter
from rosa_bench.system.files import file_sha256, replacing, unsealed, write_json, write_sealed_json
from rosa_bench.system.strict_json import short

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STATE, MARK = "model.safetensors", "complete.json"
MARKED = {"files", "key", "clocks", "measured", "tally"}  # fields of complete.json


def trained_state(model: PreTrainedModel, method: Method) -> dict[str, torch.Tensor]:
    """Every tensor that training changes, by name: parameters with gradients, those in `method.moved`, and buffers.

    A tensor shared under several names (tied embeddings) is listed once.
    """
    moved = method.moved(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad or name in moved}
    persistent = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return {name: tensor.detach() for name, tensor in (parameters | buffers).items()}


def save_tensors(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors atomically as a safetensors file."""
    with replacing(path) as temporary:
        own = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        save_file(own, temporary, metadata={"format": "pt"})


def load_state(model: PreTrainedModel, method: Method, path: Path) -> None:
    """Copy trained tensors from a file into the model, strictly.

    Raises:
        UsageError: if the file is damaged, or its names or shapes differ from those of this model and method.
    """
    try:
        loaded = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error})") from error
    state = trained_state(model, method)
    missing, unexpected = sorted(state.keys() - loaded.keys()), sorted(loaded.keys() - state.keys())
    reshaped = [name for name in state.keys() & loaded.keys() if state[name].shape != loaded[name].shape]
    if missing or unexpected or reshaped:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": sorted(reshaped)}
        faults = "; ".join(f"{len(names)} {fault} ({names[0]} ...)" for fault, names in parts.items() if names)
        raise UsageError(f"{path} does not fit this model and method: {faults}")
    copy_state(model, method, loaded)


def copy_state(model: PreTrainedModel, method: Method, values: Mapping[str, torch.Tensor]) -> None:
    """Copy `values` into every trained tensor of the model."""
    with torch.no_grad():
        for name, tensor in trained_state(model, method).items():
            tensor.copy_(values[name])


def mark_complete(folder: Path, more: Mapping[str, Any]) -> None:
    """Mark a checkpoint as complete: write `complete.json` with the hashes of its files, and `more`."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != MARK}
    write_sealed_json(folder / MARK, {"files": files, **more})


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The content of `complete.json`; None if it or a file in it is missing or damaged."""
    try:
        mark = unsealed((folder / MARK).read_bytes())
        if not mark.keys() <= MARKED:  # also detects damage that renamed the checksum's field
            return None
        intact = all(file_sha256(folder / name) == sha for name, sha in mark["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return mark if intact else None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, newest step first."""
    folders = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(folders, key=lambda path: -int(path.name.rpartition("-")[2]))


def remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def save_adapters(model: PreTrainedModel, method: Method, folder: Path, backbone_hash: str) -> None:
    """Write trained tensors below `folder`, with the method's configuration and the hash of its backbone."""
    for name, owner, state in method.exports(trained_state(model, method)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        save_tensors(state, tensors := folder / name / "adapter.safetensors")
        description = {"method": node_dict(owner), "backbone_hash": backbone_hash, "sha256": file_sha256(tensors)}
        write_json(folder / name / "adapter.json", description)


def load_adapter(model: PreTrainedModel, method: Method, folder: Path, backbone_hash: str) -> None:
    """Load a folder written by `save_adapters` into a model to which the same method was attached.

    Raises:
        UsageError: if the adapter belongs to another method or backbone, or is damaged.
    """
    own_method, own_backbone_hash = read_adapter(folder)
    if node_dict(own_method) != node_dict(method):
        raise UsageError(f"{folder} is an adapter of another method: {short(node_dict(own_method))}")
    if own_backbone_hash != backbone_hash:
        raise UsageError(f"{folder} is an adapter of another backbone")
    load_state(model, method, folder / "adapter.safetensors")
