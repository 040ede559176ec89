"""Locate a backbone's weights by role. Shapes: I inputs, O outputs.

`nn.Linear` stores its weight as [O, I], GPT-2's `Conv1D` as [I, O], and many models compute query, key and value in one
fused layer, stacked or interleaved by head. A `Site` hides these differences. It stands for some of the outputs of one
linear layer and gives their weight as [I, O].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rosa_bench.core.schema import Bias
from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Role = Literal["q", "k", "v", "o", "ffn_in", "ffn_out", "other", "qkv"]  # qkv: a fused layer as one matrix
ROLES: tuple[Role, ...] = ("q", "k", "v", "o", "ffn_in", "ffn_out")  # valid in `targets`; `all` adds other layers

# Roles of layers with a single role, by the last parts of their dotted names. The longest match wins.
NAMES: dict[str, Role] = {
    # BERT, RoBERTa, ELECTRA, ESM, Longformer
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "o",
    "intermediate.dense": "ffn_in",
    "output.dense": "ffn_out",
    # DeBERTa-v2
    "attention.self.query_proj": "q",
    "attention.self.key_proj": "k",
    "attention.self.value_proj": "v",
    # MPNet
    "attention.attn.q": "q",
    "attention.attn.k": "k",
    "attention.attn.v": "v",
    "attention.attn.o": "o",
    # ALBERT
    "attention.query": "q",
    "attention.key": "k",
    "attention.value": "v",
    "attention.dense": "o",
    "ffn": "ffn_in",
    "ffn_output": "ffn_out",
    # DistilBERT, XLM
    "q_lin": "q",
    "k_lin": "k",
    "v_lin": "v",
    "out_lin": "o",
    "lin1": "ffn_in",
    "lin2": "ffn_out",
    # GPT-2, GPT-Neo, StarCoder2
    "attn.c_proj": "o",
    "mlp.c_fc": "ffn_in",
    "mlp.c_proj": "ffn_out",
    # GPT-NeoX (its attention.dense is above), BLOOM, Falcon, Persimmon, Phi
    "self_attention.dense": "o",
    "self_attn.dense": "o",
    "dense_h_to_4h": "ffn_in",
    "dense_4h_to_h": "ffn_out",
    # Llama and its relatives, Phi-3, GLM; OPT, BART, GPT-J, CodeGen, MPT
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "attn.out_proj": "o",
    "self_attn.out_proj": "o",
    "encoder_attn.out_proj": "o",
    "attn.attention.out_proj": "o",
    "gate_proj": "ffn_in",
    "up_proj": "ffn_in",
    "gate_up_proj": "ffn_in",
    "down_proj": "ffn_out",
    "fc1": "ffn_in",
    "fc2": "ffn_out",
    "fc_in": "ffn_in",
    "fc_out": "ffn_out",
    # CTRL
    "multi_head_attention.Wq": "q",
    "multi_head_attention.Wk": "k",
    "multi_head_attention.Wv": "v",
    "multi_head_attention.dense": "o",
    # MobileBERT, whose bottleneck layers have attention-like names
    "bottleneck.attention.dense": "other",
    # ModernBERT
    "attn.Wo": "o",
    "mlp.Wi": "ffn_in",
    "mlp.Wo": "ffn_out",
}


class Heads(NamedTuple):
    """Attention heads of a layer."""

    query: int
    key_value: int
    size: int


class Layout(NamedTuple):
    """Output layout of a fused layer: `groups` repetitions of the parts in order, each a role and a width."""

    groups: int
    parts: tuple[tuple[Role, int], ...]


def _stacked(heads: Heads) -> Layout:
    """All queries, then all keys, then all values."""
    kv = heads.key_value * heads.size
    return Layout(1, (("q", heads.query * heads.size), ("k", kv), ("v", kv)))


def _by_head(heads: Heads) -> Layout:
    """For each key-value head: its queries, its key, its value."""
    queries = heads.query // heads.key_value * heads.size
    return Layout(heads.key_value, (("q", queries), ("k", heads.size), ("v", heads.size)))


def _quarters(heads: Heads) -> Layout:
    """Four blocks of queries, values and keys (CodeGen was trained on four TPU cores)."""
    width = heads.query * heads.size // 4
    return Layout(4, (("q", width), ("v", width), ("k", width)))


def _gated(heads: Heads) -> Layout:
    """For each head: its query and its output gate."""
    return Layout(heads.query, (("q", heads.size), ("other", heads.size)))


# Fused layers: model types, the last part of the layer's name, and its output layout, which follows the
# `transformers` classes.
FUSED: tuple[tuple[tuple[str, ...], str, Callable[[Heads], Layout]], ...] = (
    (("gpt2", "openai-gpt"), "attn.c_attn", _stacked),
    (("phi3",), "qkv_proj", _stacked),
    (("modernbert", "mpt"), "attn.Wqkv", _stacked),
    (("gpt_neox", "gpt_neox_japanese", "bloom", "falcon", "persimmon"), "query_key_value", _by_head),
    (("gpt_bigcode",), "attn.c_attn", _by_head),
    (("deberta",), "attention.self.in_proj", _by_head),
    (("codegen",), "attn.qkv_proj", _quarters),
    (("qwen3_next",), "self_attn.q_proj", _gated),
)
SAME_PRODUCT = {"FalconLinear"}  # nn.Linear subclasses that compute the same product
BIASES = (".bias", ".q_bias", ".v_bias")  # name endings; DeBERTa has separate biases for queries and values
FUSED_NAME = re.compile(r"qkv|query_key_value|c_attn|kv_?proj|q_?k_?v|W_pack", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One weight to adapt: outputs `start:stop` of each of the `groups` of the module `name`."""

    name: str
    role: Role
    start: int
    stop: int
    groups: int = 1

    @property
    def label(self) -> str:
        """Name in records and checkpoints, unique within a model."""
        return f"{self.name}:{self.role}"

    @property
    def width(self) -> int:
        """Number of outputs."""
        return self.groups * (self.stop - self.start)

    def take(self, values: torch.Tensor) -> torch.Tensor:
        """Select the site's part [..., width] of the module's outputs [..., O]; a view if contiguous."""
        if self.groups == 1:
            return values[..., self.start : self.stop]
        part: torch.Tensor = values.unflatten(-1, (self.groups, -1))[..., self.start : self.stop].flatten(-2)
        return part

    def put(self, values: torch.Tensor, part: torch.Tensor) -> None:
        """Write the site's part [..., width] into the module's outputs [..., O] in place."""
        if self.groups > 1:
            values, part = values.unflatten(-1, (self.groups, -1)), part.unflatten(-1, (self.groups, -1))
        values[..., self.start : self.stop].copy_(part)

    def spread(self, part: torch.Tensor, outputs: int) -> torch.Tensor:
        """Scatter the site's part [..., width] into zeros of shape [..., O] with O = `outputs`."""
        if self.width == outputs:
            return part
        if self.groups == 1:
            return nn.functional.pad(part, (self.start, outputs - self.stop))
        grouped = part.unflatten(-1, (self.groups, -1))
        padded = nn.functional.pad(grouped, (self.start, outputs // self.groups - self.stop))
        return padded.flatten(-2)


def features(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, for either weight layout."""
    inputs, outputs = weight_IO(module).shape
    return inputs, outputs


def weight_IO(module: nn.Module) -> torch.Tensor:
    """The module's weight as an [I, O] view: writing to it changes the module."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight if isinstance(module, Conv1D) else weight.T


def find_sites(model: PreTrainedModel, targets: Iterable[str]) -> list[Site]:
    """Find the weights of the target roles, in model order. `targets` are roles or `all`.

    `all` selects every linear map in the layers, whatever its role; a fused layer of unknown layout is one site.

    Raises:
        UsageError: if the model has no weight of a target role, or has it in a fused layer of unknown layout.
    """
    everything = "all" in targets or getattr(model, "every_target", False)
    target_roles: set[str] = {*ROLES, "other"} if everything else set(targets)
    sites: list[Site] = []
    present: set[tuple[str, Role]] = set()  # attention or feed-forward module, role
    unknown: list[str] = []
    for name, module in _linear_maps(model):
        layout = _layout(model, name, module)
        if layout is None:
            unknown.append(name)
            layout = Layout(1, (("other", features(module)[1]),))
        start = 0
        for role, width in layout.parts:
            if role in target_roles and (role != "other" or _in_layers(name)):
                sites.append(Site(name, role, start, start + width, layout.groups))
            present.add((name.rpartition(".")[0], role))
            start += width
    cls = type(model).__name__
    if everything:
        if not sites:
            raise UsageError(f"{cls} has no linear maps in its layers; {_by_name('MODULE')}")
        return sites
    for name in unknown:
        if any((name.rpartition(".")[0], role) not in present for role in target_roles & {"q", "k", "v"}):
            raise UsageError(f"{cls} fuses projections in {name} in an unknown layout; {_by_name(name)}")
    if missing := sorted(target_roles - {role for _, role in present}):
        available = ", ".join(role for role in ROLES if any(role == r for _, r in present)) or "none"
        raise UsageError(
            f"{cls} has no weight of role {', '.join(missing)}; available roles: {available}; {_by_name('MODULE')}"
        )
    return sites


def fuse(model: PreTrainedModel, sites: Iterable[Site]) -> list[Site]:
    """Join the sites of each fused query-key-value layer into one site that covers its whole weight.

    Raises:
        UsageError: if no site belongs to such a layer, or only some of its three parts are present.
    """
    joined: list[Site] = []
    parts: dict[str, set[Role]] = {}
    for site in sites:
        layout = _layout(model, site.name, module := model.get_submodule(site.name))
        if layout is None or {role for role, _ in layout.parts} != {"q", "k", "v"}:
            joined.append(site)
            continue
        if site.name not in parts:
            joined.append(Site(site.name, "qkv", 0, features(module)[1]))
        parts.setdefault(site.name, set()).add(site.role)
    cls = type(model).__name__
    if not parts:
        raise UsageError(f"method.fused=true: no target of {cls} is part of a fused map of q, k and v; use fused=false")
    for name, roles in parts.items():
        if missing := ", ".join(sorted({"q", "k", "v"} - roles)):
            raise UsageError(f"method.fused=true: {name} of {cls} holds q, k and v; add {missing} to method.targets")
    return joined


def _by_name(module: str) -> str:
    return (
        "adapt whole modules by name with "
        f"method=peft method.type=LORA method.config.target_modules=[{module.rpartition('.')[2]}]"
    )


def skipped_weights(model: PreTrainedModel, sites: Iterable[Site]) -> dict[str, int]:
    """Count the matrices in the layers that no site covers, except embeddings, by name with `*` for numbers.

    Examples are mixture-of-experts weights, stored as one 3-D tensor, and convolutions.
    """
    adapted = {f"{site.name}.weight" for site in sites}
    counts: dict[str, int] = {}
    prefix, base = _base(model)
    for name, parameter in base.named_parameters(prefix=prefix):
        owner = model.get_submodule(name.rpartition(".")[0])
        if parameter.ndim < 2 or name in adapted or not _in_layers(name) or isinstance(owner, nn.Embedding):
            continue
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
        counts[pattern] = counts.get(pattern, 0) + 1
    return counts


def _linear_maps(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield every linear layer of the backbone with its name; skips subclasses that compute another product."""
    prefix, base = _base(model)
    for name, module in base.named_modules(prefix=prefix):
        if type(module) in (nn.Linear, Conv1D) or type(module).__name__ in SAME_PRODUCT:
            yield name, module


def _base(model: PreTrainedModel) -> tuple[str, nn.Module]:
    """The base model and its name within the model, which is empty if they are the same."""
    base = getattr(model, "base_model", model)
    return next((name, module) for name, module in model.named_modules() if module is base)


def _in_layers(name: str) -> bool:
    """Whether a module is in a list of layers: a part of its name is a number."""
    return any(part.isdigit() for part in name.split("."))


def _layout(model: PreTrainedModel, name: str, module: nn.Module) -> Layout | None:
    """Output layout of a linear layer; None if it is fused in an unknown way."""
    outputs, config = features(module)[1], getattr(model, "config", None)
    heads = _heads(config, model.get_submodule(name.rpartition(".")[0]))
    for kinds, ending, layout in FUSED:
        if getattr(config, "model_type", None) in kinds and name.endswith(f".{ending}"):
            fused = layout(heads) if heads is not None else Layout(1, ())
            return fused if fused.groups * sum(width for _, width in fused.parts) == outputs else None
    role = role_of(name)
    if heads is not None and role in ("q", "k", "v"):
        expected = (heads.query if role == "q" else heads.key_value) * heads.size
        return Layout(1, ((role, outputs),)) if outputs == expected else None
    if role is None and FUSED_NAME.search(name.rpartition(".")[2]):
        return None
    return Layout(1, ((role or "other", outputs),))


def role_of(name: str) -> Role | None:
    """Role of a module by its dotted name; None if the name is unknown."""
    matches = [ending for ending in NAMES if name.endswith(f".{ending}")]
    return NAMES[max(matches, key=len)] if matches else None


def _heads(config: Any, attention: nn.Module) -> Heads | None:
    """Heads of an attention module, from its own attributes, else from the configuration; None if neither has them."""

    def number(*names: str) -> int | None:
        for holder in (attention, config):
            for name in names:
                value = getattr(holder, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return None

    query = number("num_heads", "num_attention_heads", "n_heads", "n_head")
    width = number("hidden_size")
    size = number("qk_head_dim", "head_dim", "attention_head_size", "head_size") or (
        width // query if width and query else None
    )
    if query is None or size is None:
        return None
    key_value = number("kv_heads", "num_key_value_heads", "num_kv_heads") or query
    return Heads(query, key_value, size)


def task_head(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters that `transformers` adds to the base model for a task; empty for a language model.

    Includes a pooler or output layer that the checkpoint lacks and that was initialized at random. Call this before
    attaching a method, since adapters outside the base model would count as part of the head.
    """
    base = {id(parameter) for parameter in model.base_model.parameters()}
    is_lm = model.get_output_embeddings() is not None
    new = set(model.__dict__.get("newly_initialized", ()))
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name in new or (not is_lm and id(parameter) not in base)
    ]


def freeze_backbone(model: PreTrainedModel, train_head: bool, bias: Bias = "none", adapted: Iterable[str] = ()) -> None:
    """Freeze all parameters, except the task head (added by `transformers` for classification) if `train_head`.

    `bias` selects backbone biases that train too: those of the modules named in `adapted`, or all.
    """
    base = {id(parameter) for parameter in model.base_model.parameters()}
    model.requires_grad_(False)
    for parameter in task_head(model):
        parameter.requires_grad_(train_head)
    adapted_biases = {f"{name}.bias" for name in adapted}
    for name, parameter in model.named_parameters():
        inside = name.endswith(BIASES) and id(parameter) in base
        if inside and (bias == "all" or (bias == "adapted" and name in adapted_biases)):
            parameter.requires_grad_(True)
