"""The two mini backbones load offline, match their cards, and model the embedded language."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rosa_bench.embedded as embedded

MODELS = Path(embedded.__file__).parent / "models"
NAMES = ("roberta_mini", "gpt2_mini")
STRANGE = ("Übergröße naïve — 東京 🎉 ﷺ", "tabs\tand\nlines", "a  b   c", "£20-25 | x, y[z]", "\u200bzero", "ﬁ ½ é")
ROWS = {"roberta_mini": ("cola", "sentence"), "gpt2_mini": ("e2e", "meaning_representation")}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


def card_of(name: str) -> dict[str, Any]:
    return json.loads((MODELS / name / "card.json").read_text(encoding="utf-8"))


@cache
def loaded(name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    auto = AutoModelForMaskedLM if name == "roberta_mini" else AutoModelForCausalLM
    return auto.from_pretrained(MODELS / name), AutoTokenizer.from_pretrained(MODELS / name)


def pretraining() -> Any:
    scripts = str(Path(__file__).resolve().parents[2] / "scripts")
    if scripts not in sys.path:
        sys.path.insert(0, scripts)
    import pretrain_minis

    return pretrain_minis


@pytest.mark.parametrize("name", NAMES)
def test_loads_as_the_real_class_in_full_precision(name: str) -> None:
    from transformers import AutoModel

    model, tokenizer = loaded(name)
    assert type(model).__name__ == {"roberta_mini": "RobertaForMaskedLM", "gpt2_mini": "GPT2LMHeadModel"}[name]
    assert model.dtype == torch.float32
    assert len(tokenizer) == model.config.vocab_size
    bare = AutoModel.from_pretrained(MODELS / name).eval()
    out = bare(**tokenizer("The baker sleeps.", return_tensors="pt")).last_hidden_state
    assert out.shape[-1] == model.config.hidden_size and torch.isfinite(out).all()


@pytest.mark.parametrize("name", NAMES)
def test_size(name: str) -> None:
    model, _ = loaded(name)
    count = sum(p.numel() for p in model.parameters())
    assert count == card_of(name)["parameters"] <= 4_000_000
    assert (MODELS / name / "model.safetensors").stat().st_size == card_of(name)["bytes"] <= 8_000_000
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_finite_halves(name: str) -> None:
    for key, tensor in load_file(MODELS / name / "model.safetensors").items():
        assert tensor.dtype == torch.float16, key
        assert torch.isfinite(tensor).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_files_match_the_card(name: str) -> None:
    for file, sha in card_of(name)["sha256"].items():
        assert hashlib.sha256((MODELS / name / file).read_bytes()).hexdigest() == sha, file


@pytest.mark.parametrize("name", NAMES)
def test_card_belongs_to_this_generator(name: str) -> None:
    card = card_of(name)
    assert card["data"]["generator"] == embedded.VERSION
    assert card["steps"] == card["recipe"]["steps"] == card["loss_curve"][-1][0]
    assert (MODELS / name / "README.md").read_text(encoding="utf-8").startswith(f"# {name}")


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_is_lossless(name: str) -> None:
    _, tokenizer = loaded(name)
    task, field = ROWS[name]
    texts = [row[field] for row in embedded.rows(task, "validation")[:100]]
    for text in (*texts, *STRANGE):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        # the tokenizer puts a space before the first word, as before every other one
        assert tokenizer.decode(ids, skip_special_tokens=True).removeprefix(" ") == text


def test_encoder_joins_a_pair_as_roberta_does() -> None:
    _, tokenizer = loaded("roberta_mini")
    one, two = tokenizer("He slept.")["input_ids"], tokenizer("She left.")["input_ids"]
    assert tokenizer("He slept.", "She left.")["input_ids"] == [*one, tokenizer.sep_token_id, *two[1:]]
    assert tokenizer.convert_ids_to_tokens([*range(4), tokenizer.mask_token_id]) == [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "<mask>",
    ]


def test_first_word_looks_like_any_other() -> None:
    for name in NAMES:
        _, tokenizer = loaded(name)
        ids = tokenizer("the baker saw the baker", add_special_tokens=False)["input_ids"]
        half = (len(ids) - len(tokenizer(" saw", add_special_tokens=False)["input_ids"])) // 2
        assert ids[:half] == ids[-half:]


@pytest.mark.parametrize("name", NAMES)
def test_models_the_language(name: str) -> None:
    script = pretraining()
    card, (model, tokenizer) = card_of(name), loaded(name)
    mini = script.Mini(
        **{key: card["recipe"][key] for key in script.Mini.__dataclass_fields__ if key in card["recipe"]}
    )
    loss = script.held_out_loss(mini, model, tokenizer, 200)
    torch.manual_seed(0)
    fresh = script.held_out_loss(mini, type(model)(model.config), tokenizer, 200)
    assert loss == pytest.approx(card["held_out"]["loss"], rel=0.08)
    assert loss < 0.6 * fresh
