"""Fine-tuning methods. To add one, write a module here, a yaml in `configs/method/` and a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Merge every adapter of a mergeable method into the backbone's weights, in place.

    After `save_pretrained`, `from_pretrained` loads the result without this package.
    """
    from rosa_bench.modules import lowrank, peft_tuners

    peft_tuners.fold(model)
    return lowrank.merge(model)
