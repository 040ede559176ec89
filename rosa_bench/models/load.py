"""Load a backbone with the task's head and its tokenizer: embedded, from a folder, or from a hub on request."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS

from rosa_bench.config import Model
from rosa_bench.core.task import Task
from rosa_bench.errors import UsageError, first_line
from rosa_bench.models import dropout
from rosa_bench.models.casts import keep_frozen_in_bf16
from rosa_bench.models.identity import on_hub, source_of, weight_files
from rosa_bench.models.roles import task_head
from rosa_bench.models.tokenizer_fit import fit, is_masked_or_not_causal
from rosa_bench.models.weights import load_weights
from rosa_bench.system.hub import ADAPTER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENCODER_DECODERS = ("bart",)  # their classifiers read the last token of the decoder output


def cache_name(module: torch.nn.Module) -> str:
    """The name of the key-value cache argument of `forward`: `cache` from transformers 5.24 on."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


@contextmanager
def preserved_verbosity() -> Iterator[None]:
    """Restore the log level and progress bars of `transformers` afterwards; loading and training silence both."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars and not HF_HUB_DISABLE_PROGRESS_BARS:
            logging.enable_progress_bar()


def load(model: Model, task: Task, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the backbone and its tokenizer; a task head, if any, is initialized from `seed`.

    All weights are in fp32; with `model.dtype=bf16` the backbone's matrices are in bf16.

    Raises:
        UsageError: if the folder or hub cannot be loaded, if the backbone does not support the task, or if
            `model.dropout` is positive and the backbone has no dropout.
    """
    backbone, tokenizer = _loaded(model, task, seed)
    if model.dropout is not None and not dropout.set_in_modules(backbone, model.dropout) and model.dropout > 0:
        raise UsageError(f"model.dropout={model.dropout}: {type(backbone).__name__} has no dropout")
    if model.dtype == "bf16":
        keep_frozen_in_bf16(backbone, task_head(backbone))
    return backbone, tokenizer


def _loaded(model: Model, task: Task, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if task.builds_model:
        return _built(model, task, seed)
    source = source_of(model)
    # Otherwise `transformers` would ask whether to trust the code.
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        if (Path(source) / "adapter_config.json").is_file():  # `transformers` would load it on top of another model
            raise UsageError(ADAPTER.format(source))
        config = transformers.AutoConfig.from_pretrained(source, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        _check_kind(config, task, source)
        _set_head(config, task)
        if model.dropout is not None:
            dropout.set_in_config(config, model.dropout)
        cls = transformers.AutoModelForSequenceClassification if task.num_labels else transformers.AutoModelForCausalLM
        facts: dict[str, Any] = {}
        if model.random_init:
            transformers.set_seed(seed)
            backbone = cls.from_config(config, dtype=torch.float32, trust_remote_code=False)
        else:
            # A head is initialized in fp32; without one, no tensor exceeds the file's precision.
            dtype = "auto" if model.dtype == "bf16" and not task.num_labels else torch.float32
            files = weight_files(Path(source))
            pickled = any(name.endswith(".bin") for name in files)  # torch's restricted unpickler reads them
            options |= {"config": config, "dtype": dtype, "use_safetensors": not pickled, "weights_only": True}
            options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
            read: Any = partial(cls.from_pretrained, source, **options)
            backbone, facts = load_weights(read, source, seed)
            facts |= {"pickled_weights": files} if pickled else {}
        facts |= fit(tokenizer, backbone, source)
        backbone.__dict__["loading_facts"] = facts
    except UsageError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"model {source} cannot be loaded ({reason})") from error
    if on_hub(model):
        backbone.name_or_path = backbone.config.name_or_path = str(model.hub)  # not the cache folder
    return backbone, tokenizer


def loading_facts(model: PreTrainedModel) -> dict[str, Any]:
    """Facts for the record, such as tensors that `load` initialized or left out; empty if there are none."""
    facts: dict[str, Any] = model.__dict__.get("loading_facts", {})
    return facts


def _built(model: Model, task: Task, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not (model.embedded and model.name == task.backbone):
        raise UsageError(f"task={task.name} builds its own model; remove model={model.name}")
    return task.build_model(model.random_init, seed)


def _check_kind(config: Any, task: Task, source: str) -> None:
    if "/" in str(getattr(config, "_attn_implementation", None)):
        raise UsageError(f"{source}: its config.json requests code from a hub ({config._attn_implementation})")
    if not task.num_labels and is_masked_or_not_causal(config):
        raise UsageError(f"task={task.name} needs a causal decoder; {source} is a {config.model_type}")
    if config.is_encoder_decoder and config.model_type not in ENCODER_DECODERS:
        raise UsageError(
            f"{source} is an encoder-decoder ({config.model_type}), which is not supported; use an encoder, a causal "
            f"decoder or, for classification, {', '.join(ENCODER_DECODERS)}"
        )


def _set_head(config: Any, task: Task) -> None:
    """Set the task's outputs and label names in the configuration, so that a saved model carries them."""
    if not task.num_labels:
        return
    config.id2label = dict(enumerate(task.label_names))
    config.label2id = {name: i for i, name in config.id2label.items()}
    config.problem_type = task.kind.problem_type
