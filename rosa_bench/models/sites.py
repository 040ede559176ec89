"""Where a backbone's weights are, by role. Shapes: I inputs, O outputs.

`nn.Linear` keeps its weight as [O, I], GPT-2's `Conv1D` as [I, O], and GPT-2 fuses query, key and value into one
`c_attn`. A `Site` makes them look alike: a slice of outputs of one module, with its weight seen as [I, O].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rosa_bench.core.schema import Bias
from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Role = Literal["q", "k", "v", "o", "ffn_in", "ffn_out"]
ROLES: tuple[Role, ...] = ("q", "k", "v", "o", "ffn_in", "ffn_out")

# The last parts of a module's dotted name, and the roles its outputs have. Longest match wins.
NAMES: dict[str, tuple[Role, ...]] = {
    # BERT, RoBERTa
    "attention.self.query": ("q",),
    "attention.self.key": ("k",),
    "attention.self.value": ("v",),
    "attention.output.dense": ("o",),
    "intermediate.dense": ("ffn_in",),
    "output.dense": ("ffn_out",),
    # GPT-2
    "attn.c_attn": ("q", "k", "v"),
    "attn.c_proj": ("o",),
    "mlp.c_fc": ("ffn_in",),
    "mlp.c_proj": ("ffn_out",),
    # Llama and its kin; OPT, BART
    "q_proj": ("q",),
    "k_proj": ("k",),
    "v_proj": ("v",),
    "o_proj": ("o",),
    "self_attn.out_proj": ("o",),
    "encoder_attn.out_proj": ("o",),
    "gate_proj": ("ffn_in",),
    "up_proj": ("ffn_in",),
    "down_proj": ("ffn_out",),
    "fc1": ("ffn_in",),
    "fc2": ("ffn_out",),
}


@dataclass(frozen=True)
class Site:
    """One weight to adapt: outputs `start:stop` of the module called `name`."""

    name: str
    role: Role
    start: int
    stop: int

    @property
    def label(self) -> str:
        """A name for records and checkpoints, unique in a model."""
        return f"{self.name}:{self.role}"


def roles_of(name: str) -> tuple[Role, ...]:
    """The roles of a module by its dotted name; none if it is not part of a transformer layer."""
    matches = [ending for ending in NAMES if name.endswith(f".{ending}")]
    return NAMES[max(matches, key=len)] if matches else ()


def features(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear map, whichever way round its weight is stored."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    rows, columns = weight.shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


def weight_IO(module: nn.Module) -> torch.Tensor:
    """The module's weight as [I, O]: a view, so writing to it writes to the module."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight if isinstance(module, Conv1D) else weight.T


def find_sites(model: PreTrainedModel, targets: Iterable[str]) -> list[Site]:
    """The weights of the wanted roles, in the model's own order. `targets` are roles, or `all`.

    Raises:
        UsageError: if the model has no weight of a wanted role; names the roles it has.
    """
    everything = "all" in targets or getattr(model, "every_target", False)
    wanted: set[str] = set(ROLES) if everything else set(targets)
    sites: list[Site] = []
    seen: set[Role] = set()
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, Conv1D)):
            continue
        roles = roles_of(name)
        seen.update(roles)
        width = features(module)[1] // max(1, len(roles))
        sites += [Site(name, role, i * width, (i + 1) * width) for i, role in enumerate(roles) if role in wanted]
    missing = set() if everything and seen else wanted - seen
    if missing:
        have = ", ".join(role for role in ROLES if role in seen) or "none that is known"
        raise UsageError(
            f"{type(model).__name__} has no weight of role {', '.join(sorted(missing))}; roles it has: {have}"
        )
    return sites


def task_head(model: PreTrainedModel) -> list[nn.Parameter]:
    """What `transformers` adds to the base model for a task, of a model without a method; none of a language model's.

    Adapters that a method puts beside the base model would be taken for a head afterwards.
    """
    base = {id(parameter) for parameter in model.base_model.parameters()}
    is_lm = model.get_output_embeddings() is not None
    return [parameter for parameter in model.parameters() if not is_lm and id(parameter) not in base]


def freeze_backbone(model: PreTrainedModel, train_head: bool, bias: Bias = "none", adapted: Iterable[str] = ()) -> None:
    """Freeze every parameter but the task head's (what `transformers` adds to the base model for classification).

    `bias` also lets biases train: those of the modules named in `adapted`, or all.
    """
    base = {id(parameter) for parameter in model.base_model.parameters()}
    model.requires_grad_(False)
    for parameter in task_head(model):
        parameter.requires_grad_(train_head)
    wanted = {f"{name}.bias" for name in adapted}
    for name, parameter in model.named_parameters():
        inside = name.endswith(".bias") and id(parameter) in base
        if inside and (bias == "all" or (bias == "adapted" and name in wanted)):
            parameter.requires_grad_(True)
