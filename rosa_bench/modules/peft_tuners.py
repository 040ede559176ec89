"""`peft` tuners put into a model in place: it stays the `transformers` model it was, with adapted modules inside.

`peft` itself would wrap the model and run the forward pass through the wrapper. Here its tuner only exchanges modules;
it stays beside the model, out of its module tree, for merging and for what it does between steps.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import nn

from rosa_bench.core.method import PeftAdapter
from rosa_bench.models.hashing import tensor_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"  # the name that peft gives to the one adapter a model has here
KEPT = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what a rank allocator holds per adapted parameter


class AllocatorState(nn.Module):
    """Buffers for what a rank allocator knows between two steps, so that checkpoints hold it.

    The allocator keeps dictionaries of tensors by parameter name, and a pattern of the ranks that are left.
    """

    averages: torch.Tensor  # [3, parameters]
    pattern: torch.Tensor  # [ranks]
    known: torch.Tensor  # [2]: whether there are averages, and a pattern

    def __init__(self, tuner: Any) -> None:
        super().__init__()
        named = dict(tuner.model.named_parameters())
        self.shapes = {name: p.shape for name, p in named.items() if "lora_" in name and p.requires_grad}
        self.ranks = {name: shape.numel() for name, shape in self.shapes.items() if "lora_E" in name}
        self.register_buffer("averages", torch.zeros(3, sum(shape.numel() for shape in self.shapes.values())))
        self.register_buffer("pattern", torch.zeros(sum(self.ranks.values()), dtype=torch.bool))
        self.register_buffer("known", torch.zeros(2, dtype=torch.bool))

    def give(self, tuner: Any) -> None:
        """Hand the allocator what the buffers hold."""
        allocator, config = tuner.rankallocator, tuner.peft_config[ADAPTER]
        sizes = [shape.numel() for shape in self.shapes.values()]
        for kept, row in zip(KEPT, self.averages, strict=True):
            parts = row.clone().split(sizes) if self.known[0] else ()
            filled = zip(self.shapes.items(), parts, strict=False)
            setattr(allocator, kept, {name: part.view(shape) for (name, shape), part in filled})
        parts = self.pattern.split(list(self.ranks.values()))
        left = {name: part.tolist() for name, part in zip(self.ranks, parts, strict=True)}
        config.rank_pattern = left if self.known[1] else None

    def take(self, tuner: Any) -> None:
        """Copy what the allocator holds into the buffers."""
        allocator, pattern = tuner.rankallocator, tuner.peft_config[ADAPTER].rank_pattern
        self.known.copy_(torch.tensor([bool(allocator.ipt), bool(pattern)]))
        if allocator.ipt:
            rows = [torch.cat([getattr(allocator, kept)[name].flatten() for name in self.shapes]) for kept in KEPT]
            self.averages.copy_(torch.stack(rows))
        if pattern:
            self.pattern.copy_(torch.tensor([bit for name in self.ranks for bit in pattern[name]]))


def adapt(model: PreTrainedModel, config: Any) -> None:
    """Let the tuner of a `peft` configuration exchange modules of the backbone. Raises whatever `peft` raises."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    before = {id(p): tensor_hash({"": p}) for p in model.base_model.parameters()}
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model.base_model, config, ADAPTER)
    model.__dict__["_tuner"] = tuner
    model.__dict__["_changed"] = {
        f"{model.base_model_prefix}.{name}"
        for name, p in model.base_model.named_parameters()
        if not p.requires_grad and before.get(id(p)) != tensor_hash({"": p})
    }
    if hasattr(tuner, "rankallocator"):
        model.allocator_state = AllocatorState(tuner)


def fold(model: Any) -> None:
    """Merge what a tuner added into the backbone's weights, in place; nothing where there is no tuner."""
    tuner = model.__dict__.pop("_tuner", None)
    if tuner is not None:
        model.__dict__.pop("_changed")
        tuner.merge_and_unload()
        if hasattr(model, "allocator_state"):
            del model.allocator_state


def changed(model: nn.Module) -> set[str]:
    """Names of frozen parameters that attaching gave other values than the backbone's."""
    names: set[str] = model.__dict__.get("_changed", set())
    return names


def tuner_of(model: nn.Module) -> Any:
    """The tuner that `adapt` left beside the model; None if there is none."""
    return model.__dict__.get("_tuner")


