"""Check that a tokenizer matches a model, and align their special tokens, inputs and padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers

from rosa_bench.errors import UsageError
from rosa_bench.models.tokens import SAMPLE, frame, plain_ids
from rosa_bench.models.traits import Traits, probe
from rosa_bench.system.console import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT, LONG = "a cat", "a cat sees the dog and hears the fox"
PROBED = 16  # tokens of LONG in the probe


def fit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str) -> dict[str, Any]:
    """Complete the tokenizer from the model's configuration; return the changes for the record.

    Afterwards `model.config.pad_token_id` equals the tokenizer's, `token_type_ids` are returned only if the model uses
    them, and `traits_of(model)` describes how the model reads its inputs.

    Raises:
        UsageError: if tokenizer and model do not match, or the model class does not support right padding.
    """
    _check_vocabulary(tokenizer, model, source)
    facts = _complete(tokenizer, model.config)
    counted_from = model.config.pad_token_id
    is_encoder = is_masked_or_not_causal(model.config)
    if model.get_output_embeddings() is None and is_encoder:
        _check_frame(tokenizer, model, source)
    short, long = _probe_texts(tokenizer, model, source)
    model.config.pad_token_id = tokenizer.pad_token_id
    traits = probe(model, short, long, int(tokenizer.pad_token_id), source)
    if traits.from_padding and counted_from != tokenizer.pad_token_id:
        of_model, of_tokenizer = (tokenizer.convert_ids_to_tokens(i) for i in (counted_from, tokenizer.pad_token_id))
        raise UsageError(
            f"model {source}: {type(model).__name__} counts positions from its padding token, {counted_from} "
            f"({of_model}) by config.json but {tokenizer.pad_token_id} ({of_tokenizer}) by the tokenizer; change one"
        )
    if model.get_output_embeddings() is None:
        facts |= _match_token_types(tokenizer, traits)
    return {"tokenizer": facts} if facts else {}


def is_masked_or_not_causal(config: Any) -> bool:
    """Whether the configuration's class uses bidirectional attention."""
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    return type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING or not causal


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str) -> None:
    """Raise UsageError if tokens lack an embedding, or if `transformers` built the tokenizer without a vocabulary.

    A model may have more embeddings than tokens.
    """
    try:
        embeddings: Any = model.get_input_embeddings()
        rows = int(embeddings.weight.shape[0])
        vocabulary = tokenizer.get_vocab()
    except NotImplementedError:  # a character model without a vocabulary
        return
    if set(vocabulary.values()) <= set(tokenizer.all_special_ids):
        raise UsageError(f"model {source}: its tokenizer has special tokens only; copy its tokenizer files there")
    if beyond := [token for token, index in vocabulary.items() if index >= rows]:
        raise UsageError(
            f"model {source}: the model's {rows} embeddings lack {counted(len(beyond), 'token')} of the tokenizer "
            f"({sorted(beyond)[0]!r} ...); use the model's own tokenizer, or resize and save the model's embeddings"
        )


def _complete(tokenizer: PreTrainedTokenizerBase, config: Any) -> dict[str, Any]:
    """Set missing bos, eos and pad tokens; no token is added to the vocabulary."""
    facts: dict[str, Any] = {}
    others = {tokenizer.pad_token, tokenizer.unk_token, tokenizer.mask_token, None}
    for role in ("bos", "eos"):  # the configuration's default may be any token, such as the pad token
        token = _special(tokenizer, getattr(config, f"{role}_token_id", None))
        if getattr(tokenizer, f"{role}_token_id") is None and token not in others:
            setattr(tokenizer, f"{role}_token", token)
            facts[f"{role}_token"] = f"{token} (by config.json)"
    if tokenizer.pad_token_id is None:
        # Attention masks hide padding. Decoder classifiers read the last non-pad token, so the pad token must differ
        # from the token that the tokenizer appends to a text.
        last = tokenizer(SAMPLE)["input_ids"][-1:]
        named = [_special(tokenizer, getattr(config, "pad_token_id", None)), tokenizer.eos_token, tokenizer.unk_token]
        every = [token for token in (*named, *tokenizer.all_special_tokens) if token is not None]
        every.append(str(tokenizer.convert_ids_to_tokens(0)))
        free = [token for token in every if tokenizer.convert_tokens_to_ids(token) not in last]
        tokenizer.pad_token = (free or every)[0]
        facts["pad_token"] = f"{tokenizer.pad_token} (the tokenizer has none)"
    return facts


def _special(tokenizer: PreTrainedTokenizerBase, index: Any) -> str | None:
    """The special token for an index or list of indices in the configuration; None if it is an ordinary token."""
    index = index[0] if isinstance(index, list) and index else index
    token = tokenizer.added_tokens_decoder.get(index) if isinstance(index, int) else None
    return str(token.content) if token is not None and token.special else None


def _check_frame(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str) -> None:
    """Raise UsageError if an encoder's tokenizer omits the special tokens that its head reads."""
    ids = tokenizer(SAMPLE, SAMPLE)["input_ids"]
    start, separator = (tokenizer.cls_token, tokenizer.bos_token), (tokenizer.sep_token,)
    for place, tokens in (("start", start), ("separator", separator)):
        named = [token for token in tokens if token is not None]
        if named and not any(tokenizer.convert_tokens_to_ids(token) in ids for token in named):
            raise UsageError(
                f"model {source}: {type(tokenizer).__name__} adds no {place} token ({named[0]}) to a text, but "
                f"{type(model).__name__} needs one; give tokenizer.json a post-processor that adds it"
            )
    end = model.config.eos_token_id
    if model.config.is_encoder_decoder and ids[-1] != end:
        raise UsageError(
            f"model {source}: {type(model).__name__} reads the end token {end}, but {type(tokenizer).__name__} ends a "
            f"text with {ids[-1]}; give tokenizer.json a post-processor that adds it"
        )


def _probe_texts(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, source: str
) -> tuple[list[int], list[int]]:
    """A short and a long text as model inputs; for a language model the short text is a prefix of the long one."""
    if model.get_output_embeddings() is None:
        short, long = (tokenizer(text, truncation=True, max_length=PROBED)["input_ids"] for text in (SHORT, LONG))
    else:
        long = [*frame(tokenizer).start, *plain_ids(tokenizer, LONG, f"model {source}")][:PROBED]
        short = long[: len(long) // 2]
    if not 0 < len(short) < len(long):
        raise UsageError(
            f"model {source}: {type(tokenizer).__name__} tokenizes {LONG!r} into {len(long)} tokens; "
            "use the model's own tokenizer"
        )
    return short, long


def _match_token_types(tokenizer: PreTrainedTokenizerBase, traits: Traits) -> dict[str, Any]:
    """Return `token_type_ids` only if the model uses them and supports all their values."""
    if "token_type_ids" not in tokenizer.model_input_names:
        return {}
    highest = max(tokenizer(SAMPLE, SAMPLE)["token_type_ids"])
    if highest < traits.token_types:
        return {}
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
    actual = f"the model has {traits.token_types} of them" if traits.token_types else "the model does not use them"
    return {"token_type_ids": f"not passed: the tokenizer counts to {highest}, {actual}"}
