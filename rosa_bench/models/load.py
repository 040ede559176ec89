"""A backbone with the head its task needs, and its tokenizer: embedded, from a folder, or from a hub if asked."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers

from rosa_bench.config import Model
from rosa_bench.core.task import Task
from rosa_bench.errors import UsageError
from rosa_bench.models.identity import MADE, source_of
from rosa_bench.system.hub import ADAPTER

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")  # positions start after the padding index
ENCODER_DECODERS = ("bart",)  # whose classifiers read the last token that the decoder makes of the text


def cache_name(module: torch.nn.Module) -> str:
    """What a forward pass calls its key-value cache: `cache` from transformers 5.24 on."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


def load(model: Model, task: Task, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The backbone in fp32 with a new head where the task has one, drawn from `seed`, and its tokenizer.

    Raises:
        UsageError: for a folder or hub that cannot be loaded, or a backbone that cannot do the task.
    """
    if MADE & {task.backbone, model.name}:
        return _synthetic(model, task, seed)
    source = source_of(model)
    options: dict[str, Any] = {
        "trust_remote_code": False,
        "local_files_only": True,
    }  # without it, it would ask for trust
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        _check_files(source)
        config = transformers.AutoConfig.from_pretrained(source, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        _check_kind(config, task, source)
        _set_head(config, task)
        set_pad_token(tokenizer, config)
        transformers.set_seed(seed)
        cls = transformers.AutoModelForSequenceClassification if task.num_labels else transformers.AutoModelForCausalLM
        if model.random_init:
            backbone = cls.from_config(config, dtype=torch.float32, trust_remote_code=False)
        else:
            backbone = cls.from_pretrained(source, config=config, dtype=torch.float32, use_safetensors=True, **options)
    except UsageError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise UsageError(f"model {source} cannot be loaded ({type(error).__name__}: {first})") from error
    if backbone.get_input_embeddings().num_embeddings < len(tokenizer):
        raise UsageError(f"model {source}: the tokenizer has {len(tokenizer)} tokens, the embeddings fewer")
    return backbone, tokenizer


def _synthetic(model: Model, task: Task, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not (model.embedded and model.name == task.backbone):
        raise UsageError(f"model={model.name} does not go with task={task.name}; leave model=auto")
    from rosa_bench.models.synthetic import build

    return build(cast(Any, task), model.random_init, seed)


def _check_files(source: str) -> None:
    """Raise UsageError for a folder whose adapter `transformers` would load, with another model below it."""
    if (Path(source) / "adapter_config.json").is_file():
        raise UsageError(ADAPTER.format(source))


def _check_kind(config: Any, task: Task, source: str) -> None:
    if "/" in str(getattr(config, "_attn_implementation", None)):
        raise UsageError(f"{source}: its config.json asks for code of a hub ({config._attn_implementation})")
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if not task.num_labels and (masked or not causal):
        raise UsageError(f"task={task.name} needs a causal decoder; {source} is a {config.model_type}")
    if config.is_encoder_decoder and config.model_type not in ENCODER_DECODERS:
        raise UsageError(
            f"{source} is an encoder-decoder ({config.model_type}); encoders, causal decoders and, to classify, "
            f"{', '.join(ENCODER_DECODERS)} can be used"
        )


def _set_head(config: Any, task: Task) -> None:
    if not task.num_labels:
        return
    config.num_labels = task.num_labels
    if config.is_encoder_decoder:  # two unnamed outputs are not written down, and BART would be read again with three
        config.id2label = {i: f"output_{i}" for i in range(task.num_labels)}
        config.label2id = {name: i for i, name in config.id2label.items()}
    config.problem_type = "regression" if task.kind == "regress" else "single_label_classification"


def set_pad_token(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Give a tokenizer without a pad token its end-of-text (else unknown) token for it, and tell the model's config.

    The attention mask hides padding, so which token it is changes no result; no embedding is added.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    config.pad_token_id = tokenizer.pad_token_id


def max_length(config: Any, wanted: int, extra: int = 0) -> int:
    """The most tokens a sequence may have: `wanted`, or less where the position embeddings end earlier.

    `extra` positions are taken by something else. Raises UsageError if they leave no room.
    """
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions is None:
        return wanted
    if config.model_type in COUNTED_FROM_PADDING:
        positions -= config.pad_token_id + 1
    if extra >= positions:
        raise UsageError(f"{extra} virtual tokens leave no room among the model's {positions} positions")
    return min(wanted, int(positions) - extra)
