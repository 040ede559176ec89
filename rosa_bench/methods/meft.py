"""MEFT: memory-efficient reversible fine-tuning (Liao, Tan and Monz, arXiv 2306.00477).

The hidden states pass through every layer as two streams, y1 = lambda h1 + F(h2) and y2 = beta h2 + G(y1). The backward
pass reconstructs each layer's inputs from its outputs instead of storing activations. Only small adapters train; with
small factors the model starts near the backbone.

    variant  F                                    G                                    switch  lambda  beta
    meft1    layer, adapter parallel to its FFN   adapter                              yes     0.1     1
    meft2    adapter                              layer, adapter parallel to its FFN   yes     1       0.1
    meft3    attention, adapter after its output  FFN, adapter parallel to it          no      0.1     0.1

Differences from the authors' code: it inverts in floating point, which amplifies rounding errors tenfold per layer
(see `rosa_bench.modules.reversible` for the exact inversion used here); it draws unseeded dropout seeds and rewinds the
global random stream; and it trains an embedding LayerNorm so that autograd calls its backward pass. Its decoder
combines the streams with weights 0.1 and 1 (`final: weighted`), its encoder with their mean.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from rosa_bench.core.method import Group, Method
from rosa_bench.core.schema import Bias, Count, configured
from rosa_bench.errors import UsageError
from rosa_bench.system.seeds import generator, preserved_random_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task
    from rosa_bench.modules.layer_families import Halves
    from rosa_bench.modules.reversible import ReversibleLayer

Factor = Annotated[float, Field(gt=0, le=1)]
FACTORS = {"meft1": (0.1, 1.0), "meft2": (1.0, 0.1), "meft3": (0.1, 0.1)}


def fraction(factor: float) -> Fraction:
    """Convert a factor to n/d. Raises ValueError if d would exceed 256: exact inversion stores remainders in a byte.

    A factor that rounds to zero is refused too.
    """
    approximation = Fraction(factor).limit_denominator(256)
    if not approximation or abs(approximation - Fraction(factor)) > 1e-9:
        raise ValueError(f"{factor} is not a fraction with a denominator up to 256, which exact inversion needs")
    return approximation


@configured
class Meft(Method):
    """Trains adapters in a reversible network built from the backbone's layers."""

    # meft1: F is the layer and G an adapter; meft2: the reverse; meft3: F is attention and G feed-forward
    variant: Literal["meft1", "meft2", "meft3"] = "meft1"
    bottleneck: Count = 8  # width of the adapters
    # factor on the first stream, a fraction with a denominator up to 256; null: the variant's published value
    lambda_factor: Factor | None = None
    beta_factor: Factor | None = None  # the same for the second stream
    switch: bool | None = None  # swap the streams after each layer; null: as published
    frozen_layers: Annotated[int, Field(ge=0)] = 0  # number of lowest layers to leave unchanged
    # number of layers above the frozen ones to make reversible, lowest first; null: all; 0: plain adapters
    reversible_layers: Annotated[int, Field(ge=0)] | None = None
    # how the streams are joined; auto: mean for encoders, weighted for decoders
    final: Literal["auto", "mean", "weighted"] = "auto"
    bias: Bias = "none"  # backbone biases to train: none, those of layers with adapters, or all
    train_head: bool = True  # whether to train the task head

    lr: ClassVar[Mapping[str, float]] = {"mini": 1e-3, "full_size": 5e-4}
    look: ClassVar[int | None] = 4
    group: ClassVar[Group] = "paper"
    mergeable: ClassVar[bool] = False
    checkpointable: ClassVar[bool] = False
    exact_at_start: ClassVar[bool] = False  # the model starts near the backbone

    @classmethod
    def size_label(cls, options: Mapping[str, Any]) -> str | None:
        return f"b={options['bottleneck']}"

    @field_validator("lambda_factor", "beta_factor")
    @classmethod
    def _a_fraction(cls, value: float | None) -> float | None:
        if value is not None:
            fraction(value)
        return value

    def without_peft(self, task: Task) -> str | None:
        """Why `peft` cannot run the trained network."""
        return "runs the backbone's layers as a reversible network, which peft does not support"

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone, add adapters to its layers and replace the layers with one reversible stack.

        Raises:
            UsageError: if the backbone is not RoBERTa, BERT, ELECTRA, GPT-2, OPT or BART's encoder, has fewer layers
                than `frozen_layers` and `reversible_layers` require, or uses layerdrop.
        """
        from torch import nn

        from rosa_bench.models.roles import freeze_backbone
        from rosa_bench.modules.layer_families import caller, family_of
        from rosa_bench.modules.reversible import ReversibleStack

        family = family_of(model)
        if getattr(model.config, "layerdrop", 0) or getattr(model.config, "encoder_layerdrop", 0):
            raise UsageError("method=meft does not support layerdrop; set it to 0 in the model's config.json")
        holder = model.base_model.get_submodule(family.path[0])
        layers = list(getattr(holder, family.path[1]))
        upper = layers[self.frozen_layers :]
        count = len(upper) if self.reversible_layers is None else self.reversible_layers
        if not upper or count > len(upper):
            raise UsageError(
                f"method.frozen_layers={self.frozen_layers} and method.reversible_layers={self.reversible_layers} "
                f"are more than the backbone's {len(layers)} layers"
            )
        inside = {id(module) for layer in upper for module in layer.modules()}
        adapted = {name for name, module in model.named_modules() if id(module) in inside}
        freeze_backbone(model, self.train_head, self.bias, adapted)
        wrapped = [self._wrap(layer, family, model.config, generator(seed, i)) for i, layer in enumerate(upper)]
        published = FACTORS[self.variant]
        stack = ReversibleStack(
            wrapped,
            (fraction(self.lambda_factor or published[0]), fraction(self.beta_factor or published[1])),
            self._switch,
            count,
            self._weights(family.is_decoder),
            caller(upper[0]),
        )
        setattr(holder, family.path[1], nn.ModuleList([*layers[: self.frozen_layers], stack.to(model.device)]))

    @property
    def _switch(self) -> bool:
        return self.variant != "meft3" if self.switch is None else self.switch

    def _weights(self, is_decoder: bool) -> tuple[float, float]:
        """Weights that combine the two streams at the end; the larger is for the stream that the layers write to."""
        if self.final == "mean" or (self.final == "auto" and not is_decoder):
            return 0.5, 0.5
        layers_write_second = self.variant != "meft1"
        return (1.0, 0.1) if layers_write_second == self._switch else (0.1, 1.0)

    def _wrap(self, layer: Any, family: type[Halves], config: Any, draw: torch.Generator) -> ReversibleLayer:
        """Wrap a layer and its adapters as F and G."""
        from rosa_bench.modules.bottleneck import Adapter
        from rosa_bench.modules.reversible import AdapterLayer, HalvesLayer

        activation = getattr(config, "hidden_act", None) or config.activation_function
        names = ("hidden_dropout_prob", "resid_pdrop", "dropout")
        dropout = float(next((getattr(config, name) for name in names if hasattr(config, name)), 0.0))
        first, second = (Adapter(config.hidden_size, self.bottleneck, activation, dropout, draw) for _ in range(2))
        adapted = family.adapt_feed_forward(layer, first)
        if self.variant == "meft3":
            family.adapt_attention(layer, second)
            return HalvesLayer(adapted, family)
        return AdapterLayer(adapted, second, layer_first=self.variant == "meft1")

    def facts(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """Measure the reversible stack on a training batch, with dropout, in the model's precision.

        `reconstruction_rel_err` compares reconstructed and true inputs of the stack. `gradient_rel_err` compares the
        gradients of all trained parameters with plain autograd through the same layers. Both are the norm of the
        difference divided by the norm of the reference. `streams` is `compiled` or `eager`; both give the same results
        and differ only in speed.
        """
        import torch

        from rosa_bench.modules.reversible import ReversibleStack
        from rosa_bench.modules.streams import halves

        (stack,) = (module for module in model.modules() if isinstance(module, ReversibleStack))
        if not stack.reversible:
            return {}
        trained = [p for p in model.parameters() if p.requires_grad]
        inputs: list[torch.Tensor] = []
        hook = stack.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
        count, was_training = stack.reversible, model.training
        model.train()
        gradients = []
        try:
            for stack.reversible, stack.keep_rebuilt in ((count, True), (0, False)):
                with preserved_random_state(), torch.enable_grad():
                    torch.manual_seed(0)
                    loss = model(**batch).loss
                    grads = torch.autograd.grad(loss, trained, allow_unused=True)
                gradients.append(torch.cat([g.flatten().double() for g in grads if g is not None]))
        finally:
            stack.reversible, stack.keep_rebuilt = count, False
            hook.remove()
            model.train(was_training)
        rebuilt, stack.rebuilt = stack.rebuilt, None
        assert rebuilt is not None
        return {
            "reconstruction_rel_err": float((rebuilt - inputs[0]).norm() / inputs[0].norm()),
            "gradient_rel_err": float((gradients[0] - gradients[1]).norm() / gradients[1].norm()),
            "streams": halves(stack.factors[0], rebuilt.dtype, rebuilt.device).mode,
        }
