"""Set one dropout probability throughout a backbone, whatever its class calls it.

Configurations name the probabilities differently (`hidden_dropout_prob`, `attn_pdrop`, `classifier_dropout`, ...), and
modules store them as `nn.Dropout` or as numbers passed to attention kernels. Both are matched by name, not by model
class. Layer-skipping probabilities (`layerdrop`, `drop_path_rate`) are not dropout and are left unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def _is_probability(name: str, value: Any) -> bool:
    is_dropout = "dropout" in name or "pdrop" in name
    return is_dropout and isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def set_in_config(config: PretrainedConfig, probability: float) -> None:
    """Set every dropout probability of a configuration and its nested ones before building a model from it."""
    from transformers import PretrainedConfig

    own = vars(config)  # bypasses type checks; some classes declare these fields as int
    for name, value in list(own.items()):
        if isinstance(value, PretrainedConfig):
            set_in_config(value, probability)
        elif _is_probability(name, value):
            own[name] = type(value)(probability) if probability == 0 else probability


def set_in_modules(model: nn.Module, probability: float) -> int:
    """Set every dropout probability stored in modules, even those absent from the configuration; return their count."""
    count = 0
    for module in model.modules():
        own = ("p", "drop_prob") if "Dropout" in type(module).__name__ else ()
        for name, value in list(vars(module).items()):
            if name in own or _is_probability(name, value):
                setattr(module, name, probability)
                count += 1
    return count
