"""Fine-tuning methods. A new one is one file here, one yaml in `configs/method/` and one test; nothing is edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Fold every adapter of a mergeable method into plain weights, in place.

    `from_pretrained` loads the result's `save_pretrained` folder without this package.
    """
    from rosa_bench.modules import lowrank, peft_tuners

    peft_tuners.fold(model)
    return lowrank.merge(model)
