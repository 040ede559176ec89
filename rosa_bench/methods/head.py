"""Linear probing: trains only the task head on a frozen backbone. The baseline that every method should beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rosa_bench.core.method import Group, Method
from rosa_bench.core.schema import configured
from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task


@configured
class Head(Method):
    """Trains only the head that `transformers` adds to the backbone for a task."""

    lr: ClassVar[Mapping[str, float]] = {"mini": 5e-3, "full_size": 1e-3}
    look: ClassVar[int | None] = 7
    group: ClassVar[Group] = "baseline"
    reference: ClassVar[bool] = True
    checkpointable: ClassVar[bool] = False  # no layer stores activations

    def check(self, task: Task) -> None:
        """Raises UsageError for a language-modeling task: its output map is the backbone's embedding, not a head."""
        if not task.num_labels:
            raise UsageError(f"method=head trains a task head, and task={task.name} has none; use another method")

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone. Raises UsageError if the model has no task head."""
        from rosa_bench.models.roles import freeze_backbone

        freeze_backbone(model, train_head=True)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UsageError(f"method=head trains a task head, and {type(model).__name__} has none")
