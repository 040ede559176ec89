"""Probe how a loaded model handles positions, token types and padding by running it on two short texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rosa_bench.errors import UsageError, first_line
from rosa_bench.models.evaluation_mode import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNREAD = [11, 7, 13, 8, 12]  # arbitrary token ids
TOLERANCE = 1e-4  # relative to the largest logit: fp32 rounding is below 1e-5, padding read as text above 1e-3
ROUNDINGS = 16  # minimum tolerance in units of the dtype's epsilon, for bf16 weights


@dataclass(frozen=True)
class Traits:
    """How a model class reads its inputs."""

    positions: int | None = None  # maximum length by its position embeddings; None: no known limit
    first_position: int = 0  # first value of its `position_ids`
    from_padding: bool = False  # whether positions are counted from its padding index
    token_types: int = 0  # number of `token_type_ids` values; 0: unused


def traits_of(model: PreTrainedModel) -> Traits:
    """Traits found by `probe` at load time, or determined now for a model loaded elsewhere."""
    if "traits" not in model.__dict__:
        with evaluation_mode(model):
            model.__dict__["traits"] = _traits(model, UNREAD)
    traits: Traits = model.__dict__["traits"]
    return traits


class Lookups(TorchDispatchMode):
    """Record every embedding lookup (weight, indices, padding index) of a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record the arguments of an embedding lookup."""
        if func is torch.ops.aten.embedding.default:
            self.calls.append((args[0], args[1], args[2] if len(args) > 2 else -1))
        return func(*args, **(kwargs or {}))


def probe(model: PreTrainedModel, short: Sequence[int], long: Sequence[int], pad_id: int, source: str) -> Traits:
    """Run the model on a short and a long text, alone and padded, and return its traits.

    `short` is a prefix of `long` for a language model. Both have at least three tokens.

    Raises:
        UsageError: if the model cannot read the texts, padding changes its outputs, or a decoder is not causal.
    """
    name = type(model).__name__
    accepted = inspect.signature(model.forward).parameters
    if "attention_mask" not in accepted:
        raise UsageError(
            f"model {source}: {name} takes no attention_mask, so padding would change its outputs; use another model"
        )
    with evaluation_mode(model):
        try:
            traits = _traits(model, list(long))
            _check_padding(model, list(short), list(long), pad_id, source)
        except UsageError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"model {source}: {name} cannot read a text ({reason})") from error
    model.__dict__["traits"] = traits
    return traits


def max_length(model: PreTrainedModel, length: int, extra: int = 0) -> int:
    """Maximum sequence length in tokens: `length`, or less if the position embeddings end earlier.

    `extra` positions are reserved. Raises UsageError if they leave no room.
    """
    positions = traits_of(model).positions
    if positions is None:
        return length
    if extra >= positions:
        raise UsageError(f"{extra} virtual tokens leave no room among the model's {positions} positions")
    return min(length, positions - extra)


def _traits(model: PreTrainedModel, ids: list[int]) -> Traits:
    """Traits from the embedding lookups of the base model for one text."""
    base: Any = model.base_model
    takes_types = "token_type_ids" in inspect.signature(base.forward).parameters
    first_values: dict[int, int | None] = {}

    def note(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], torch.Tensor):
            first_values[id(module)] = _start(args[0], len(ids))

    hooks = [m.register_forward_pre_hook(note) for m in base.modules() if hasattr(m, "weight")]
    device = model.device
    inputs = {
        "input_ids": torch.tensor([ids], device=device),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long, device=device),
    }
    zeros = torch.zeros_like(inputs["input_ids"])
    try:
        with Lookups() as lookups:
            plain = base(**inputs, **({"token_type_ids": zeros} if takes_types else {}))[0]
    finally:
        for hook in hooks:
            hook.remove()
    types = 0
    if takes_types:
        rows = _token_types(model, lookups, len(ids))
        if rows is None:  # no table: the model may compare token types with each other
            mixed = torch.arange(len(ids), device=device)[None] % 2
            changed = not torch.equal(base(**inputs, token_type_ids=mixed)[0], plain)
            rows = int(getattr(model.config, "type_vocab_size", None) or 2) if changed else 0
        types = rows
    limits = []
    for weight, indices, padding in lookups.calls:
        start = _start(indices, len(ids))
        if start is not None:
            module = next((m for m in model.modules() if getattr(m, "weight", None) is weight), None)
            passed = first_values.get(id(module)) if module is not None else start
            limits.append((len(weight) - start, passed or 0, padding >= 0 and padding == start - 1))
    if limits:
        return Traits(*min(limits, key=lambda limit: limit[0]), types)
    config = model.config.get_text_config()
    values = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    lengths = [int(value) for value in values if isinstance(value, int) and value > 0]
    return Traits(lengths[0] if lengths else None, token_types=types)


def _start(indices: torch.Tensor, count: int) -> int | None:
    """The first of `count` consecutive indices looked up for one text; None if they are not consecutive."""
    if indices.dtype not in (torch.long, torch.int) or indices.dim() > 2 or (indices.dim() == 2 and len(indices) > 1):
        return None
    row = indices.flatten()[:count].tolist()
    return row[0] if len(row) == count and row == list(range(row[0], row[0] + count)) else None


def _token_types(model: PreTrainedModel, lookups: Lookups, count: int) -> int | None:
    """Rows of the token type table; 0 if token types share the word embeddings, None if they are not looked up."""
    try:
        words = model.get_input_embeddings()
    except NotImplementedError:  # a character model that hashes into several tables
        words = None
    tables = []
    for weight, indices, _ in lookups.calls:
        if indices.dim() == 2 and len(indices) == 1 and indices.shape[1] >= count and not indices.any():
            if weight is getattr(words, "weight", None):
                return 0
            tables.append(len(weight))
    return min(tables) if tables else None


def _check_padding(model: PreTrainedModel, short: list[int], long: list[int], pad_id: int, source: str) -> None:
    """Raise UsageError if padding changes the outputs for a text, or a decoder attends to later tokens."""
    name, space = type(model).__name__, len(long) - len(short)
    unpadded = _logits(model, [short], [1] * len(short))[0]
    real, hidden = [1] * len(short), [0] * space
    right = _logits(model, [short + [pad_id] * space], real + hidden)[0]
    per_token = model.get_output_embeddings() is not None
    tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(model.dtype).eps)

    def differ(first: torch.Tensor, second: torch.Tensor) -> bool:
        return bool((first - second).abs().max() > tolerance * second.abs().max())

    if not torch.isfinite(unpadded).all():
        raise UsageError(f"model {source}: the outputs of {name} are not finite numbers; its weights are damaged")
    if differ(right[: len(short)] if per_token else right, unpadded):
        left = _logits(model, [[pad_id] * space + short], hidden + real)[0]
        needs_left = not differ(left[space:] if per_token else left, unpadded)
        reason = "needs padding on the left" if needs_left else "reads padding as part of a text"
        raise UsageError(f"model {source}: {name} {reason}, but batches are padded on the right; use another model")
    if per_token and differ(_logits(model, [long], [1] * len(long))[0][: len(short)], unpadded):
        raise UsageError(
            f"model {source}: {name} is not causal: its outputs depend on later tokens; use a causal decoder"
        )


def _logits(model: PreTrainedModel, ids: list[list[int]], mask: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor([mask])).logits
    return logits.float()
