"""`start=RUN`: start a run from the trained tensors of another. Finding them does not import torch.

RUN is a run's folder or its id below `output_dir`, a folder written by `save=adapter` or `save=merged`, or a checkpoint
kept by `train.keep_checkpoints=true`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosa_bench.config import Run, node_dict, target_class
from rosa_bench.errors import UsageError, nearest
from rosa_bench.records.record import Record, read_record
from rosa_bench.system.files import file_sha256
from rosa_bench.system.strict_json import loads, short

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.method import Method


@dataclass(frozen=True)
class Start:
    """Files of trained tensors, and facts about the run that trained them."""

    name: str  # as given by the user
    folder: Path
    files: tuple[Path, ...]
    method: Method | None  # None: weights of a whole model
    backbone_hash: str | None  # of the backbone with which an adapter was trained
    record: Record | None  # of the run, if the folder belongs to one

    @property
    def sha256(self) -> str:
        """The hash of the tensors' files, part of a run's key."""
        hashes = [file_sha256(path) for path in self.files]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def error(self, reason: str) -> UsageError:
        """A UsageError that names this start."""
        return UsageError(f"start={self.name}: {self.folder} {reason}")


def find_start(run: Run) -> Start | None:
    """Find what a run starts from; None if it starts from its backbone.

    Raises:
        UsageError: if the name does not exist, or the run is not finished or kept no weights.
    """
    if run.start is None:
        return None
    folder = _folder(run.start, Path(run.output_dir))
    if (folder / "record.json").is_file():
        return _of_run(run.start, folder)
    if (folder / "adapter.json").is_file():
        return _of_adapter(run.start, folder)
    if (folder / "complete.json").is_file():
        return _of_checkpoint(run.start, folder)
    return _of_model(run.start, folder)


def kept_weights(folder: Path) -> bool:
    """Whether a finished run's folder has weights that another run can start from."""
    try:
        _of_run(folder.name, folder)
    except UsageError:
        return False
    return True


def _folder(name: str, output_dir: Path) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if len(path.parts) == 1 and (output_dir / name).is_dir():
        return output_dir / name
    if len(path.parts) > 1:
        raise UsageError(f"start={name} is not a folder")
    runs = [record.parent.name for record in output_dir.glob("*/record.json")]
    raise UsageError(f"start={name}: {output_dir} has no run with this id: {nearest(name, runs) if runs else 'none'}")


def _of_run(name: str, folder: Path) -> Start:
    record = read_record(folder / "record.json")
    if record.status != "done":
        raise UsageError(
            f"start={name}: {folder.name} is {record.status}, not done; run its command again to finish it"
        )
    adapter, merged = folder / "adapter", folder / "merged"
    if (adapter / "adapter.json").is_file():
        return _of_adapter(name, adapter)
    if (merged / "config.json").is_file():
        return _of_model(name, merged)
    if complete := [path.parent for path in folder.glob("checkpoint-*/complete.json")]:
        return _of_checkpoint(name, max(complete, key=lambda path: int(path.name.rpartition("-")[2])))
    raise UsageError(
        f"start={name}: {folder.name} kept no weights; run its command again with save=adapter force=true "
        "(or save=merged, or train.keep_checkpoints=true)"
    )


def _of_adapter(name: str, folder: Path) -> Start:
    try:
        method, backbone_hash = read_adapter(folder)
    except UsageError as error:
        raise UsageError(f"start={name}: {error}") from error
    return Start(name, folder, (folder / "adapter.safetensors",), method, backbone_hash, _record(folder.parent))


def _of_checkpoint(name: str, folder: Path) -> Start:
    from rosa_bench.records import checkpoints

    record = _record(folder.parent)
    if record is None or checkpoints.read_mark(folder) is None:
        raise UsageError(f"start={name}: {folder} is not a complete checkpoint of a run")
    method, backbone_hash = stored_method(record.config["method"]), record.facts.get("backbone_hash")
    return Start(name, folder, (folder / checkpoints.STATE,), method, backbone_hash, record)


def _of_model(name: str, folder: Path) -> Start:
    files = tuple(sorted(folder.glob("*.safetensors")))
    if not files or not (folder / "config.json").is_file():
        expected = "a run (record.json), an adapter (adapter.json) or a model (config.json, *.safetensors)"
        raise UsageError(f"start={name}: {folder} is not {expected}")
    return Start(name, folder, files, None, None, _record(folder.parent))


def _record(folder: Path) -> Record | None:
    try:
        return read_record(folder / "record.json")
    except UsageError:
        return None


