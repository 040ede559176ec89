"""Small backbones of several real classes, built once per session, and a clean environment for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

SHARED = Path(__file__).parent.parent.parent / "shared"
WORDS = "the a cat dog sees hears it and not because where name area food fox inn cheap : | ."


def _tokenizer(folder: Path, special: dict[str, str]) -> int:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer(add_prefix_space=True)
    raw.train_from_iterator([WORDS] * 50, vocab_size=400, special_tokens=list(special.values()), show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw._tokenizer, **special)
    if "cls_token" in special:
        from tokenizers.processors import RobertaProcessing

        c, s = special["cls_token"], special["sep_token"]
        fast.backend_tokenizer.post_processor = RobertaProcessing((s, raw.token_to_id(s)), (c, raw.token_to_id(c)))
    fast.save_pretrained(folder)
    return len(fast)


def build(kind: str, folder: Path) -> Path:
    """A two-layer backbone of a real class with random weights and its tokenizer, saved as `transformers` saves it."""
    import torch
    import transformers as t

    encoder = {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    decoder = {"eos_token": "<|endoftext|>"}
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vocab = _tokenizer(folder, encoder if kind in ("roberta", "bert") else decoder)
    torch.manual_seed(0)
    if kind == "roberta":
        config = t.RobertaConfig(
            vocab_size=vocab, max_position_embeddings=130, pad_token_id=1, type_vocab_size=1, **size
        )
        model = t.RobertaForMaskedLM(config)
    elif kind == "bert":
        model = t.BertForMaskedLM(t.BertConfig(vocab_size=vocab, max_position_embeddings=128, pad_token_id=1, **size))
    elif kind == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(vocab_size=vocab, max_position_embeddings=128, **size))
    else:
        config = t.GPT2Config(
            vocab_size=vocab, n_positions=160, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        model = t.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A function from a kind (roberta, bert, gpt2, llama) to the folder of a small backbone of that class."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = build(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def shared_data() -> Path:
    """The folder of real rows beside the checkout; tests that need it are skipped without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no folder of real rows beside the checkout")
    return SHARED / "data"
