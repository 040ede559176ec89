"""A bridge to the methods of the `peft` library, selected by PEFT type.

`type` is a PEFT type (LORA, IA3, PREFIX_TUNING ...). `config` holds keys of that type's configuration class in the
installed `peft`, which validates them and supplies the defaults. Tuners that replace modules modify the backbone in
place (`rosa_bench.modules.peft_tuners`); prompts run as hooks around its forward pass
(`rosa_bench.modules.virtual_tokens`).

Differences from `peft`: adapters are inserted into the backbone only and the task head trains in full; new tensors are
drawn from the run's seed; an encoder's head reads the first token of the sequence instead of the first virtual token;
AdaLoRA takes its number of steps from the run, and its regularizer's gradient is added after clipping.
"""

from __future__ import annotations

import copy
import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue

from rosa_bench.core.annotations import check as check_annotated
from rosa_bench.core.method import Method, PeftAdapter, Step
from rosa_bench.core.schema import FileName, configured
from rosa_bench.errors import UsageError, first_line, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel

    from rosa_bench.core.task import Task

PROMPTS = {"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"}
CACHED = {"PREFIX_TUNING"}  # a cached prompt is lost when a layer is recomputed
UNMERGEABLE = {"LILY"}
# Types that start at the backbone with their default initialization.
EXACT = {
    "ADALORA", "ADAMSS", "BEFT", "BOFT", "DEFT", "DELORA", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3",
    "LILY", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "OFT", "PEANUT", "PSOFT", "PVERA", "RANDLORA", "ROAD", "SHIRA",
    "SUPERTUNING", "TINYLORA", "VERA",
}  # fmt: skip
# Keys derived from the type, the model and the task.
OURS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "num_attention_heads", "num_layers",
    "num_transformer_submodules", "peft_type", "peft_version", "revision", "task_type", "token_dim",
}  # fmt: skip
# Keys that need code outside `peft`'s model and would have no effect here, and why they are not supported.
ELSEWHERE = {
    "arrow_config": "it selects among several trained adapters, and a run trains only one",
    "monteclora_config": "it draws from a buffer that checkpoints do not save",
    "use_asa": "it removes parameters by sums that checkpoints do not save",
}
READING = ("corda", "eva", "lora_ga")  # initializations that need training data
# Peak learning rates for embedded and full-size backbones by preset or type; the default is LORA's.
RATES = {
    "LORA": (2e-3, 4e-4),
    "ADALORA": (1e-2, 1e-3),
    "pissa": (1e-3, 2e-4),
    "IA3": (1e-2, 3e-3),
    "VERA": (1e-2, 4e-3),
    "OFT": (2e-3, 4e-4),
    "PROMPT_TUNING": (3e-3, 1e-2),
    "P_TUNING": (5e-3, 1e-3),
    "PREFIX_TUNING": (5e-3, 5e-3),
}


def _upper(value: Any) -> Any:
    return value.upper().replace("-", "_") if isinstance(value, str) else value


