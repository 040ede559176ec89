"""Cached bf16 copies of linear weights.

Autocast converts the weight and bias of each `linear`, `addmm` and `matmul` to bf16 on every call. Casting them once
gives bitwise identical products and gradients. Only weights used solely in matrix products are cast: embeddings, norms
and trained matrices tied to an embedding keep their precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Slot = tuple[dict[str, Any], str]  # a module's parameter dict and the name of one parameter


class Casts:
    """Low-precision copies of a model's weights that replace them during a step.

    Weights that never change are copied once. Weights that train, or that a method modifies (named in `moved`), are
    copied only with `changing=True`; these copies are leaves that accumulate gradients, and `refresh` updates them.
    With `dtype=None` nothing is copied.
    """

    def __init__(
        self, model: nn.Module, dtype: torch.dtype | None, moved: Collection[str] = (), changing: bool = False
    ) -> None:
        self.model, self.dtype, self.moved, self.with_changing = model, dtype, moved, changing
        self.make()

    def make(self) -> None:
        """Copy the model's current parameters."""
        self.fixed: dict[nn.Parameter, torch.Tensor] = {}
        self.changing: dict[nn.Parameter, torch.Tensor] = {}
        self._slots: list[tuple[Slot, nn.Parameter]] = []
        if self.dtype is None:
            return
        moved = {id(p) for name, p in self.model.named_parameters(remove_duplicate=False) if name in self.moved}
        products = list(product_slots(self.model))
        everywhere = Counter(id(p) for module in self.model.modules() for p in module._parameters.values())
        in_products = Counter(id(p) for p, _ in products)
        for p, slot in products:
            changes = p.requires_grad or id(p) in moved
            tied = p.requires_grad and in_products[id(p)] < everywhere[id(p)]
            if p.dtype != torch.float32 or tied or (changes and not self.with_changing):
                continue
            copies = self.changing if changes else self.fixed
            if p not in copies:
                copies[p] = p.detach().to(self.dtype).requires_grad_(p.requires_grad)
            self._slots.append((slot, p))

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [*self.fixed.values(), *self.changing.values()]

    @property
    def bytes(self) -> int:
        """Memory of all copies in bytes."""
        return sum(t.numel() * t.element_size() for t in self.tensors)

    def leaf(self, parameter: nn.Parameter) -> torch.Tensor:
        """The tensor that accumulates the gradient of a trained parameter: its changing copy, else the parameter."""
        return self.changing.get(parameter, parameter)

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the current weights into the changing copies."""
        if self.changing:
            torch._foreach_copy_(list(self.changing.values()), [p.detach() for p in self.changing])

    @contextmanager
    def in_place(self, changing: bool = False) -> Iterator[None]:
        """Swap in the copies of fixed weights, and of changing weights if `changing` is set."""
        for (parameters, name), p in self._slots:
            if (copy := self.fixed.get(p)) is not None or (changing and (copy := self.changing.get(p)) is not None):
                parameters[name] = copy
        try:
            yield
        finally:
            for (parameters, name), p in self._slots:
                parameters[name] = p

    def check(self) -> None:
        """Raise RuntimeError if a weight assumed fixed no longer equals its copy."""
        if any(not torch.equal(p.detach().to(copy.dtype), copy) for p, copy in self.fixed.items()):
            raise RuntimeError("a frozen weight changed during training, but its low-precision copy did not")


def keep_frozen_in_bf16(model: nn.Module, head: Collection[nn.Parameter]) -> None:
    """Keep matrices used only in products in bf16, and all other parameters, including the head's, in fp32.

    Training with `train.precision=bf16` computes the same values as with all parameters in fp32.
    """
    head_ids = {id(p) for p in head}
    everywhere = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    in_products = Counter(id(p) for p, _ in product_slots(model))
    for p in model.parameters():
        low = p.dim() > 1 and id(p) not in head_ids and in_products[id(p)] == everywhere[id(p)]
        p.data = p.data.to(torch.bfloat16 if low else torch.float32)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.float()


@contextmanager
def trained_in_fp32(model: PreTrainedModel, moved: Callable[[Any], Collection[str]], method: str) -> Iterator[None]:
    """Wrap attaching a method so that the parameters it adds train in fp32.

    Raises UsageError if the method modifies backbone matrices kept in bf16, which would be rounded at each step.
    """
    before = {id(p) for p in model.parameters()}
    yield
    names = moved(model)
    for name, p in model.named_parameters():
        if p.dtype == torch.bfloat16 and (p.requires_grad or name in names):
            if id(p) in before:
                raise UsageError(f"model.dtype=bf16 is not supported: method={method} changes weights of the backbone")
            p.data = p.data.float()


def product_slots(model: nn.Module) -> Iterator[tuple[nn.Parameter, Slot]]:
    """Yield every parameter that a module uses only in matrix products, with its slot.

    These are the parameters of plain linear layers and those in the tables that a module lists in `product_tables`.
    """
    for module in model.modules():
        tables = [getattr(module, name) for name in getattr(module, "product_tables", ())]
        for owner in [module] if type(module) in (nn.Linear, Conv1D) else tables:
            for name, parameter in owner._parameters.items():
                if parameter is not None:
                    yield parameter, (owner._parameters, name)
