"""Typed, frozen configuration nodes of a run, validated as a whole before any heavy import.

A yaml in `configs/` lists only the values that differ from its dataclass; its `_target_` names the dataclass and is the
only registration. Imports only the standard library, omegaconf and pydantic.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from pydantic import Field, JsonValue
from pydantic_core import PydanticUndefined
from yaml import YAMLError

from rosa_bench import metrics
from rosa_bench.core.aliases import meant
from rosa_bench.core.method import Method
from rosa_bench.core.schema import NEUTRAL, Added, Count, Location, Name, Share, configured, constructed
from rosa_bench.core.task import Task
from rosa_bench.errors import UsageError, nearest
from rosa_bench.system.strict_json import short

GROUPS = ("model", "method", "task", "data", "train", "tracker")
LONGEST_NAME = 120  # characters of a model's name in records
LONGEST_PATH = 3000  # bytes of the output folder's path: systems allow 4096, including the run folder and its files
OWN_FOLDER = "ROSA_BENCH_CONFIG_DIR"
PACKAGE = "rosa_bench."  # besides the user's own folder, the only modules that a configuration may import


def _check_folder(name: str, path: str) -> None:
    """Raise ValueError unless the folder exists and is readable."""
    try:
        readable = Path(path).is_dir() and os.access(path, os.R_OK | os.X_OK)
    except (OSError, ValueError):  # the name is too long or contains an invalid character
        readable = False
    if not readable:
        raise ValueError(f"{name}={short(path)} is not a readable folder")


@configured
class Model:
    """The backbone: an embedded model by name, a hub repository, or a local folder that `transformers` can load."""

    # the name in records; filled by the choice, or from the folder or the repository
    name: Annotated[Name, Field(max_length=LONGEST_NAME)] = "auto"
    path: Location | None = None  # local folder that `transformers` can load; takes precedence over `hub` and `package`
    hub: str | None = None  # repository of the hub, OWNER/NAME
    revision: str | None = None  # commit, tag or branch of `hub`; null: that of the choice, else `main`
    package: str | None = None  # installed Python package and the folder in it, "name/folder"
    sha256: str | None = None  # SHA-256 of the package's model.safetensors
    # same architecture with weights drawn from the seed: the control for claims about pre-training
    random_init: bool = False
    dtype: Annotated[Literal["fp32", "bf16"], NEUTRAL] = "fp32"  # dtype of frozen matrices in memory; bf16 halves it
    dropout: Annotated[Share | None, Added(None)] = None  # of every dropout in the model; null: the checkpoint's own

    @property
    def embedded(self) -> bool:
        """Whether the weights are part of this package."""
        return self.path is None and self.hub is None and self.package is None

    def __post_init__(self) -> None:
        if self.path is not None:
            _check_folder("path", self.path)


@configured
class Data:
    """Source of the rows."""

    # rows made by the package, JSON lines below `dir`, or data sets of the hub
    source: Literal["embedded", "local", "hub"] = "embedded"
    dir: Location | None = None  # folder of `local`

    def __post_init__(self) -> None:
        if self.source == "local" and self.dir is None:
            raise ValueError("data=local needs data.dir=FOLDER")
        if self.source == "local":
            _check_folder("dir", str(self.dir))
        elif self.dir is not None:
            raise ValueError(f"dir={short(self.dir)} needs data=local, but data={self.source} is set")


Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@configured
class Train:
    """Optimisation and evaluation. `batch_size` counts examples per optimiser step over all processes."""

    epochs: Count | None = None  # null: the task's
    max_steps: Count | None = None  # optimizer steps; overrides epochs
    lr: Annotated[float, Field(gt=0, le=1e3)] | None = None  # peak learning rate; null: the task's, else the method's
    # peak learning rate of the task head; null: lr
    head_lr: Annotated[Annotated[float, Field(gt=0, le=1e3)] | None, Added(None)] = None
    batch_size: Count = 32  # examples per optimizer step over all processes
    micro_batch_size: Annotated[Count | None, NEUTRAL] = None  # per forward pass; null: batch_size / processes
    eval_batch_size: Annotated[Count, NEUTRAL] = 128  # examples per forward pass in evaluation
    max_length: Annotated[int, Field(ge=8)] = 128  # tokens of a training example; longer ones are truncated
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"  # of the learning rate after warm-up
    warmup: Annotated[float, Field(ge=0, le=2**53)] = 0.06  # fraction of all steps if below 1, else steps
    weight_decay: Share = 0.0  # of all trained parameters but biases and norms
    beta1: Share = 0.9  # AdamW's decay of first moments
    beta2: Share = 0.999  # AdamW's decay of second moments
    adam_epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-8  # AdamW's epsilon
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0  # norm to which gradients are clipped; 0: no clipping
    optimizer: Annotated[Name, Added("adamw")] = "adamw"  # torch's, or any transformers optimizer: sgd, adafactor ...
    # options of the optimizer's constructor that have no key of their own
    optimizer_args: Annotated[dict[str, JsonValue], Added({})] = Field(default_factory=dict)
    # LoRA+: learning rate of B over that of A; null: the same
    lora_plus: Annotated[Annotated[float, Field(gt=0, le=1e3)] | None, Added(None)] = None
    # stop after this many evaluations in a row without improvement; null: never
    patience: Annotated[Count | None, Added(None)] = None
    fused: Annotated[bool, NEUTRAL] = False  # AdamW in one pass over each weight: same sums, rounded differently
    label_smoothing: Share = 0.0  # share of a label spread over all classes or tokens
    precision: Precision = "fp32"  # dtype of products; trained parameters are in fp32
    # dtype of products in evaluation; null: as in training
    eval_precision: Annotated[Precision | None, Added(None)] = None
    # recompute activations in the backward pass, one layer at a time
    gradient_checkpointing: Annotated[bool, NEUTRAL] = False
    bucket: bool = True  # group examples of similar length into batches, in random order
    limit_train: Count | None = None  # use only the first rows of the training split
    limit_eval: Count | None = None  # use only the first rows of the other splits
    log_steps: Annotated[Count, NEUTRAL] = 25  # optimizer steps between lines of the training curve
    checkpoint_steps: Annotated[Count, NEUTRAL] = 200  # optimizer steps between checkpoints
    keep_checkpoints: Annotated[bool, NEUTRAL] = False  # keep checkpoints after the run; otherwise they are deleted
    # processes that prepare batches; 0: none besides the run
    num_workers: Annotated[int, Field(ge=0, le=64), NEUTRAL] = 0
    device: Annotated[Literal["auto", "cpu", "cuda"], NEUTRAL] = "auto"  # auto: a GPU if there is one
    threads: Annotated[Count | None, NEUTRAL] = None  # CPU threads; null: all cores, shared among the cells of a suite
    # a step as one CUDA graph: where possible, required, or never
    graphs: Annotated[Literal["auto", "on", "off"], NEUTRAL] = "auto"
    # library of fp32 products on the CPU; auto: oneDNN where it is faster
    matmul: Annotated[Literal["auto", "torch"], NEUTRAL] = "auto"

    def __post_init__(self) -> None:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size={self.micro_batch_size} does not divide batch_size={self.batch_size}")
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(f"warmup={self.warmup} is neither a share below 1 nor a whole number of steps")


@configured
class Tracker:
    """Mirror of a run on a tracking service. `record.json` remains authoritative."""

    name: Literal["wandb", "none"] = "wandb"  # the service
    mode: Literal["offline", "online"] | None = None  # null: WANDB_MODE, else offline
    project: Name = "rosa_bench"  # wandb project
    entity: str | None = None  # wandb user or team; null: the default of the account
    tags: list[str] = Field(default_factory=list)  # wandb tags


@configured
class Run:
    """A complete, valid run without unknown, out-of-range or unresolved values."""

    model: Model
    method: Method
    task: Task
    data: Data
    train: Train
    tracker: Tracker
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1  # of new weights, data order, dropout and the draws of the method
    output_dir: Annotated[Location, Field(min_length=1), NEUTRAL] = "results/runs"  # folder of the run folders
    # auto: from the last checkpoint if there is one; never: from the start; must: fail without one
    resume: Annotated[Literal["auto", "never", "must"], NEUTRAL] = "auto"
    force: Annotated[bool, NEUTRAL] = False  # run again although a finished record exists
    # what to keep of the trained model: trained tensors, a plain model, or an adapter of `peft`
    save: Annotated[Literal["none", "adapter", "merged", "peft"], NEUTRAL] = "none"
    # begin with the trained tensors of a run: folder, id or `save=` output; in the key by content
    start: Annotated[Annotated[Location, Field(min_length=1)] | None, NEUTRAL] = None
    progress: Annotated[Literal["auto", "off"], NEUTRAL] = "auto"  # auto: an updating line on a terminal
    choices: dict[str, str] = Field(default_factory=dict)  # chosen name of each group; filled when composing

    def __post_init__(self) -> None:
        precisions = {self.train.precision, self.train.eval_precision or self.train.precision}
        if self.model.dtype == "bf16" and precisions != {"bf16"}:
            raise ValueError("model.dtype=bf16 needs train.precision=bf16, and train.eval_precision=bf16 or null")
        sizes = [len(os.fsencode(part)) for part in Path(self.output_dir).absolute().parts]
        if "\0" in self.output_dir or max(sizes) > 255 or sum(sizes) > LONGEST_PATH:
            raise ValueError(f"output_dir={short(self.output_dir)} cannot be the name of a folder")

    @property
    def needs_hub(self) -> bool:
        """Whether rows or weights come from a hub."""
        return self.data.source == "hub" or (self.model.hub is not None and self.model.path is None)

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as nested plain values with each node's `_target_`; the inverse of `resolve`."""
        out: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            out[field.name] = node_dict(value) if dataclasses.is_dataclass(value) else value
        return out


