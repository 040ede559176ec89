"""Small randomly initialized models of many `transformers` classes, by name."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t

VOCABULARY = 60
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GROUPED = SIZE | {"num_key_value_heads": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
RELATIVE = SIZE | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
STACK = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
NEXT = {
    "head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["full_attention", "linear_attention"], "num_experts": 2,
    "num_experts_per_tok": 1, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
}  # fmt: skip
CLASSES: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (t.BertConfig, SIZE),
    "roberta": (t.RobertaConfig, SIZE),
    "electra": (t.ElectraConfig, SIZE | {"embedding_size": 16}),
    "deberta": (t.DebertaConfig, RELATIVE),
    "deberta_v2": (t.DebertaV2Config, RELATIVE | {"position_buckets": 8}),
    "deberta_v3": (t.DebertaV2Config, RELATIVE | {"position_buckets": 8, "share_att_key": True}),
    "distilbert": (t.DistilBertConfig, {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "modernbert": (t.ModernBertConfig, SIZE | dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id"), 1)),
    "mpnet": (t.MPNetConfig, SIZE),
    "albert": (t.AlbertConfig, SIZE | {"embedding_size": 16}),
    "gpt2": (t.GPT2Config, GPT),
    "openai_gpt": (t.OpenAIGPTConfig, GPT),
    "gpt_neox": (t.GPTNeoXConfig, SIZE),
    "gpt_neox_japanese": (t.GPTNeoXJapaneseConfig, SIZE | {"intermediate_multiple_size": 2}),
    "gptj": (t.GPTJConfig, GPT | {"rotary_dim": 4}),
    "codegen": (t.CodeGenConfig, GPT | {"rotary_dim": 4}),
    "gpt_bigcode": (t.GPTBigCodeConfig, GPT | {"multi_query": False}),
    "gpt_bigcode_multi_query": (t.GPTBigCodeConfig, GPT | {"multi_query": True}),
    "bloom": (t.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": (t.FalconConfig, SIZE | {"multi_query": False, "new_decoder_architecture": False}),
    "falcon_multi_query": (t.FalconConfig, SIZE | {"multi_query": True, "new_decoder_architecture": False}),
    "falcon_grouped": (t.FalconConfig, SIZE | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "mpt": (t.MptConfig, {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
    "phi": (t.PhiConfig, GROUPED),
    "phi3": (t.Phi3Config, GROUPED | {"pad_token_id": 0}),
    "persimmon": (t.PersimmonConfig, SIZE),
    "opt": (
        t.OPTConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32},
    ),
    "bart": (t.BartConfig, {f"{h}_{k}": v for h in ("encoder", "decoder") for k, v in STACK.items()} | {"d_model": 32}),
    "llama": (t.LlamaConfig, GROUPED),
    "mistral": (t.MistralConfig, GROUPED),
    "qwen2": (t.Qwen2Config, GROUPED),
    "gemma": (t.GemmaConfig, GROUPED | {"head_dim": 16}),
    "mixtral": (t.MixtralConfig, GROUPED | {"num_local_experts": 2}),
    "mamba": (t.MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2}),
    "qwen3_next": (t.Qwen3NextConfig, GROUPED | NEXT),
}
ENCODERS = {"bert", "roberta", "electra", "deberta", "deberta_v2", "deberta_v3", "distilbert", "modernbert", "mpnet"}
ENCODERS |= {"albert", "bart"}


def config_of(name: str, **more: Any) -> Any:
    """The configuration of a class."""
    cls, size = CLASSES[name]
    return cls(**{"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 2} | size | more)


def made(name: str, **more: Any) -> Any:
    """A decoder as a language model, any other class as a classifier with two labels; in evaluation mode."""
    config = config_of(name, **more)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    if name not in ENCODERS:
        return t.AutoModelForCausalLM.from_config(config).eval()
    config.num_labels = 2
    return t.AutoModelForSequenceClassification.from_config(config).eval()


def texts() -> dict[str, torch.Tensor]:
    """Two texts as token ids, with the end token that BART needs."""
    ids = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 11, 12, 2]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
