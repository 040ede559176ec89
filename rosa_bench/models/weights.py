"""Load checkpoint weights into a `transformers` class and account for every tensor.

`from_pretrained` initializes tensors that the checkpoint lacks at random and at most warns. Here a missing backbone
weight is an error; all other renamed, initialized or unused tensors are reported for the record.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers

from rosa_bench.errors import UsageError
from rosa_bench.system.console import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Names that submodule wrappers insert anywhere in a path: torch.compile, FSDP, activation checkpointing, Lightning.
# Wrappers of a whole model (DDP, Lightning, accelerate) add a prefix, which may be any name.
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
NAMED = 3  # maximum number of tensors in a message
LISTED = 8  # maximum number of tensors in a record
Loader = Callable[..., tuple[Any, dict[str, Any]]]


def load_weights(read: Loader, source: str, seed: int) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model that `read` loads, and facts about its weights for the record.

    `read(key_mapping=...)` is `from_pretrained` with `output_loading_info` and `ignore_mismatched_sizes`. Missing
    tensors are initialized from `seed`; so is a task head, even if the checkpoint holds one.

    Raises:
        UsageError: if a backbone weight is missing, has another shape, or is of a kind the class does not use.
    """
    facts: dict[str, Any] = {}

    def attempt(renames: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
        transformers.set_seed(seed)
        model, info = read(key_mapping=dict(renames) or None)
        _forget(model, renames)
        return model, info

    model, info = attempt({})
    renames: dict[str, str] = {}
    if set(info["missing_keys"]) & backbone_names(model):
        renames, stripped = wrappers(model, info, source)
        if renames:
            facts["stripped_prefixes"] = stripped
            model, info = attempt(renames)
    head = set(_names(model)) - backbone_names(model)
    if model.get_output_embeddings() is None and head and not head & set(info["missing_keys"]):
        facts["unused_head"] = sorted(head)
        _draw(model, head, source, seed)
        info = info | {"missing_keys": set(info["missing_keys"]) | head}
    facts |= _check(model, info, source)
    return model, facts


def backbone_names(model: PreTrainedModel) -> set[str]:
    """Names of the base model's tensors, as the model with its head names them."""
    base = model.base_model
    inside = {id(tensor) for tensor in (*base.parameters(), *base.buffers())}
    return {name for name, tensor in _names(model).items() if id(tensor) in inside}


def _names(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Every tensor in a checkpoint of the model, under each of its names."""
    persistent = model.state_dict().keys()
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor for name, tensor in named if name in persistent}


def _draw(model: PreTrainedModel, names: set[str], source: str, seed: int) -> None:
    """Initialize tensors as if the checkpoint lacked them. Raises UsageError if the class does not define how."""
    for name, tensor in [(name, tensor) for name, tensor in _names(model).items() if name in names]:
        torch.nn.init.constant_(tensor, torch.nan)
        tensor._is_hf_initialized = False  # type: ignore[attr-defined]
        parts = name.split(".")
        for end in range(len(parts)):
            model.get_submodule(".".join(parts[:end]))._is_hf_initialized = False  # type: ignore[assignment]
    transformers.set_seed(seed)
    model.initialize_weights()
    if undrawn := [name for name, tensor in _names(model).items() if name in names and tensor.isnan().any()]:
        kind = type(model).__name__
        raise UsageError(f"model {source}: {kind} does not define the initialization of {_some(undrawn)}")


def _forget(model: Any, renames: Mapping[str, str]) -> None:
    """Make the model save its tensors under their own names; `transformers` would restore the checkpoint's names."""
    used = getattr(model, "_weight_conversions", None)
    if used and renames:
        model._weight_conversions = [rule for rule in used if not set(rule.source_patterns) & renames.keys()]


def wrappers(model: PreTrainedModel, info: Mapping[str, Any], source: str) -> tuple[dict[str, str], dict[str, int]]:
    """Patterns that strip wrapper names from a checkpoint's keys, and the number of tensors with each name.

    A prefix counts as a wrapper if the rest of the name is a tensor of the model that is still missing. Raises
    UsageError if two tensors map to the same name.
    """
    names, missing = set(_names(model)), set(info["missing_keys"])
    base = f"{model.base_model_prefix}."
    segments = {part for name in names for part in name.split(".")}
    counts: Counter[str] = Counter()
    prefixes: set[str] = set()
    owners: dict[str, str] = {}
    depth: Counter[str] = Counter()
    for name in sorted(info["unexpected_keys"]):
        parts = name.split(".")
        inner = Counter(part for part in parts if part in INNER_WRAPPERS and part not in segments)
        parts = [part for part in parts if part not in inner]
        for start in range(len(parts)):
            rest = ".".join(parts[start:])
            target = next((t for t in (rest, base + rest, rest.removeprefix(base)) if t in names), None)
            if target is None or (not start and not inner):
                continue
            if target not in missing:
                break  # a second copy, or tied to another tensor
            if other := owners.get(target):
                raise UsageError(
                    f"model {source}: the checkpoint holds {target} twice, as {other} and {name}; keep one of them"
                )
            owners[target] = name
            if start:
                prefixes.add(prefix := ".".join(parts[:start]) + ".")
                counts[prefix] += 1
            for part, times in inner.items():
                counts[f"{part}."] += 1
                depth[part] = max(depth[part], times)
            break
    rules = {}
    for part, times in depth.items():
        for level in range(times):  # a pattern is applied once per name
            rules["(?:" * level + rf"(?:^|(?<=\.)){part}\." + ")" * level] = ""
    rules |= {f"^{re.escape(prefix)}": "" for prefix in sorted(prefixes, key=len, reverse=True)}
    return rules, dict(counts)


def _check(model: PreTrainedModel, info: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Facts about new and unused tensors. Raises UsageError if the backbone does not match the checkpoint."""
    backbone, missing = backbone_names(model), set(info["missing_keys"])
    kind = type(model.base_model).__name__
    reshaped = [(name, *map(tuple, shapes)) for name, *shapes in info["mismatched_keys"] if name in backbone]
    if reshaped:
        name, in_checkpoint, in_config = sorted(reshaped)[0]
        raise UsageError(
            f"model {source}: config.json gives another shape for {counted(len(reshaped), 'weight')} of {kind} "
            f"({name} is {list(in_checkpoint)}, not {list(in_config)}); use the config.json of this checkpoint"
        )
    lacking = missing & backbone
    optional = lacking & optional_names(model) if lacking else set()
    lacking, missing = lacking - optional, missing - optional
    extra = set(info["unexpected_keys"])
    if lacking:
        others = f"; its tensors {_some(extra)} match none of them" if extra else ""
        raise UsageError(
            f"model {source}: the checkpoint lacks {len(lacking)} of {len(backbone)} weights of {kind}: "
            f"{_some(lacking)}{others}. Use a complete checkpoint of this class"
        )
    if foreign := set(_foreign(model, extra)):
        raise UsageError(
            f"model {source}: {kind} has the layers of {_some(foreign)} but does not use these tensors; "
            "merge adapters and dequantize weights before loading"
        )
    is_lm = model.get_output_embeddings() is not None
    head = {name for name in (missing | {name for name, *_ in info["mismatched_keys"]}) if name not in backbone}
    new = sorted(optional | head)
    model.__dict__["newly_initialized"] = sorted(optional | (head if is_lm else set()))
    facts: dict[str, Any] = {"newly_initialized": new} if new else {}
    if extra:
        facts["skipped_tensors"] = {"count": len(extra), "first": sorted(extra)[:LISTED]}
    return facts


def optional_names(model: PreTrainedModel) -> set[str]:
    """Base model tensors that the class's own language model does not use, such as a pooler."""
    for mapping in (transformers.MODEL_FOR_MASKED_LM_MAPPING, transformers.MODEL_FOR_CAUSAL_LM_MAPPING):
        cls: Any = mapping.get(type(model.config), None)
        if cls is None or isinstance(model, cls):
            continue
        with torch.device("meta"):
            sibling = cls(copy.deepcopy(model.config))
        used = set(sibling.base_model.state_dict())
        own_names = {id(t): name for name, t in model.base_model.state_dict(keep_vars=True).items()}
        return {name for name, t in _names(model).items() if id(t) in own_names and own_names[id(t)] not in used}
    return set()


def _foreign(model: PreTrainedModel, names: Iterable[str]) -> Iterator[str]:
    """Unused checkpoint tensors whose module has weights in this model."""
    backbone = backbone_names(model)
    leaves = {name.rpartition(".")[0] for name in backbone}
    base = f"{model.base_model_prefix}."
    for name in names:
        parent = name.rpartition(".")[0]
        if {parent, base + parent} & leaves:
            yield name


def _some(names: Iterable[str]) -> str:
    """The first few names and the number of the rest."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + rest
