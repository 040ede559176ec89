"""Randomly initialized small models of many `transformers` classes, and tokenizers of every kind, in folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = "the a cat dog sees hears it and not because where name area food fox inn cheap : | ."
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
POSITIONS = {"max_position_embeddings": 64}
IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
HALVES = {
    f"{half}_{what}": value
    for half in ("encoder", "decoder")
    for what, value in {"layers": 2, "attention_heads": 2, "ffn_dim": 64}.items()
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2}
GROUPED = {**SIZE, **POSITIONS, "num_key_value_heads": 1}
ENCODERS: dict[str, dict[str, Any]] = {
    "roberta": {**SIZE, **POSITIONS, **IDS, "type_vocab_size": 1},
    "bert": {**SIZE, **POSITIONS, **IDS},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, **POSITIONS, **IDS},
    "electra": {**SIZE, **POSITIONS, **IDS, "embedding_size": 32},
    "deberta-v2": {**SIZE, **POSITIONS, **IDS, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "mpnet": {**SIZE, **POSITIONS, **IDS},
    "modernbert": {**SIZE, **POSITIONS, **IDS, "cls_token_id": 0, "sep_token_id": 2},
    "xlm-roberta": {**SIZE, **POSITIONS, **IDS},
    "camembert": {**SIZE, **POSITIONS, **IDS},
    "longformer": {**SIZE, **POSITIONS, **IDS, "attention_window": 8, "type_vocab_size": 1},
    "data2vec-text": {**SIZE, **POSITIONS, **IDS},
    "xlm-roberta-xl": {**SIZE, **POSITIONS, **IDS},
    "xmod": {**SIZE, **POSITIONS, **IDS, "languages": ["en"], "default_language": "en"},
    "ibert": {**SIZE, **POSITIONS, **IDS},
    "roberta-prelayernorm": {**SIZE, **POSITIONS, **IDS},
    "luke": {**SIZE, **POSITIONS, **IDS, "entity_vocab_size": 10},
    "markuplm": {**SIZE, **POSITIONS, **IDS},
    "mra": {**SIZE, **POSITIONS, **IDS},
    "albert": {**SIZE, **POSITIONS, **IDS, "embedding_size": 16},
    "funnel": {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 32, "block_sizes": [1, 1], **IDS},
    "bart": {"d_model": 32, **HALVES, **POSITIONS, **IDS},
}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {**GPT, "n_positions": 64},
    "gpt_neox": {**SIZE, **POSITIONS},
    "opt": {**SIZE, **POSITIONS, **IDS, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "gemma": GROUPED | {"head_dim": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "biogpt": {**SIZE, **POSITIONS, **IDS},
    "openai-gpt": {**GPT, "n_positions": 64},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {  # classes that cannot read batches padded on the right, and why
    "xlnet": ({"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 32, **IDS}, "needs padding on the left"),
    "fnet": ({**SIZE, **POSITIONS, **IDS}, "takes no attention_mask"),
    "convbert": (
        {**SIZE, **POSITIONS, **IDS, "embedding_size": 32, "head_ratio": 1},
        "reads padding as part of a text",
    ),
}
KINDS = ENCODERS | DECODERS | {kind: sizes for kind, (sizes, _) in REFUSED.items()}
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
FRAMED = SPECIAL | {"cls_token": "<s>", "sep_token": "</s>"}


def byte_level(**options: Any) -> Any:
    """A tokenizer like GPT-2's: <s> 0, <pad> 1, </s> 2, <unk> 3, <mask> 4; adds nothing to a text."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer(add_prefix_space=False)
    raw.train_from_iterator([WORDS] * 50, vocab_size=400, special_tokens=list(SPECIAL.values()), show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=raw._tokenizer, **options)


def framed(tokenizer: Any) -> Any:
    """The tokenizer with <s> and </s> around texts and pairs, and token types 0 and 1."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def started(tokenizer: Any) -> Any:
    """The tokenizer with <s> before a text, as for decoders."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def word_piece(**options: Any) -> Any:
    """A tokenizer like BERT's."""
    import tokenizers as t
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    words = [*SPECIAL.values(), *WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    raw = t.Tokenizer(t.models.WordPiece(vocabulary, unk_token="<unk>"))
    raw.normalizer, raw.pre_tokenizer = t.normalizers.BertNormalizer(), t.pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=raw, **options)


def unigram(**options: Any) -> Any:
    """A tokenizer like T5's and XLM-R's, whose pieces include the special tokens."""
    import tokenizers as t
    from transformers import PreTrainedTokenizerFast

    pieces = [(token, 0.0) for token in SPECIAL.values()]
    pieces += [("▁" + word, -5.0) for word in WORDS.split()] + [(chr(c), -9.0) for c in range(33, 127)] + [("▁", -8.0)]
    raw = t.Tokenizer(t.models.Unigram(pieces, unk_id=3))
    raw.pre_tokenizer = t.pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, **options)


def metaspace(**options: Any) -> Any:
    """A tokenizer like Llama 2's: ▁ before every text and for white space, merges within words, byte fallback."""
    import tokenizers as t
    from transformers import PreTrainedTokenizerFast

    raw = t.Tokenizer(t.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = t.normalizers.Sequence([t.normalizers.Prepend("▁"), t.normalizers.Replace(" ", "▁")])
    texts = [f"{WORDS} ▁▁ the cat  sees a dog Question: Why? Answer: because of the fox"] * 50
    trainer = t.trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*SPECIAL.values(), *(f"<0x{b:02X}>" for b in range(256))], show_progress=False
    )
    raw.train_from_iterator([word for text in texts for word in text.split()], trainer)
    raw.decoder = t.decoders.Sequence([t.decoders.Replace("▁", " "), t.decoders.ByteFallback(), t.decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=raw, **options)


def tokenizer_for(kind: str) -> Any:
    """A tokenizer that fits the class."""
    return framed(byte_level(**FRAMED)) if kind not in DECODERS else byte_level(eos_token="</s>", pad_token="<pad>")


def model_of(kind: str, auto: str, **more: Any) -> Any:
    """A randomly initialized model. `auto` is the suffix of `AutoModel`, such as ForCausalLM, or empty."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(KINDS[kind] | {"vocab_size": 400} | more))
    return getattr(transformers, f"AutoModel{auto}").from_config(config)


def saved(kind: str, folder: Path, auto: str | None = None, tokenizer: Any = None, **more: Any) -> Path:
    """Save a model, by default of the class of public checkpoints, and its tokenizer; return the folder."""
    model = model_of(kind, auto if auto is not None else pretrained_as(kind), **more)
    model.save_pretrained(folder)
    (tokenizer or tokenizer_for(kind)).save_pretrained(folder)
    return folder


def pretrained_as(kind: str) -> str:
    """The class of public checkpoints."""
    if kind == "bart":
        return "ForSeq2SeqLM"
    return "ForCausalLM" if kind in DECODERS else "" if kind in ("markuplm", "xlnet", "mra") else "ForMaskedLM"


def tensors_of(folder: Path) -> dict[str, Any]:
    """The tensors of a folder."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def write_tensors(folder: Path, tensors: dict[str, Any]) -> Path:
    """Replace the tensors of a folder."""
    from safetensors.torch import save_file

    save_file(
        {name: t.clone().contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder
