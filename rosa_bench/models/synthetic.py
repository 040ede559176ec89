"""Vectors, start model and true model of `task=synthetic`. Shapes: N rows, I inputs, O outputs, R rank."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tokenizers
import torch
import transformers
from torch import nn
from transformers.utils.generic import ModelOutput

from rosa_bench.models.roles import features, weight_IO
from rosa_bench.models.traits import Traits
from rosa_bench.system.seeds import generator


class SyntheticConfig(transformers.PretrainedConfig):
    """Sizes of a start model: `rows` vectors, and layers of the given `widths`."""

    model_type = "rosa_bench_synthetic"

    def __init__(self, rows: int = 1, widths: tuple[int, ...] = (1, 1), **options: Any) -> None:
        super().__init__(**options)
        self.rows, self.widths = rows, tuple(widths)


@dataclass
class Outputs(ModelOutput):
    """Model outputs [examples, O], under the names that tasks and checks use."""

    logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class SyntheticModel(transformers.PreTrainedModel):
    """Linear layers over a fixed table of vectors, indexed by `input_ids` [examples, 1]."""

    config_class = SyntheticConfig
    every_target = True  # all weights are adapted whatever the method's targets, as published

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        widths = config.widths
        maps = [nn.Linear(i, o) for i, o in itertools.pairwise(widths)]
        self.network = nn.ModuleDict({f"fc{n}": layer for n, layer in enumerate(maps, start=1)})
        self.vectors: torch.Tensor
        self.register_buffer("vectors", torch.zeros(config.rows, widths[0]), persistent=False)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> Outputs:
        """Map input_ids [examples, 1] to outputs [examples, O]."""
        hidden = self.vectors[input_ids[:, 0]]
        for index, layer in enumerate(self.network.values()):
            hidden = layer(hidden if index == 0 else torch.relu(hidden))
        return Outputs(logits=hidden, last_hidden_state=hidden[:, None])


@dataclass(frozen=True)
class World:
    """Vectors [N, I], labels [N, O], and the start and true models of a configuration."""

    vectors: torch.Tensor
    labels: torch.Tensor
    start: SyntheticModel
    true: SyntheticModel


@lru_cache(maxsize=4)
def world(widths: tuple[int, ...], rank: int, rows: int, seed: int) -> World:
    """Draw vectors, layers of these widths and perturbations of this rank from a seed; cached."""
    start = SyntheticModel(SyntheticConfig(rows, widths))
    start.vectors.copy_(torch.randn(start.vectors.shape, generator=generator(seed, "vectors")))
    draw_weights(start, seed)
    true = copy.deepcopy(start)
    with torch.no_grad():
        for name, layer in true.network.items():
            draw = generator(seed, f"{name} perturbation")
            inputs, outputs = features(layer)
            A, B = torch.randn(inputs, rank, generator=draw), torch.randn(rank, outputs, generator=draw)
            weight_IO(layer).add_(A @ B)
        labels = true(torch.arange(rows)[:, None]).logits
    return World(start.vectors, labels, start, true)


@torch.no_grad()
def draw_weights(model: SyntheticModel, seed: int) -> None:
    """Draw weights and biases as `nn.Linear` does: uniform within ±1 / sqrt(I)."""
    for name, layer in model.network.items():
        draw, bound = generator(seed, name), features(layer)[0] ** -0.5
        for tensor in layer.parameters():
            tensor.uniform_(-bound, bound, generator=draw)


def build(world: World, random_init: bool, seed: int) -> tuple[SyntheticModel, transformers.PreTrainedTokenizerBase]:
    """The start model (redrawn from `seed` if `random_init`) and a tokenizer whose words are row numbers."""
    model = copy.deepcopy(world.start)
    if random_init:
        draw_weights(model, seed)
    model.__dict__["traits"] = Traits()
    words = {str(index): index for index in range(len(model.vectors))} | {"[PAD]": len(model.vectors)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words))
    return model, transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