def node_dict(node: Any) -> dict[str, Any]:
    """A configuration node as plain values with its `_target_`."""
    cls = type(node)
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}"} | dataclasses.asdict(node)


BASES: dict[str, type] = dict(zip(GROUPS, (Model, Method, Task, Data, Train, Tracker), strict=True))


def target_class(group: str, target: str) -> type:
    """The dataclass named by a yaml's `_target_`. Raises UsageError if it is not a configuration class of the group.

    A configuration may come from someone else's record, and importing a module runs it: only modules of this package
    and of the user's own folder are imported. A class of another program is accepted if that program has imported it.
    """
    module, _, name = target.rpartition(".")
    shown = f"{group}: _target_={short(target)[1:-1]}"
    if (folder := own_folder()) is not None:
        use_folder(str(folder))
    if not is_own(module) and not module.startswith(PACKAGE) and module not in sys.modules:
        raise UsageError(f"{shown} cannot be imported: it is not a class of this package")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{shown} cannot be imported ({error})") from error
    if not (isinstance(cls, type) and issubclass(cls, BASES[group]) and dataclasses.is_dataclass(cls)):
        raise UsageError(f"{shown} is not a {BASES[group].__name__} dataclass")
    if inspect.isabstract(cls):
        raise UsageError(f"{shown} is an abstract base class; use a subclass")
    return cls


