"""Applies `peft` tuners to a model in place; the model remains a `transformers` model with adapted modules.

`peft` itself wraps the model and runs the forward pass through the wrapper. Here its tuner only replaces modules. The
tuner is stored outside the model's module tree, for merging and for its work between steps.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rosa_bench.core.method import PeftAdapter
from rosa_bench.models.hashing import tensor_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"  # peft's name for a model's only adapter
SAVED = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # a rank allocator's state per adapted parameter


class AllocatorState(nn.Module):
    """Buffers for a rank allocator's state between steps, so that checkpoints include it.

    The allocator keeps dictionaries of tensors by parameter name and a pattern of the remaining ranks.
    """

    averages: torch.Tensor  # [3, parameters]
    pattern: torch.Tensor  # [ranks]
    known: torch.Tensor  # [2]: whether averages and a pattern exist

    def __init__(self, tuner: Any) -> None:
        super().__init__()
        named = dict(tuner.model.named_parameters())
        self.shapes = {name: p.shape for name, p in named.items() if "lora_" in name and p.requires_grad}
        self.ranks = {name: shape.numel() for name, shape in self.shapes.items() if "lora_E" in name}
        self.register_buffer("averages", torch.zeros(3, sum(shape.numel() for shape in self.shapes.values())))
        self.register_buffer("pattern", torch.zeros(sum(self.ranks.values()), dtype=torch.bool))
        self.register_buffer("known", torch.zeros(2, dtype=torch.bool))

    def give(self, tuner: Any) -> None:
        """Copy the buffers to the allocator."""
        allocator, config = tuner.rankallocator, tuner.peft_config[ADAPTER]
        sizes = [shape.numel() for shape in self.shapes.values()]
        for attribute, row in zip(SAVED, self.averages, strict=True):
            parts = row.clone().split(sizes) if self.known[0] else ()
            sized = zip(self.shapes.items(), parts, strict=False)
            setattr(allocator, attribute, {name: part.view(shape) for (name, shape), part in sized})
        parts = self.pattern.split(list(self.ranks.values()))
        remaining = {name: part.tolist() for name, part in zip(self.ranks, parts, strict=True)}
        config.rank_pattern = remaining if self.known[1] else None

    def take(self, tuner: Any) -> None:
        """Copy the allocator's state to the buffers."""
        allocator, pattern = tuner.rankallocator, tuner.peft_config[ADAPTER].rank_pattern
        self.known.copy_(torch.tensor([bool(allocator.ipt), bool(pattern)]))
        if allocator.ipt:
            rows = [
                torch.cat([getattr(allocator, attribute)[name].flatten() for name in self.shapes])
                for attribute in SAVED
            ]
            self.averages.copy_(torch.stack(rows))
        if pattern:
            self.pattern.copy_(torch.tensor([bit for name in self.ranks for bit in pattern[name]]))


def adapt(model: PreTrainedModel, config: Any) -> None:
    """Let the tuner of a `peft` configuration replace modules of the backbone. Raises whatever `peft` raises."""
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
    """Merge a tuner's adapters into the backbone's weights, in place. Does nothing without a tuner."""
    tuner = model.__dict__.pop("_tuner", None)
    if tuner is not None:
        model.__dict__.pop("_changed")
        tuner.merge_and_unload()
        if hasattr(model, "allocator_state"):
            del model.allocator_state


def changed(model: nn.Module) -> set[str]:
    """Names of frozen parameters whose values `adapt` changed."""
    names: set[str] = model.__dict__.get("_changed", set())
    return names


def tuner_of(model: nn.Module) -> Any:
    """The tuner that `adapt` stored on the model, or None."""
    return model.__dict__.get("_tuner")


def to_peft(model: PreTrainedModel) -> PeftAdapter:
    """Export a tuner's trained tensors as `peft` saves them for the model with its head.

    Ranks that an allocator pruned remain as zeros, since their pattern is not saved.
    """
    from peft import get_peft_model_state_dict

    tuner, prefix = tuner_of(model), model.base_model_prefix
    config = copy.deepcopy(tuner.peft_config[ADAPTER])
    if hasattr(tuner, "rankallocator"):
        config.rank_pattern = None  # otherwise `peft` would truncate tensors by it
    wrapper = nn.Module()  # imitates peft's wrapper to get its tensor names
    wrapper.base_model, wrapper.__dict__["peft_config"] = tuner, {ADAPTER: config}
    tensors = get_peft_model_state_dict(wrapper, adapter_name=ADAPTER, save_embedding_layers=False)
    inside = "base_model.model."
    renamed = {name.replace(inside, f"{inside}{prefix}.", 1): tensor for name, tensor in tensors.items()}
    config.target_modules = sorted(f"{prefix}.{name}" for name in tuner.targeted_module_names)
    if feed_forward := getattr(config, "feedforward_modules", None):
        pattern = feed_forward if isinstance(feed_forward, str) else f".*({'|'.join(map(re.escape, feed_forward))})"
        config.feedforward_modules = [name for name in config.target_modules if re.fullmatch(pattern, name)]
    for name in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if getattr(config, name, None) is not None:
            setattr(config, name, None)
    return PeftAdapter(config, renamed, {f"{prefix}.{name}" for name, _ in model.base_model.named_parameters()})


def split_to_peft(trained: PeftAdapter, start: PeftAdapter) -> PeftAdapter:
    """Return a LoRA of twice the rank that adds `trained` minus `start` to the original, unsplit weight."""
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
    """Yield gradients of the losses that `peft` adds in its wrapper's forward pass or leaves to the training loop."""
    tuner = tuner_of(model)
    loss = _non_orthogonality(tuner) if hasattr(tuner, "rankallocator") else 0.0
    loss = loss + (tuner._get_kasa_loss() if hasattr(tuner, "_get_kasa_loss") else 0.0)
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        return
    trained = [p for p in tuner.model.parameters() if p.requires_grad]
    for p, gradient in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
        if gradient is not None:
            yield p, gradient


def _non_orthogonality(tuner: Any) -> Any:
    """AdaLoRA's regularizer (Zhang et al. 2023, equation 4): the distance of its factors from orthonormal ones."""
    named = [(name, p) for name, p in tuner.model.named_parameters() if "lora_A" in name or "lora_B" in name]
    factors = [p if "lora_A" in name else p.T for name, p in named]
    distances = [torch.linalg.matrix_norm(p @ p.T - torch.eye(len(p), device=p.device)) for p in factors]
    return tuner.peft_config[ADAPTER].orth_reg_weight * sum(distances) / len(distances)


def allocate(model: Any, step: int, skipped: bool) -> None:
    """Update the tuner's allocator, if it has one, after optimizer step `step` (from 1). This may prune ranks.

    A skipped step has no finite gradients to average; the allocator runs only in the final phase, which reads none.
    """
    tuner = tuner_of(model)
    if not hasattr(tuner, "rankallocator"):
        return
    config = tuner.peft_config[ADAPTER]
    if skipped and step < config.total_step - config.tfinal:
        return
    model.allocator_state.give(tuner)
    tuner.update_and_allocate(step)
    model.allocator_state.take(tuner)