@configured
class Peft(Method):
    """Trains the parameters that a `peft` configuration adds to the backbone, and the task head."""

    type: Annotated[FileName, BeforeValidator(_upper)]  # a PEFT type of the installed library, such as LOHA
    config: dict[str, JsonValue] = Field(default_factory=dict)  # keys of the type's configuration class
    preset: FileName | None = None  # name in records; null: the type
    positions: Literal["shifted", "kept"] = "shifted"  # text positions: shifted past the prompt, or as without one
    train_head: bool = True  # whether to train the task head

    plain_linears: ClassVar[bool] = False  # some tuners compute with the weight itself, such as its norm

    @property
    def name(self) -> str:
        """The preset's name, or the type if there is no preset."""
        return self.preset or self.type.lower()

    @classmethod
    def size_label(cls, options: Mapping[str, Any]) -> str | None:
        """The rank or the number of virtual tokens, if the `peft` configuration sets one."""
        config = options.get("config") or {}
        if (rank := config.get("r", config.get("target_r"))) is not None:
            return f"r={rank}"
        tokens = config.get("num_virtual_tokens")
        return None if tokens is None else f"{tokens} tokens"

    @property
    def lr(self) -> Mapping[str, float]:
        mini, full_size = RATES.get(self.name) or RATES.get(self.type) or RATES["LORA"]
        return {"mini": mini, "full_size": full_size}

    @property
    def mergeable(self) -> bool:
        """Whether the adapter can be merged into weights; prompts and LILY cannot."""
        return self.type not in PROMPTS | UNMERGEABLE

    @property
    def checkpointable(self) -> bool:
        """Whether activation checkpointing is supported; recomputed layers would lose a prompt held in the cache."""
        return self.type not in CACHED

    @property
    def exact_at_start(self) -> bool:
        """Whether the logits after `attach` are known to equal the backbone's; otherwise the difference is measured."""
        return self.type in EXACT and not any(key.startswith("init") for key in self.config)

    @property
    def extra_tokens(self) -> int:
        """Length of the prompt with `positions: shifted`, else 0."""
        return self._tokens if self.positions == "shifted" else 0

    @property
    def _tokens(self) -> int:
        tokens = self.config.get("num_virtual_tokens")
        return tokens if self.type in PROMPTS and isinstance(tokens, int) else 0

    def check(self, task: Task) -> None:
        """Raises UsageError if `peft` is not installed or does not support the type, a key or a value."""
        self.configuration()

    def configuration(self) -> Any:
        """Create the configuration object of `peft`.

        Raises:
            UsageError: as `check` does, naming the nearest types or keys.
        """
        cls = self._class()
        check_annotated(cls, self.config, "method.config", OURS)
        self._refuse_elsewhere()
        if self.type in PROMPTS and self._tokens < 1:
            raise UsageError(f"method={self.name} needs method.config.num_virtual_tokens=COUNT")
        open_steps = {"total_step": sys.maxsize} if hasattr(cls, "total_step") else {}  # until set by the run
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                configuration = cls(**{**open_steps, **self.config})
            except Exception as error:
                raise UsageError(f"method.config: {first_line(error)}") from error
        if caught:  # for example a key that the type ignores
            raise UsageError(f"method.config: {first_line(caught[0].message)}")
        return configuration

    def _refuse_elsewhere(self) -> None:
        """Raises UsageError for options that need code outside `peft`'s model, which is not implemented here."""
        for key in ELSEWHERE:
            if self.config.get(key):
                raise UsageError(f"method.config.{key} is not supported: {ELSEWHERE[key]}")
        start = str(self.config.get("init_lora_weights"))
        if start.startswith(READING):
            raise UsageError(f"method.config.init_lora_weights={start} is not supported: it needs training data")

    def _class(self) -> Any:
        """The type's configuration class. Raises UsageError if the type is unknown or cannot run in place."""
        library()
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
        from peft.tuners.tuners_utils import BaseTuner

        types = {str(key.value): key for key in PEFT_TYPE_TO_CONFIG_MAPPING}
        if self.type not in types:
            raise UsageError(f"method.type={self.type} is not a PEFT type: {nearest(self.type, types)}")
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[types[self.type]]
        is_tuner = isinstance(tuner, type) and issubclass(tuner, BaseTuner)
        in_place = is_tuner and (tuner.forward is BaseTuner.forward or hasattr(tuner, "update_and_allocate"))
        if self.type not in PROMPTS and not in_place:
            raise UsageError(f"method.type={self.type} is not supported: it works only inside peft's own model class")
        return PEFT_TYPE_TO_CONFIG_MAPPING[types[self.type]]

    def attach(self, model: PreTrainedModel, seed: int = 0) -> None:
        """Freeze the backbone and let `peft` add its adapter.

        Raises:
            UsageError: if `peft` does not support this backbone, a pattern names no module, or nothing would train.
        """
        import torch

        from rosa_bench.models.roles import freeze_backbone
        from rosa_bench.modules.peft_tuners import adapt
        from rosa_bench.modules.virtual_tokens import prepend

        config = self.configuration()
        freeze_backbone(model, self.train_head)
        head = [p for p in model.parameters() if p.requires_grad]
        with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng(devices=[]):
            warnings.simplefilter("always")
            torch.default_generator.manual_seed(seed)
            try:
                if self.type in PROMPTS:
                    prepend(model, config, self.positions == "kept")
                else:
                    adapt(model, config)
                _try_out(model)
            except Exception as error:
                cls = type(model.base_model).__name__
                raise UsageError(f"method={self.name} is not supported with {cls}: {first_line(error)}") from error
        if unmatched := next((w for w in caught if w.category is RuntimeWarning and "match" in str(w.message)), None):
            raise UsageError(f"method.config: {first_line(unmatched.message)}")  # such as a wrong name in rank_pattern
        if not any(p.requires_grad for p in model.parameters()):
            raise UsageError(f"method={self.name}: no parameter of {type(model.base_model).__name__} would train")
        for parameter in head:
            parameter.requires_grad_(True)

    def output_factors(self, model: PreTrainedModel) -> list[torch.nn.Parameter]:
        """Every trained `lora_B`."""
        parameters = model.named_parameters()
        return [p for name, p in parameters if p.requires_grad and ("lora_B." in name or name.endswith("lora_B"))]

    def without_peft(self, task: Task) -> str | None:
        """Why `peft` cannot load the trained model: prompts with a classification head are not supported."""
        if self.type in PROMPTS and task.num_labels:
            return "hides the prompt from the task head, and peft does not"
        return None

    def to_peft(self, model: PreTrainedModel, backbone: PreTrainedModel, seed: int) -> PeftAdapter:
        """Export the configuration with the names of the adapted modules, and the tensors that `peft` saves.

        A LoRA initialized by splitting the weights (PiSSA, OLoRA) becomes a plain LoRA of twice the rank: the trained
        factors minus the initial ones.
        """
        from rosa_bench.modules.peft_tuners import changed, split_to_peft, to_peft
        from rosa_bench.modules.virtual_tokens import prompt_to_peft

        if self.type in PROMPTS:
            return prompt_to_peft(model)
        adapter = to_peft(model)
        if self.type == "LORA" and changed(model):
            start = copy.deepcopy(backbone)
            self.attach(start, seed)
            return split_to_peft(adapter, to_peft(start))
        return adapter

    def moved(self, model: PreTrainedModel) -> set[str]:
        """Frozen tensors that `attach` changed, such as the residual of a weight that was split."""
        from rosa_bench.modules.peft_tuners import changed

        return changed(model)

    def before_step(self, step: Step) -> None:
        """Set the run's number of steps in tuners that schedule ranks. Raises UsageError if their phases do not fit."""
        from rosa_bench.modules.peft_tuners import tuner_of

        tuner = tuner_of(step.model)
        if not hasattr(tuner, "rankallocator") or "total_step" in self.config or step.total is None:
            return
        (config,) = tuner.peft_config.values()
        config.total_step = step.total
        if config.tinit >= step.total - config.tfinal:
            raise UsageError(
                f"method.config.tinit={config.tinit} and tfinal={config.tfinal} leave none of the run's "
                f"{step.total} steps for reducing ranks; set smaller values"
            )

    def before_update(self, step: Step) -> None:
        """Add the gradient of the tuner's regularization loss."""
        from rosa_bench.modules.peft_tuners import penalty_gradients

        for parameter, gradient in penalty_gradients(step.model):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def after_update(self, step: Step) -> None:
        from rosa_bench.modules.peft_tuners import allocate

        allocate(step.model, step.index + 1, step.skipped)

    def facts(self, model: PreTrainedModel, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The version of `peft`, which determines the meaning of a configuration."""
        return {"peft": library().__version__}


def library() -> Any:
    """Import `peft`. Raises UsageError if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import peft
            import peft.tuners
    except ImportError as error:
        command = "pip install 'rosa_bench[peft]'"
        raise UsageError(f"this method needs the extra peft: {command} ({first_line(error)})") from error
    return peft


def _try_out(model: PreTrainedModel) -> None:
    """Run the backbone on two short sequences, so that an unsupported combination fails before training."""
    import torch

    ids = torch.zeros(2, 3, dtype=torch.long, device=model.device)
    mask = torch.ones_like(ids)
    mask[1, 2] = 0  # models may ignore a mask of all ones
    with torch.no_grad():
        model.base_model(input_ids=ids, attention_mask=mask)
