"""The optimizer of a run: any that `transformers` knows by name, with the run's rates and weight decay."""

from __future__ import annotations

import importlib
import inspect
import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast, get_type_hints

import torch
import transformers
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from rosa_bench.config import Train, defaults
from rosa_bench.core.annotations import expected, fits
from rosa_bench.errors import UsageError, nearest
from rosa_bench.system.seeds import preserved_random_state
from rosa_bench.system.strict_json import short

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Parameters = Sequence[torch.nn.Parameter]
# Refused optimizers by part of their name in `transformers`, with the reason.
DURING_BACKWARD = "updates each weight during the backward pass, before gradients are accumulated and clipped"
REFUSED = {
    "layerwise": DURING_BACKWARD,
    "lomo": DURING_BACKWARD,
    "schedule_free": "evaluates other weights than it trains, so a resumed run would differ from an uninterrupted one",
}
# Optimizer options that are set by other keys; Adam's keys apply if `transformers` passes them on.
KEYS = {"lr": ["lr"], "weight_decay": ["weight_decay"], "fused": ["fused"]}
ADAM_KEYS = {"betas": ["beta1", "beta2"], "eps": ["adam_epsilon"]}
TARGETS = "target_modules"  # for optimizers that project gradients: names of linear layers, or `all-linear`
GAP = "update_proj_gap"  # the option that identifies groups of projected weights


def names() -> list[str]:
    """Every value of `train.optimizer` with the installed `transformers`; `adamw` is torch's AdamW."""
    available = {name.value for name in OptimizerNames} - {"adamw_torch", "adamw_torch_fused"}
    return ["adamw", *sorted(name for name in available if not _refusal(name))]


def _refusal(name: str) -> str:
    return next((reason for name_part, reason in REFUSED.items() if name_part in name), "")


def settings(train: Train) -> dict[str, Any]:
    """The arguments of `TrainingArguments` that select the optimizer."""
    name = "adamw_torch" if train.optimizer == "adamw" else train.optimizer
    return {"optim": name, "optim_target_modules": train.optimizer_args.get(TARGETS, "all-linear")}


def check_name(train: Train) -> None:
    """Raise UsageError if `transformers` does not know the optimizer or it is not supported."""
    name, supported = train.optimizer, names()
    if name in supported:
        return
    if name in {member.value for member in OptimizerNames}:
        raise UsageError(f"train.optimizer={name} is not supported: it {_refusal(name)}")
    unknown = f"train.optimizer={short(name)} is not an optimizer of transformers {transformers.__version__}"
    raise UsageError(f"{unknown}: {nearest(name, supported)}")


def check(train: Train, arguments: TrainingArguments) -> None:
    """Try the optimizer on a small matrix, to report problems before anything is loaded.

    Raises:
        UsageError: for a missing package, an option that the optimizer does not accept, a key of `train` that it
            ignores, or an optimizer that does not continue exactly from its saved state.
    """
    name = f"train.optimizer={train.optimizer}"
    with preserved_random_state():
        matrices = [torch.nn.Sequential(torch.nn.Linear(8, 8, device=arguments.device)) for _ in range(2)]
        try:
            first, second = (_created(train, arguments, matrix) for matrix in matrices)
            _update(first, matrices[0], range(3))
            matrices[1].load_state_dict(matrices[0].state_dict())
            saved = io.BytesIO()
            torch.save(first.state_dict(), saved)
            saved.seek(0)
            with allowed(saved, first):
                second.load_state_dict(torch.load(saved, weights_only=True))
            _update(first, matrices[0], range(3, 5))
            _update(second, matrices[1], range(3, 5))
        except UsageError:
            raise
        except Exception as error:
            with_args = f" with train.optimizer_args={json.dumps(train.optimizer_args)}" if train.optimizer_args else ""
            raise UsageError(f"{name}{with_args} does not work here: {_line(error)}") from error
    if not all(map(torch.equal, matrices[0].parameters(), matrices[1].parameters())):
        raise UsageError(f"{name} is not supported: it does not continue exactly from its saved state")
    options, default_values = recipe(train, arguments, matrices[0])[1], defaults(Train)
    ignored = [key for option, keys in ADAM_KEYS.items() if option not in options for key in keys]
    ignored += [] if "weight_decay" in first.defaults else ["weight_decay"]
    for key in ignored:
        if getattr(train, key) != default_values[key]:
            raise UsageError(f"train.{key}={getattr(train, key)} has no effect with {name}")


def _created(train: Train, arguments: TrainingArguments, model: torch.nn.Module) -> torch.optim.Optimizer:
    cls, options = recipe(train, arguments, model)
    return cast(torch.optim.Optimizer, cls(options.pop("params", None) or [*model.parameters()], **options))


def _update(optimizer: torch.optim.Optimizer, model: torch.nn.Module, steps: Collection[int]) -> None:
    for step in steps:
        for parameter in model.parameters():
            draw = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            parameter.grad = draw.to(parameter.device)
        optimizer.step()


