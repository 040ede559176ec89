"""Set one dropout probability throughout a backbone, whatever its class calls it.

Configurations name the probabilities differently (`hidden_dropout_prob`, `attn_pdrop`, `classifier_dropout`, ...), and
modules store them as `nn.Dropout` or as numbers passed to attention kernels. Both are matched by name, not by model
class. Layer-skipping probabilities (`layerdrop`, `drop_path_rate`) are not dropout and are left unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _is_probability(name: str, value: Any) -> bool:
    is_dropout = "dropout" in name or "pdrop" in name
    return is_dropout and isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _settings(config: PretrainedConfig) -> Iterator[tuple[PretrainedConfig, str]]:
    """Yield each dropout probability of a configuration and its nested configurations as (owner, attribute name)."""
    from transformers import PretrainedConfig

    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            yield from _settings(value)
        elif _is_probability(name, value):
            yield config, name


def _numbers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield each dropout probability stored as a number as (module, attribute name)."""
    for module in model.modules():
        own = ("p", "drop_prob") if "Dropout" in type(module).__name__ else ()
        for name in list(vars(module)):
            if name in own or _is_probability(name, getattr(module, name)):
                yield module, name


def set_in_config(config: PretrainedConfig, probability: float) -> None:
    """Set every dropout probability of a configuration before building a model from it."""
    for owner, name in _settings(config):
        own = vars(owner)  # bypasses the field's type, which is int in some classes
        own[name] = type(own[name])(probability) if probability == 0 else probability


def set_in_modules(model: nn.Module, probability: float) -> int:
    """Set every dropout probability stored in modules, even those absent from the configuration; return their count."""
    settings = list(_numbers(model))
    for owner, name in settings:
        setattr(owner, name, probability)
    return len(settings)
