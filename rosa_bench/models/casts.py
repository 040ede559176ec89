"""Weights of linear maps in bf16, cast once instead of at every product.

Autocast turns the weight and the bias of each `linear`, `addmm` and `matmul` into bf16 every time it meets them. The
product and its gradients are the same, bit for bit, if the weight was cast before. Only weights that products alone
read are cast: embeddings and norms stay as they are, and so does a trained matrix that is also an embedding.
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

Slot = tuple[dict[str, Any], str]  # the parameters of a module, and the name of one of them


class Casts:
    """Copies of a model's weights in a lower precision, which take their places during a step.

    A copy of a weight that stays as it is, is made once. Copies of others, which train or which a method moves
    (`moved` has their names), are made only with `changing`; they are leaves that collect gradients, and `refresh`
    brings them up to date. With `dtype` None there are no copies.
    """

    def __init__(
        self, model: nn.Module, dtype: torch.dtype | None, moved: Collection[str] = (), changing: bool = False
    ) -> None:
        self.model, self.dtype, self.moved, self.with_changing = model, dtype, moved, changing
        self.make()

    def make(self) -> None:
        """Copy the model's present parameters."""
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
        """All copies."""
        return [*self.fixed.values(), *self.changing.values()]

    @property
    def bytes(self) -> int:
        """Memory of all copies."""
        return sum(t.numel() * t.element_size() for t in self.tensors)

    def leaf(self, parameter: nn.Parameter) -> torch.Tensor:
        """What collects the gradient of a trained parameter where changing copies are in place."""
        return self.changing.get(parameter, parameter)

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the present values of the weights into the changing copies."""
        if self.changing:
            torch._foreach_copy_(list(self.changing.values()), [p.detach() for p in self.changing])

    @contextmanager
    def in_place(self, changing: bool = False) -> Iterator[None]:
        """The model computes with the copies of fixed weights, and with those of changing ones if asked."""
        for (parameters, name), p in self._slots:
            if (copy := self.fixed.get(p)) is not None or (changing and (copy := self.changing.get(p)) is not None):
                parameters[name] = copy
        try:
            yield
        finally:
            for (parameters, name), p in self._slots:
                parameters[name] = p

    def check(self) -> None:
        """Raise RuntimeError if a weight that counted as fixed has other values than its copy."""
        if any(not torch.equal(p.detach().to(copy.dtype), copy) for p, copy in self.fixed.items()):
            raise RuntimeError("a frozen weight changed in training, and its copy in lower precision did not")


def keep_frozen_in_bf16(model: nn.Module, head: Collection[nn.Parameter]) -> None:
    """Keep matrices that products alone read in bf16 and everything else in fp32, the parameters of the head too.

    Training with `train.precision=bf16` computes with the same values as if all were kept in fp32.
    """
    kept = {id(p) for p in head}
    everywhere = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    in_products = Counter(id(p) for p, _ in product_slots(model))
    for p in model.parameters():
        low = p.dim() > 1 and id(p) not in kept and in_products[id(p)] == everywhere[id(p)]
        p.data = p.data.to(torch.bfloat16 if low else torch.float32)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.float()


@contextmanager
def trained_in_fp32(model: PreTrainedModel, moved: Callable[[Any], Collection[str]], method: str) -> Iterator[None]:
    """Around attaching a method: what it adds trains in fp32.

    Raises UsageError if it changes matrices of the backbone that are kept in bf16: they would be rounded at each step.
    """
    before = {id(p) for p in model.parameters()}
    yield
    names = moved(model)
    for name, p in model.named_parameters():
        if p.dtype == torch.bfloat16 and (p.requires_grad or name in names):
            if id(p) in before:
                raise UsageError(f"model.dtype=bf16: method={method} changes weights of the backbone, which need fp32")
            p.data = p.data.float()


def product_slots(model: nn.Module) -> Iterator[tuple[nn.Parameter, Slot]]:
    """Every parameter that a module reads by matrix products alone, with its place.

    These are the parameters of plain linear maps, and those in the tables that a module names in `product_tables`.
    """
    for module in model.modules():
        tables = [getattr(module, name) for name in getattr(module, "product_tables", ())]
        for owner in [module] if type(module) in (nn.Linear, Conv1D) else tables:
            for name, parameter in owner._parameters.items():
                if parameter is not None:
                    yield parameter, (owner._parameters, name)