def recipe(train: Train, arguments: TrainingArguments, model: torch.nn.Module) -> tuple[Any, dict[str, Any]]:
    """The optimizer's class and constructor arguments, as `Trainer` takes them.

    `transformers` selects the class and its usual arguments. `train.optimizer_args` may set every other argument of the
    constructor and of the groups of parameters whose gradients are projected (GaLore, APOLLO).

    Raises:
        UsageError: if the optimizer's package is missing, or for an option that it does not accept.
    """
    name = f"train.optimizer={train.optimizer}"
    try:
        cls, options = Trainer.get_optimizer_cls_and_kwargs(arguments, cast("PreTrainedModel", model))
    except ModuleNotFoundError as error:
        raise UsageError(f"{name} needs a package that is not installed: pip install {error.name}") from error
    except (ImportError, ValueError) as error:
        raise UsageError(f"{name} cannot be used here: {_line(error)}") from error
    accepted = {
        key: get_type_hints(cls.__init__).get(key) or _type_of(parameter.default)
        for key, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD and key not in ("params", "model")
    }
    projected = [group for group in options.get("params", []) if GAP in group]
    in_groups = {key: type(value) for group in projected for key, value in group.items() if key != "params"}
    for key, value in train.optimizer_args.items():
        _check_option(key, value, accepted | in_groups | ({TARGETS: Any} if projected else {}), options, cls.__name__)
        for target in projected if key in in_groups else [options] if key != TARGETS else []:
            target[key] = tuple(value) if isinstance(value, list) else value
    if train.fused and "fused" not in accepted:
        raise UsageError(f"train.fused=true is not supported with {name}")
    return cls, options | ({"fused": True} if train.fused else {})


def _check_option(key: str, value: Any, accepted: Mapping[str, Any], options: Mapping[str, Any], cls: str) -> None:
    label = f"train.optimizer_args.{key}"
    elsewhere = KEYS | {option: keys for option, keys in ADAM_KEYS.items() if option in options}
    if key in elsewhere:
        raise UsageError(f"{label} cannot be set: use " + " and ".join(f"train.{name}" for name in elsewhere[key]))
    if key not in accepted:
        near = nearest(label, [f"train.optimizer_args.{name}" for name in accepted if name not in elsewhere])
        raise UsageError(f"{label} is not an option of {cls}: {near}")
    if not fits(accepted[key], json.dumps(value)):
        raise UsageError(f"{label}={short(value)} is not {expected(accepted[key], value)}")


def _type_of(default: Any) -> Any:
    """The type of an option, inferred from its default if the constructor does not annotate it."""
    if isinstance(default, tuple):
        return tuple[float, ...]
    if default is None or default is inspect.Parameter.empty:
        return Any
    return float if type(default) is int else type(default)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def arrange(
    optimizer: torch.optim.Optimizer, train: Train, decayed: Parameters, head: Parameters, factors: Parameters
) -> None:
    """Move parameters with another weight decay or learning rate into their own groups, after all others.

    Args:
        optimizer: the optimizer, changed in place.
        train: the training options.
        decayed: parameters with weight decay; all others have none.
        head: parameters of the task head, for `train.head_lr`.
        factors: the B of low-rank pairs A B, for `train.lora_plus`.

    Raises:
        UsageError: if the optimizer projects gradients, but trains none of the weights that it projects.
    """
    projected = [p for group in optimizer.param_groups if GAP in group for p in group["params"]]
    if any(GAP in group for group in optimizer.param_groups) and not any(p.requires_grad for p in projected):
        reason = "it projects the gradients of nn.Linear weights, but this model and method train none"
        raise UsageError(f"train.optimizer={train.optimizer} is not supported: {reason}")
    trained = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    own = trained & {id(p) for p in decayed}
    set_apart(optimizer, own, weight_decay=train.weight_decay)
    set_apart(optimizer, trained - own, weight_decay=0.0)
    if train.head_lr is not None:
        set_apart(optimizer, {id(p) for p in head}, lr=train.head_lr)
    if train.lora_plus is not None:
        set_apart(optimizer, {id(p) for p in factors}, lr=train.lora_plus * (train.lr or 0.0))


def set_apart(optimizer: torch.optim.Optimizer, parameters: Collection[int], **options: float) -> None:
    """Move parameters, given by id, into groups that differ from their old ones only in these options."""
    for group in list(optimizer.param_groups):
        moved = [p for p in group["params"] if id(p) in parameters]
        if moved and any(group.get(key, optimizer.defaults.get(key, 0.0)) != options[key] for key in options):
            group["params"] = [p for p in group["params"] if id(p) not in parameters]
            optimizer.add_param_group(group | {"params": moved, **options})


def allowed(saved: str | Path | IO[bytes], optimizer: torch.optim.Optimizer) -> Any:
    """A context in which `torch.load` accepts classes of the optimizer's own package, such as GaLore's projectors."""
    package = type(optimizer).__module__.partition(".")[0]
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(cast(Any, saved))
    if isinstance(saved, io.IOBase):
        saved.seek(0)
    own = [name.rpartition(".") for name in unknown if name.partition(".")[0] == package]
    return torch.serialization.safe_globals([getattr(importlib.import_module(m), c) for m, _, c in own])