def to_peft(model: PreTrainedModel) -> PeftAdapter:
    """What a model's tuner trained, as `peft` saves it for the model with its head.

    Ranks that an allocator has taken away stay, at zero: their pattern is not saved.
    """
    from peft import get_peft_model_state_dict

    tuner, prefix = tuner_of(model), model.base_model_prefix
    whole = nn.Module()  # a wrapper as `peft` names it
    whole.base_model, whole.__dict__["peft_config"] = tuner, tuner.peft_config
    with _without_pattern(tuner):
        config = copy.deepcopy(tuner.peft_config[ADAPTER])
        tensors = get_peft_model_state_dict(whole, adapter_name=ADAPTER, save_embedding_layers=False)
    inside = "base_model.model."
    named = {name.replace(inside, f"{inside}{prefix}.", 1): tensor for name, tensor in tensors.items()}
    config.target_modules = sorted(f"{prefix}.{name}" for name in tuner.targeted_module_names)
    if wanted := getattr(config, "feedforward_modules", None):
        pattern = wanted if isinstance(wanted, str) else f".*({'|'.join(map(re.escape, wanted))})"
        config.feedforward_modules = [name for name in config.target_modules if re.fullmatch(pattern, name)]
    for name in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if getattr(config, name, None) is not None:
            setattr(config, name, None)
    return PeftAdapter(config, named, {f"{prefix}.{name}" for name, _ in model.base_model.named_parameters()})


@contextmanager
def _without_pattern(tuner: Any) -> Iterator[None]:
    """Without the pattern of ranks that an allocator has left, by which `peft` would cut tensors."""
    config = tuner.peft_config[ADAPTER]
    pattern = getattr(config, "rank_pattern", None) if hasattr(tuner, "rankallocator") else None
    if pattern is not None:
        config.rank_pattern = None
    try:
        yield
    finally:
        if pattern is not None:
            config.rank_pattern = pattern


def split_to_peft(trained: PeftAdapter, start: PeftAdapter) -> PeftAdapter:
    """A LoRA of twice the rank that adds to the whole weight what `trained` adds to the rest that `start` left."""
    config = copy.deepcopy(trained.config)
    tensors = {}
    for name, tensor in trained.tensors.items():
        before = start.tensors[name]
        if ".lora_A." in name:
            tensors[name] = torch.cat([tensor, before.to(tensor.device)])
        elif ".lora_B." in name:
            tensors[name] = torch.cat([tensor, -before.to(tensor.device)], dim=1)
        else:
            tensors[name] = tensor
    factor = math.sqrt(2) if config.use_rslora else 2
    config.init_lora_weights = True
    config.r, config.lora_alpha = 2 * config.r, factor * config.lora_alpha
    config.rank_pattern = {name: 2 * rank for name, rank in config.rank_pattern.items()}
    config.alpha_pattern = {name: factor * alpha for name, alpha in config.alpha_pattern.items()}
    return PeftAdapter(config, tensors, trained.covered)


def penalty_gradients(model: nn.Module) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
    """Gradients of what a model's tuner adds to a loss, such as a regulariser of its factors; none without a tuner."""
    tuner = tuner_of(model)
    loss = None if tuner is None else _penalty(tuner)
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        return
    trained = [p for p in tuner.model.parameters() if p.requires_grad]
    for p, gradient in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
        if gradient is not None:
            yield p, gradient


def _penalty(tuner: Any) -> Any:
    """What the tuner's own forward pass adds to a loss, and what `peft` leaves to the training loop to add."""
    outputs = SimpleNamespace(loss=0.0)
    if hasattr(tuner, "rankallocator"):
        outputs.loss = torch.zeros((), device=tuner.model.device)
        with mock.patch.object(tuner.model, "forward", lambda *_, **__: outputs):
            tuner()
    return outputs.loss + (tuner._get_kasa_loss() if hasattr(tuner, "_get_kasa_loss") else 0.0)


def allocate(model: Any, step: int) -> None:
    """What the tuner does after an update, of which `step` counts from 1: it may take ranks away."""
    tuner = tuner_of(model)
    model.allocator_state.give(tuner)
    tuner.update_and_allocate(step)
    model.allocator_state.take(tuner)