def read_adapter(folder: Path) -> tuple[Method, str]:
    """The method of a folder written by `save=adapter`, and the hash of its backbone.

    Raises:
        UsageError: if the folder is not an adapter or its tensors are damaged.
    """
    tensors = folder / "adapter.safetensors"
    try:
        description = loads((folder / "adapter.json").read_text(encoding="utf-8"))
        method, backbone_hash = stored_method(description["method"]), description["backbone_hash"]
        sha256 = file_sha256(tensors)
        damaged = sha256 != description.get("sha256", sha256)
    except (UsageError, OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{folder} is not an adapter ({error})") from error
    if damaged:
        raise UsageError(f"{tensors} is damaged: its checksum is not the one in adapter.json")
    return method, backbone_hash


def stored_method(node: Any) -> Method:
    """The method of a stored configuration, which may lack newer fields.

    Raises:
        UsageError: if its class is not a method.
        ValueError: if it has no class, or its options are invalid.
    """
    try:
        values = dict(node)
        method: Method = target_class("method", str(values.pop("_target_")))(**values)
    except UsageError:
        raise
    except Exception as error:
        raise ValueError(f"unknown method: {short(node)}") from error
    return method


class Loader:
    """Loads the tensors of a start into a model: whole models before a method is attached, adapters after it.

    Weights of a whole model (merged, or trained by a method that adds no tensors) fit every method. An adapter fits
    only the method that trained it. Tensors of the task head that are missing or of another shape keep the values drawn
    from the run's seed; every other tensor must fit.
    """

    def __init__(self, start: Start, model: PreTrainedModel, method: Method) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from rosa_bench.models.roles import task_head

        self.start, self.model, self.method = start, model, method
        self.tensors: dict[str, torch.Tensor] = {}
        sha256 = start.sha256
        try:
            for path in start.files:
                self.tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise start.error(f"cannot be read ({error})") from error
        if start.sha256 != sha256:
            raise start.error("changed while it was read; run the same command again")
        head = {id(parameter) for parameter in task_head(model)}
        parameters = dict(model.named_parameters())
        self.head = {name for name, parameter in parameters.items() if id(parameter) in head}
        inside = {name for name in self.tensors if self._of_backbone(name)}
        other_method = start.method is None or start.method.name != method.name
        self.whole = start.method is None or (other_method and inside <= model.state_dict().keys())
        self.complete = parameters.keys() - self.head <= self.tensors.keys()
        self.redrawn: list[str] = []

    def _of_backbone(self, name: str) -> bool:
        return self.model.base_model is self.model or name.startswith(f"{self.model.base_model_prefix}.")

    def before_attach(self) -> None:
        """Load a whole model's weights, if the start has them. Raises UsageError if they do not fit."""
        from rosa_bench.models.hashing import backbone_hash

        if not self.whole:
            return
        if self.start.method is not None and not self.complete:
            self._same_backbone(backbone_hash(self.model))
        needed = dict(self.model.named_parameters()) if self.start.method is None else {}
        self._fill(self.model.state_dict(), needed.keys())

    def after_attach(self, backbone_hash: str) -> None:
        """Load an adapter for the backbone with this hash. Raises UsageError if it does not fit."""
        from rosa_bench.records.checkpoints import trained_state

        if self.whole or self.start.method is None:
            return
        if self.start.method.name != self.method.name:
            raise self.start.error(
                f"holds tensors of method={self.start.method.name}, which method={self.method.name} does not have; "
                "start from a merged model (save=merged)"
            )
        if not self.complete:
            self._same_backbone(backbone_hash)
        state = trained_state(self.model, self.method)
        head = {name: p for name, p in self.model.named_parameters() if name in self.head}
        self._fill(state | head, state.keys())

    def _same_backbone(self, backbone_hash: str) -> None:
        if self.start.backbone_hash != backbone_hash:
            raise self.start.error(
                "was trained with another backbone, or with tensors drawn from another seed; start from a merged model "
                "(save=merged)"
            )

    def _fill(self, targets: Mapping[str, torch.Tensor], needed: Collection[str]) -> None:
        import torch

        loaded = self.tensors
        shared = targets.keys() & loaded.keys()
        reshaped = {name for name in shared if targets[name].shape != loaded[name].shape}
        faults = {
            "missing": set(needed) - loaded.keys() - self.head,
            "unexpected": {name for name in loaded.keys() - targets.keys() if self._of_backbone(name)},
            "of another shape": reshaped - self.head,
        }
        if any(faults.values()):
            parts = [f"{len(names)} {fault} ({min(names)} ...)" for fault, names in faults.items() if names]
            raise self.start.error(f"does not fit this model and method: {'; '.join(parts)}")
        with torch.no_grad():
            for name in shared - reshaped:
                targets[name].copy_(loaded[name])
        self.redrawn = sorted(self.head - (shared - reshaped))

    def describe(self) -> str:
        redrawn = f"; initialized from the seed: {', '.join(self.redrawn)}" if self.redrawn else ""
        return f"starts from {self.start.folder}, sha256 {self.start.sha256[:12]}{redrawn}"

    def facts(self) -> dict[str, Any]:
        """Facts for the record: the run and tensors of the start, and the head's tensors that were not loaded."""
        from rosa_bench.records.labels import cell_name

        start, record = self.start, self.start.record
        method = start.method
        facts: dict[str, Any] = {"sha256": start.sha256, "redrawn": self.redrawn}
        if record is not None:
            settings = cell_name({**record.config, "start": None})  # the same for all seeds
            facts |= {"run_id": record.run_id, "task": record.task, "method": record.method, "settings": settings}
        if method is not None and method.name == self.method.name:
            start_options, own_options = node_dict(method), node_dict(self.method)
            shared = start_options.keys() & own_options.keys()
            changed = sorted(name for name in shared if start_options[name] != own_options[name])
            facts |= {"changed_options": changed} if changed else {}
        return facts


def start_loader(run: Run, model: PreTrainedModel) -> Loader | None:
    """The loader of a run's start; None if the run starts from its backbone. Raises UsageError."""
    start = find_start(run)
    return None if start is None else Loader(start, model, run.method)


def attach_method(
    run: Run, model: PreTrainedModel, seed: int, around: AbstractContextManager[None] | None = None
) -> tuple[str, Loader | None]:
    """Attach a run's method to its backbone, inside the context `around`, and load the start's tensors.

    Returns:
        The hash of the backbone before the method was attached, and the loader of the start.

    Raises:
        UsageError: if the start does not fit.
    """
    from rosa_bench.models.hashing import backbone_hash

    loader = start_loader(run, model)
    if loader is not None:
        loader.before_attach()
    own_hash = backbone_hash(model)
    with around or nullcontext():
        run.method.attach(model, seed)
    if loader is not None:
        loader.after_attach(own_hash)
    return own_hash, loader