def defaults(cls: type) -> dict[str, Any]:
    """Default values of a configuration class; a field without a default is `???`, Hydra's missing value."""
    fields = cast(Any, cls).__pydantic_fields__
    values = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    return {name: "???" if value is PydanticUndefined else value for name, value in values.items()}


def config_dir() -> Path:
    """Folder of the yaml files: next to the package in a checkout, inside it in an installed wheel."""
    inside = Path(__file__).parent.parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "configs"


def papers_dir() -> Path:
    """Folder of published numbers and data releases: results/papers, or inside the package in an installed wheel."""
    return config_dir().parent / "results" / "papers"


def own_folder() -> Path | None:
    """The user's folder of yaml files and modules: `-cd FOLDER` or ROSA_BENCH_CONFIG_DIR; None if not set.

    Raises:
        UsageError: if there is no such folder.
    """
    folder = os.environ.get(OWN_FOLDER)
    if folder and not Path(folder).is_dir():
        raise UsageError(f"{OWN_FOLDER}={folder} is not a folder; correct it, or unset it")
    return Path(folder) if folder else None


def use_folder(folder: str) -> None:
    """Set the user's own folder and make its modules importable, also in child processes."""
    path = str(Path(folder).resolve())
    os.environ[OWN_FOLDER] = path
    if path not in sys.path:
        sys.path.append(path)
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if path not in entries:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*entries, path]))
    if Path(path) not in metrics.FOLDERS:
        metrics.FOLDERS.append(Path(path))


def is_own(module: str) -> bool:
    """Whether a module is in the user's own folder."""
    folder, first = own_folder(), module.partition(".")[0]
    if folder is None or not first.isidentifier():
        return False
    return (folder / first).exists() or (folder / f"{first}.py").exists()


