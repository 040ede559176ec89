"""One dropout probability everywhere in a backbone, whatever its class calls it.

A class names its probabilities in its configuration (`hidden_dropout_prob`, `attn_pdrop`, `classifier_dropout`, ...).
Its modules keep them as `nn.Dropout`, or as numbers that attention kernels take. Both are searched by name, without a
list of classes. The probability of skipping a whole layer (`layerdrop`, `drop_path_rate`) is not dropout and stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _is_probability(name: str, value: Any) -> bool:
    named = "dropout" in name or "pdrop" in name
    return named and isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _settings(config: PretrainedConfig) -> Iterator[tuple[PretrainedConfig, str]]:
    """Every object and attribute name of a configuration, and of those inside it, that is a dropout probability."""
    from transformers import PretrainedConfig

    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            yield from _settings(value)
        elif _is_probability(name, value):
            yield config, name


def _numbers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Every module and attribute name that is a dropout probability."""
    for module in model.modules():
        own = ("p", "drop_prob") if "Dropout" in type(module).__name__ else ()
        for name in list(vars(module)):
            if name in own or _is_probability(name, getattr(module, name)):
                yield module, name


def set_in_config(config: PretrainedConfig, probability: float) -> None:
    """Set every dropout probability of a configuration, before a model is made of it."""
    for owner, name in _settings(config):
        own = vars(owner)  # past the type of the field, which is int in some classes
        own[name] = type(own[name])(probability) if probability == 0 else probability


def set_in_modules(model: nn.Module, probability: float) -> int:
    """Set those that modules have, among them any that does not come from the configuration; returns their number."""
    found = list(_numbers(model))
    for owner, name in found:
        setattr(owner, name, probability)
    return len(found)
