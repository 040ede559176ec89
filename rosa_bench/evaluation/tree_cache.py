"""Key-value cache of a search in which all beams of an input share its keys and values.

Shapes: N inputs, K beams per input, V words, P tokens of the longest input, S places, H heads, D head width.

An input's keys and values are computed and stored once, not once per beam, and the generated tokens form a tree. A step
passes the K newest nodes of an input to the model as K tokens of one sequence, each with a mask over the places of its
ancestors' keys. A beam that continues another one takes over a row of that mask, so no key or value ever moves; a place
without descendants is reused for a new node. The model's own `forward` is called, so everything that a method has added
to the model takes effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from rosa_bench.models.load import cache_name

# Decoders that use position ids and a mask [N, 1, K, S] unchanged; the tests of the search cover each of them.
KINDS = (
    "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "granite", "llama", "mistral", "olmo2", "opt", "phi", "qwen2", "qwen3",
    "starcoder2",
)  # fmt: skip


def supported(model: Any) -> bool:
    """Whether the model can use a tree. A sliding window or virtual tokens would shift what a token attends to."""
    shifted = getattr(model.config, "sliding_window", None) is not None or getattr(model, "extra_tokens", 0) > 0
    return model.config.model_type in KINDS and not shifted


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """Attention as two products and a softmax, the fastest for a few queries per set of keys."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class Places(CacheLayerMixin):
    """The keys and values of one layer, [N, H, S, D]; `Tree` assigns places to nodes."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self.tree = tree

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate zeros: masked places have weight zero but must be finite."""
        self.keys, self.values = (self._longer(states, self.tree.places) for states in (key_states, value_states))
        self.is_initialized = True

    def _longer(self, states: torch.Tensor, places: int) -> torch.Tensor:
        longer = states.new_zeros(*states.shape[:2], places, states.shape[3])
        longer[:, :, : states.shape[2]] = states
        return longer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new states; return all states that the new tokens may attend to."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            return key_states, value_states
        n = key_states.shape[0]
        rows = torch.arange(n, device=key_states.device)[:, None]
        self.keys[rows, :, self.tree.newest] = key_states.transpose(1, 2)
        self.values[rows, :, self.tree.newest] = value_states.transpose(1, 2)
        return self.keys[:n, :, : self.tree.used], self.values[:n, :, : self.tree.used]

    def move(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy the rows of some inputs to others."""
        assert self.keys is not None and self.values is not None
        self.keys[targets], self.values[targets] = self.keys[sources], self.values[sources]

    def widen(self) -> None:
        """Grow to the tree's number of places."""
        assert self.keys is not None and self.values is not None
        self.keys, self.values = (self._longer(states, self.tree.places) for states in (self.keys, self.values))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of places that a query may attend to; unused because masks are given."""
        return self.tree.used, 0

    def get_seq_length(self) -> int:
        """Number of places in use."""
        return self.tree.used

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    get_max_cache_shape = get_max_length


class Tree:
    """The nodes after a batch of inputs. `prompts` are padded on the left with their own first token."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], beams: int) -> None:
        device = model.device
        self.model, self.beams, self.depth = model, beams, 0
        self.lengths = torch.tensor([len(ids) for ids in prompts], device=device)
        width = int(self.lengths.max())
        self.prompts = torch.tensor([[ids[0]] * (width - len(ids)) + list(ids) for ids in prompts], device=device)
        self.used, self.places = width, width + 8 * beams
        self.layers = [Places(self) for _ in range(model.config.num_hidden_layers)]
        self.cache = Cache(layers=cast(Any, self.layers))
        self.cache_name = cache_name(model)

    def begin(self) -> torch.Tensor:
        """Read the inputs; return the logits [N, V] after each of them."""
        n, width = self.prompts.shape
        column = torch.arange(width, device=self.prompts.device)
        position = column - (width - self.lengths)[:, None]
        real = position >= 0
        diagonal = torch.eye(width, dtype=torch.bool, device=column.device)  # so that padding attends to something
        attended = (column[:, None] >= column) & real[:, None] | diagonal
        logits = self._read(self.prompts, attended, position.clamp(min=0), logits_to_keep=1)[:, -1]
        visible = torch.zeros(n, 1, self.places, dtype=torch.bool, device=column.device)
        visible[:, 0, :width] = real
        self.visible = visible.expand(n, self.beams, self.places)  # for the newest node of each beam
        return logits

    def step(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """Read new nodes [N, K], children of the newest nodes of beams `parents` [N, K]; return logits [N, K, V]."""
        visible = self.visible.gather(1, parents[..., None].expand(*parents.shape, self.places))
        free = ~visible.any(1)
        if int(free.sum(1).min()) < self.beams:
            added = self.places // 2 + self.beams
            self.places += added
            for layer in self.layers:
                layer.widen()
            visible, free = (torch.nn.functional.pad(kind, (0, added), value=kind is free) for kind in (visible, free))
        order = torch.arange(self.places, 0, -1, device=tokens.device)
        self.newest = (free * order).topk(self.beams).indices
        self.visible = visible.scatter(2, self.newest[..., None], True)
        self.used = int((self.visible.any(1).any(0) * order.flip(0)).max())
        positions = (self.lengths + self.depth)[:, None].expand(tokens.shape)
        self.depth += 1
        return self._read(tokens, self.visible[:, :, : self.used], positions)

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with these inputs only, in this order. Row i may become row j <= i only."""
        targets = torch.arange(len(rows), device=rows.device)
        moved = rows != targets
        for layer in self.layers:
            layer.move(rows[moved], targets[moved])
        self.visible, self.lengths = self.visible[rows], self.lengths[rows]

    def _read(self, ids: torch.Tensor, attended: torch.Tensor, positions: torch.Tensor, **options: Any) -> torch.Tensor:
        mask = torch.zeros(attended.shape, dtype=self.model.dtype, device=ids.device)
        mask.masked_fill_(~attended, torch.finfo(mask.dtype).min)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask[:, None], "position_ids": positions}
        inputs[self.cache_name] = self.cache
        logits: torch.Tensor = self.model(**inputs, use_cache=True, **options).logits
        return logits.float()


class Copies:
    """A `Tree` for decoders that do not support one: each beam is a sequence with its own keys and values.

    `prompts` are of equal length.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], beams: int) -> None:
        self.model, self.beams = model, beams
        self.prompts = torch.tensor([list(ids) for ids in prompts], device=model.device)
        self.lengths = torch.full((len(self.prompts),), self.prompts.shape[1], device=model.device)
        self.read, self.cache = 0, DynamicCache(config=model.config)
        self.cache_name = cache_name(model)

    def begin(self) -> torch.Tensor:
        logits = self._read(self.prompts)
        self.cache.batch_repeat_interleave(self.beams)
        return logits

    def step(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """Read one token [N, K] per beam, after the beams `parents` [N, K]; return logits [N, K, V]."""
        rows = torch.arange(len(tokens), device=tokens.device)
        self.cache.reorder_cache(cast(torch.LongTensor, self._sequences(rows, parents)))
        return self._read(tokens.reshape(-1, 1)).view(*tokens.shape, -1)

    def keep(self, rows: torch.Tensor) -> None:
        beams = torch.arange(self.beams, device=rows.device).expand(len(rows), -1)
        self.cache.batch_select_indices(self._sequences(rows, beams))

    def _sequences(self, rows: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
        """Indices in the cache of the beams [N, K] of some inputs [N]."""
        return (rows[:, None] * self.beams + beams).flatten()

    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        self.read += ids.shape[1]
        mask = torch.ones(len(ids), self.read, dtype=torch.long, device=ids.device)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, self.cache_name: self.cache}
        logits: torch.Tensor = self.model(**inputs, use_cache=True).logits
        return logits[:, -1].float()