def choice_files(group: str) -> dict[str, Path]:
    """The yaml files of a group by choice name, including those in the user's own folder.

    Raises:
        UsageError: if a file in that folder has the name of a shipped one.
    """
    shipped = {path.stem: path for path in (config_dir() / group).glob("*.yaml")}
    folder = own_folder()
    own = {} if folder is None else {path.stem: path for path in (folder / group).glob("*.yaml")}
    if duplicates := sorted(shipped.keys() & own.keys()):
        name = duplicates[0]
        raise UsageError(f"{own[name]}: {group}={name} ships with rosa_bench; rename the file")
    return dict(sorted((shipped | own).items()))


def yamls() -> tuple[tuple[str, int], ...]:
    """Path and time of the last change, in ns, of every yaml that runs are composed of."""
    chosen = (path for group in GROUPS for path in choice_files(group).values())
    return tuple((str(path), path.stat().st_mtime_ns) for path in (config_dir() / "config.yaml", *chosen))


def choices(group: str) -> list[str]:
    return list(choice_files(group))


def describe(group: str, name: str) -> str:
    """Description of a choice: the comment on the first line of its yaml."""
    lines = choice_files(group)[name].read_text(encoding="utf-8").splitlines()
    return lines[0].lstrip("# ") if lines and lines[0].startswith("#") else ""


def choice_defaults(group: str, name: str, cls: type) -> dict[str, Any]:
    """The options of a choice as its yaml and its class set them; those of the class alone if there is no such file."""
    path = choice_files(group).get(name)
    own = {} if path is None else cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
    return defaults(cls) | {key: value for key, value in own.items() if key != "_target_"}


def group_nodes() -> Iterator[tuple[str, str, DictConfig]]:
    """Yield every choice of every group as (group, name, node), with the defaults of its dataclass filled in.

    Mapping fields accept keys that the yaml does not list. Raises UsageError for a yaml without `_target_`.
    """
    for group in GROUPS:
        for name, path in choice_files(group).items():
            node = OmegaConf.load(path)
            if not isinstance(node, DictConfig) or "_target_" not in node:
                raise UsageError(f"{path}: _target_ is missing; name the class that the file configures")
            filled = OmegaConf.create(defaults(target_class(group, node["_target_"])))
            completed = OmegaConf.merge(filled, node)
            assert isinstance(completed, DictConfig)
            for value in (completed._get_node(str(key)) for key in completed):
                if isinstance(value, DictConfig):
                    OmegaConf.set_struct(value, False)
            yield group, name, completed


def run_defaults() -> dict[str, Any]:
    """Top-level keys other than groups, with their defaults."""
    return {key: value for key, value in defaults(Run).items() if key not in GROUPS}


LATE = ("output_dir", "tracker")  # resolved last; may refer to derived values such as ${method.name}


def resolve(cfg: DictConfig | Mapping[str, Any], overrides: Sequence[str] = ()) -> Run:
    """Validate a composed configuration and fill the values derived from the task and the method.

    Args:
        overrides: command-line overrides, if any; messages quote values as typed there.

    Raises:
        UsageError: listing every fault, each with its key and the nearest valid names.
    """
    typed = {key.lstrip("+"): text for key, _, text in (override.partition("=") for override in overrides)}
    try:
        plain: Any = _interpolated(cfg, overrides) if isinstance(cfg, DictConfig) else cfg
        json.dumps(plain, ensure_ascii=False).encode()  # as the record stores it
    except InterpolationKeyError as error:
        raise UsageError(_unknown_reference(error, cast(DictConfig, cfg))) from error
    except OmegaConfBaseException as error:
        raise UsageError(str(error).replace(f": {error.key}", f": {error.full_key}").splitlines()[0]) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"the configuration cannot be read ({short(str(error))[1:-1]})") from error
    if not isinstance(plain, Mapping):
        raise UsageError(f"a configuration must be a mapping, not {type(plain).__name__}")
    plain = {str(key): value for key, value in plain.items() if key != "hydra"}
    faults: list[str] = []
    nodes: dict[str, Any] = {}
    for group in GROUPS:
        node = plain.pop(group, None)
        if not isinstance(node, Mapping) or "_target_" not in node:
            faults.append(f"{group}: choose one of {', '.join(choices(group))}")
            continue
        values = {str(key): value for key, value in node.items() if key != "_target_"}
        nodes[group], node_faults = constructed(f"{group}.", target_class(group, str(node["_target_"])), values, typed)
        faults += node_faults
    if not faults:
        run, faults = constructed("", Run, {**plain, **nodes}, typed)
    else:
        fields = {field.name for field in dataclasses.fields(Run)}
        others = [key[:80] for key in plain if key not in fields]
        faults += [f"{key} is not a key: {meant(key, fields)}" for key in others]
    if faults:
        raise UsageError("; ".join(faults))
    return filled(run)


