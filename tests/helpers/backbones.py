"""Small backbones of several `transformers` classes in folders, built on first use."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

WORDS = "the a cat dog sees hears it and not because where name area food fox inn cheap : | ."
ENCODER = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
DECODER = {"eos_token": "<|endoftext|>"}
SPECIAL = {
    "roberta": ENCODER,
    "bert": ENCODER,
    "bart": ENCODER | {"bos_token": "<s>", "eos_token": "</s>"},
    "opt": {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "</s>"},
}
BART = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}


def _tokenizer(folder: Path, special: dict[str, str]) -> int:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer(add_prefix_space=True)
    names = list(dict.fromkeys(special.values()))
    raw.train_from_iterator([WORDS] * 50, vocab_size=400, special_tokens=names, show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw._tokenizer, **special)
    if "cls_token" in special:
        from tokenizers.processors import RobertaProcessing

        c, s = special["cls_token"], special["sep_token"]
        fast.backend_tokenizer.post_processor = RobertaProcessing((s, raw.token_to_id(s)), (c, raw.token_to_id(c)))
    fast.save_pretrained(folder)
    return len(fast)


def build(kind: str, folder: Path) -> Path:
    """Save a randomly initialized two-layer backbone of a `transformers` class, with its tokenizer."""
    import torch
    import transformers as t

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vocab = _tokenizer(folder, SPECIAL.get(kind, DECODER))
    torch.manual_seed(0)
    if kind == "roberta":
        config = t.RobertaConfig(
            vocab_size=vocab, max_position_embeddings=130, pad_token_id=1, type_vocab_size=1, **size
        )
        model = t.RobertaForMaskedLM(config)
    elif kind == "bert":
        model = t.BertForMaskedLM(t.BertConfig(vocab_size=vocab, max_position_embeddings=128, pad_token_id=1, **size))
    elif kind == "opt":
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}
        size |= {"word_embed_proj_dim": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
        model = t.OPTForCausalLM(t.OPTConfig(vocab_size=vocab, max_position_embeddings=128, **size))
    elif kind == "bart":
        size = {f"{half}_{what}": n for half in ("encoder", "decoder") for what, n in BART.items()} | {"d_model": 32}
        size |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
        model = t.BartForConditionalGeneration(t.BartConfig(vocab_size=vocab, max_position_embeddings=128, **size))
    elif kind == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(vocab_size=vocab, max_position_embeddings=128, **size))
    else:
        config = t.GPT2Config(
            vocab_size=vocab, n_positions=160, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        model = t.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return folder


def build_config(kind: str, folder: Path) -> Path:
    """Save the configuration of a 124 million parameter backbone (for `model.random_init`) and a small tokenizer."""
    import transformers as t

    _tokenizer(folder, ENCODER if kind == "roberta" else DECODER)
    if kind == "roberta":
        t.RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1).save_pretrained(folder)
    else:
        t.GPT2Config(bos_token_id=0, eos_token_id=0).save_pretrained(folder)
    return folder


@cache
def folder(kind: str, whole: bool = True) -> Path:
    """The folder of a small backbone (roberta, bert, bart, gpt2, opt, llama), or of a full-size one without weights."""
    path = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return build(kind, path) if whole else build_config(kind, path)


def outline(kind: str):
    """A full-size model on torch's meta device, for counting parameters.

    Sizes of the public configurations of roberta_base, roberta_large, gpt2, gpt2_medium and gpt2_large.
    """
    import torch
    import transformers as t

    width, layers, heads = {
        "roberta_base": (768, 12, 12),
        "roberta_large": (1024, 24, 16),
        "gpt2": (768, 12, 12),
        "gpt2_medium": (1024, 24, 16),
        "gpt2_large": (1280, 36, 20),
    }[kind]
    if kind.startswith("roberta"):
        size = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        size |= {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
        config = t.RobertaConfig(intermediate_size=4 * width, **size)
    else:
        config = t.GPT2Config(n_embd=width, n_layer=layers, n_head=heads)
    with torch.device("meta"):
        cls = t.AutoModelForCausalLM if kind.startswith("gpt2") else t.AutoModelForSequenceClassification
        return cls.from_config(config)


def backbone_with_head(folder: Path, causal: bool) -> Any:
    """A saved backbone as a language model or as a classifier with two labels, in evaluation mode."""
    import transformers as t

    kind = t.AutoModelForCausalLM if causal else t.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, **({} if causal else {"num_labels": 2}))
    model.config.pad_token_id = 1
    return model.eval()
