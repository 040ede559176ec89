"""A method outside the package: trains the backbone's LayerNorms and, if wanted, its biases, and the task head.

python -m rosa_bench -cd examples method=mine task=cola
"""

from typing import ClassVar

from rosa_bench.core.method import Method
from rosa_bench.core.schema import configured
from rosa_bench.models.roles import freeze_backbone
from rosa_bench.modules.placement import norms_of


@configured
class Mine(Method):
    """Trains the LayerNorms of a frozen backbone."""

    biases: bool = False  # also train every bias

    lr: ClassVar[dict[str, float]] = {"mini": 5e-3, "full_size": 1e-3}  # on embedded backbones and on others

    def attach(self, model, seed=0):
        freeze_backbone(model, train_head=True, bias="all" if self.biases else "none")
        for norm in norms_of(model):
            norm.requires_grad_(True)
