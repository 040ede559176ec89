"""Trained virtual tokens at the start of every sequence, added by hooks on the backbone without changing the model.

`peft` computes the prompt (its encoders, initialization and key-value cache). The model's own forward pass runs, with
the prompt inserted before the backbone's first layer or into its cache and removed from its output, so that heads,
losses and decoders see the original sequence. `peft`'s own wrapper does not remove the prompt: an encoder's head then
reads the first virtual token instead of the first token of the sequence.
"""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rosa_bench.core.method import PeftAdapter
from rosa_bench.models.load import cache_name
from rosa_bench.models.traits import traits_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Prompt:
    """Hooks around a backbone's forward pass. `peft_model` computes the prompt for a batch of sequences.

    By default, text positions start after the prompt. If `keep_positions`, they are the same as without a prompt, and
    the whole prompt is at the first position.
    """

    def __init__(self, peft_model: Any, tokens: int, keep_positions: bool, first: int) -> None:
        self.peft_model, self.tokens, self.keep_positions, self.first = peft_model, tokens, keep_positions, first
        self.inside = False  # whether the output of the current pass contains the prompt

    def enter(self, base: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Insert the prompt unless a cache already holds it, and extend mask and positions for it."""
        arguments = dict(inspect.signature(base.forward).bind_partial(*args, **kwargs).arguments)
        arguments |= arguments.pop("kwargs", {})
        ids = arguments.get("input_ids")
        sequences = arguments["inputs_embeds"] if ids is None else ids
        name = cache_name(base)
        cache = arguments.get(name)
        first = cache is None or cache.get_seq_length() == 0
        if (mask := arguments.get("attention_mask")) is not None:
            arguments["attention_mask"] = torch.cat([mask.new_ones(len(sequences), self.tokens), mask], dim=1)
        if (positions := arguments.get("position_ids")) is not None:
            arguments["position_ids"] = positions if self.keep_positions else positions + self.tokens
        elif self.keep_positions:
            mask = torch.ones(sequences.shape[:2], dtype=torch.long, device=sequences.device) if mask is None else mask
            arguments["position_ids"] = (mask.cumsum(1) * mask + self.first - 1).clamp(min=0)[:, -sequences.shape[1] :]
        self.inside = False
        if first:
            prompt = self.peft_model.get_prompt(len(sequences))
            if isinstance(prompt, torch.Tensor):
                self.inside = True
                arguments |= self._embedded(base, arguments, prompt)
            else:
                arguments[name] = prompt if cache is None else _filled(cache, prompt)
        return (), arguments

    def _embedded(self, base: Any, arguments: dict[str, Any], prompt: torch.Tensor) -> dict[str, Any]:
        """The changed arguments when the prompt [sequences, tokens, width] is inserted as embeddings."""
        embeds = arguments.get("inputs_embeds")
        embeds = base.get_input_embeddings()(arguments["input_ids"]) if embeds is None else embeds
        out = {"input_ids": None, "inputs_embeds": torch.cat([prompt.to(embeds.dtype), embeds], dim=1)}
        if (positions := arguments.get("position_ids")) is not None:
            own = torch.arange(self.tokens, device=positions.device)
            if self.keep_positions:
                own = torch.full_like(own, self.first)
            out["position_ids"] = torch.cat([own.expand(len(positions), -1), positions], dim=1)
        if (types := arguments.get("token_type_ids")) is not None:
            out["token_type_ids"] = torch.cat([types.new_zeros(len(types), self.tokens), types], dim=1)
        return out

    def leave(self, base: Any, args: Any, output: Any) -> Any:
        """Remove the prompt's positions from the output."""
        if self.inside:
            output.last_hidden_state = output.last_hidden_state[:, self.tokens :]
            if getattr(output, "pooler_output", None) is not None:
                output.pooler_output = base.pooler(output.last_hidden_state)
        return output


def _filled(cache: Any, prompt: Any) -> Any:
    """Fill an empty cache with the keys and values of the prompt."""
    for index, layer in enumerate(prompt.layers):
        cache.update(layer.keys, layer.values, index)
    return cache


def prepend(model: PreTrainedModel, config: Any, keep_positions: bool) -> None:
    """Add the virtual tokens of a `peft` prompt configuration to the model.

    If `keep_positions`, the text keeps its positions. Raises whatever `peft` raises.
    """
    from peft import PeftModel

    config.token_dim = getattr(model.config, "hidden_size", None)  # `peft` finds these in some configurations only
    config.num_attention_heads = getattr(model.config, "num_attention_heads", None)
    peft_model = PeftModel(model.base_model, config)
    prompt = Prompt(peft_model, config.num_virtual_tokens, keep_positions, traits_of(model).first_position)
    model.virtual_tokens = peft_model.prompt_encoder
    model.__dict__["extra_tokens"] = config.num_virtual_tokens
    model.__dict__["_prompt"] = peft_model
    layers = _reader(model.base_model)
    layers.register_forward_pre_hook(prompt.enter, with_kwargs=True)
    layers.register_forward_hook(prompt.leave)


def _reader(base: Any) -> nn.Module:
    """The module that every head calls: the base model, except in OPT, whose language model calls the decoder."""
    decoder = None if base.config.is_encoder_decoder else getattr(base, "decoder", None)
    layers: nn.Module = base if decoder is None else decoder
    return layers


def prompt_to_peft(model: PreTrainedModel) -> PeftAdapter:
    """Export the model's virtual tokens as `peft` saves them."""
    from peft import get_peft_model_state_dict

    peft_model = model.__dict__["_prompt"]
    config = copy.deepcopy(peft_model.active_peft_config)
    tensors = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    return PeftAdapter(config, tensors, {name for name, _ in model.named_parameters() if "virtual_tokens" in name})