def _interpolated(cfg: DictConfig, overrides: Sequence[str]) -> Any:
    """The configuration as plain values; keys in `LATE` may refer to any value of the completed run."""
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    late = {key: raw[key] for key in LATE if "${" in str(raw.get(key))}
    if not late:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    others = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in late])
    early: Any = OmegaConf.to_container(others, resolve=True, throw_on_missing=True)
    run = resolve({"tracker": node_dict(Tracker()), **early}, overrides)
    values = run.to_dict()
    references = {"method": {**values["method"], "name": run.method.name}}
    resolved: Any = OmegaConf.to_container(OmegaConf.create({**values, **references, **late}), resolve=True)
    return values | {key: resolved[key] for key in late}


def _unknown_reference(error: InterpolationKeyError, cfg: DictConfig) -> str:
    """Message for a `${...}` that refers to an unknown key."""
    match = re.search(r"'(.+?)'", str(error))
    groups = {f"{group}.{key}" for group in GROUPS if isinstance(cfg.get(group), DictConfig) for key in cfg[group]}
    keys = {"method.name", *groups, *map(str, cfg)} - set(GROUPS)
    name = match.group(1) if match else ""
    return f"{error.full_key}: ${{{name}}} is not a key: {nearest(name, keys)}"


def filled(run: Run) -> Run:
    """The run with null values filled in: the task's backbone and epochs, the task's or method's learning rate."""
    model, train, task = _own_revision(run.model), run.train, run.task.in_tuning()
    if model.path is not None:
        folder = _model_name(Path(model.path).resolve().name) or "root"
        model = dataclasses.replace(model, name=model.name if model.name != "auto" else folder)
    elif model.name == "auto":
        model = dataclasses.replace(model, name=run.task.backbone)
    if train.epochs is None:
        train = dataclasses.replace(train, epochs=run.task.epochs)
    if train.lr is None:
        rate = run.task.lr or run.method.lr["mini" if model.embedded else "full_size"]
        train = dataclasses.replace(train, lr=rate)
    if train.optimizer in ("adamw_torch", "adamw_torch_fused"):
        train = dataclasses.replace(train, optimizer="adamw", fused=train.fused or train.optimizer.endswith("fused"))
    return dataclasses.replace(run, model=model, train=train, task=task)


def _model_name(text: str) -> str:
    """The name of a folder or a repository as a model's name in records."""
    return "".join(c if c.isprintable() else "_" for c in text)[:LONGEST_NAME]


@functools.cache
def _model_choices() -> dict[str, dict[str, Any]]:
    """The options of every model choice, unchecked: a folder of the user's own may be on another machine."""
    return {name: choice_defaults("model", name, Model) for name in choices("model")}


def _own_revision(model: Model) -> Model:
    """Drop the name and revision that belong to a choice whose repository `model.hub` overrides."""
    if model.hub is None or model.path is not None:
        return model
    shipped = _model_choices()
    if model.name in shipped and shipped[model.name]["hub"] != model.hub:
        model = dataclasses.replace(model, name=_model_name(model.hub.rpartition("/")[2]) or model.name)
    if any(choice["revision"] == model.revision and choice["hub"] != model.hub for choice in shipped.values()):
        model = dataclasses.replace(model, revision=None)
    return model


def repeatable_config(run: Run) -> str:
    """The resolved configuration as a yaml that `python -m rosa_bench -cp FOLDER -cn config` can run."""
    own = OmegaConf.load(config_dir() / "config.yaml")
    assert isinstance(own, DictConfig)
    overrides = [item for item in own.defaults if any("override hydra" in str(key) for key in item)]
    complete = {"defaults": [*overrides, "_self_"], "hydra": own.hydra, **run.to_dict()}
    return OmegaConf.to_yaml(OmegaConf.create(complete))


def saved_config(folder: Path) -> DictConfig:
    """Load the configuration in a run folder. Raises UsageError if it is missing or damaged."""
    try:
        cfg = OmegaConf.load(folder / "config.yaml")
        if not isinstance(cfg, DictConfig):
            raise ValueError("no mapping")
    except (OSError, OmegaConfBaseException, ValueError, YAMLError) as error:
        raise UsageError(f"{folder} is not a run folder (config.yaml: {error})") from error
    for name in ("defaults", "hydra"):  # used only on the command line
        cfg.pop(name, None)
    return cfg
