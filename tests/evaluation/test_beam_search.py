"""Batched search equals `transformers` on one input at a time, for randomly initialized models."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
import transformers
from support import EACH, prepared, skip_refused, steps
from torch import nn

from rosa_bench.data.source import load_split
from rosa_bench.evaluation import beam_search, tree_cache
from rosa_bench.evaluation.beam_search import Search, generated, largest, search
from rosa_bench.models import onednn

END, WORDS = 3, 200
SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "rotary_dim": 4},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    **{kind: {"num_key_value_heads": 2} for kind in ("llama", "mistral", "qwen2", "starcoder2")},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
}
COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def tiny(kind: str, seed: int = 0, deviation: float = 0.3) -> nn.Module:
    """A randomly initialized decoder whose outputs depend on its inputs."""
    own = SIZES.get(kind, {})
    common = {} if kind in ("gpt2", "gptj", "gpt_bigcode") else COMMON | {"max_position_embeddings": 96}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END, "vocab_size": WORDS}
    if kind in ("mistral", "starcoder2"):
        own = own | {"sliding_window": None}
    config = transformers.AutoConfig.for_model(kind, **common, **own, **ids)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, deviation)
    return model


def inputs(*lengths: int, seed: int = 1) -> list[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(4, WORDS, (length,), generator=draw).tolist() for length in lengths]


def options(**changes) -> Search:
    usual = {"num_beams": 4, "max_new_tokens": 16, "no_repeat_ngram": 0, "length_penalty": 1.0}
    return Search(**usual | {"repetition_penalty": 1.0, "end": END} | changes)


def one_by_one(model, prompts, how):
    with torch.inference_mode():
        return [generated(model, [prompt], how)[0] for prompt in prompts]


def penalised(logits, text, how):
    """The logits of one beam: penalties for generated tokens and bans of their n-grams."""
    for word in set(text):
        logits[word] *= how.repetition_penalty if logits[word] < 0 else 1 / how.repetition_penalty
    size = how.no_repeat_ngram
    for i in range(len(text) - size + 1 if size else 0):
        if text[i : i + size - 1] == text[len(text) - size + 1 :]:
            logits[text[i + size - 1]] = -torch.inf
    return logits.log_softmax(-1)


def lora_search(model, prompt, how):
    """Reference for the rules of microsoft/LoRA's gpt2_beam.py: one input, with a full forward pass at each step."""
    beams, candidates = [(0.0, [])], []
    for _ in range(how.max_new_tokens):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + text for _, text in beams])).logits[:, -1]
        continued = []
        for (score, text), own in zip(beams, logits, strict=True):
            best = penalised(own, text, how).topk(how.num_beams)
            continued += [(score + s, [*text, w]) for s, w in zip(*map(torch.Tensor.tolist, best), strict=True)]
        beams = sorted(continued, key=lambda beam: -beam[0])[: how.num_beams]
        candidates += [beam for beam in beams if beam[1][-1] == how.end]
        beams = [beam for beam in beams if beam[1][-1] != how.end]  # one that has ended is continued no more
        if not beams:
            break
    _, best = max((score / len(text) ** how.length_penalty, text) for score, text in [*candidates, *beams])
    return best[: best.index(how.end)] if how.end in best else best


def together(model, prompts, how):
    with torch.inference_mode():
        return search(model, prompts, how)


@pytest.fixture(scope="module")
def gpt2():
    return tiny("gpt2")


@pytest.mark.parametrize(
    ("beams", "ngram", "repetition", "length"),
    [
        *itertools.product((1, 4, 10), (0, 3, 4), (1.0, 1.3), (1.0,)),
        *itertools.product((2, 10), (1, 2), (0.8,), (0.0, 0.8, 2.0, -1.0)),
    ],
)
def test_the_outputs_are_those_of_transformers(gpt2, beams, ngram, repetition, length):
    how = options(num_beams=beams, no_repeat_ngram=ngram, repetition_penalty=repetition, length_penalty=length)
    prompts = inputs(7, 1, 12, 12, 5, 2)
    assert together(gpt2, prompts, how) == one_by_one(gpt2, prompts, how)


@pytest.mark.parametrize("beams", [1, 4, 10])
@pytest.mark.parametrize("bias", [-30.0, 1.0, 6.0, 12.0])
def test_texts_that_end_never_early_or_immediately(beams, bias):
    """A bias on the end of text makes texts end at many different steps."""
    model = tiny("gpt2", seed=5, deviation=0.15)
    embeddings = model.lm_head.weight.data
    model.lm_head.bias = nn.Parameter(torch.zeros(len(embeddings)))
    model.lm_head.bias.data[END] = bias
    prompts = inputs(*range(1, 24))
    result = together(model, prompts, options(num_beams=beams, length_penalty=0.8))
    assert result == one_by_one(model, prompts, options(num_beams=beams, length_penalty=0.8))
    lengths = {len(text) for text in result}
    assert {-30.0: lengths == {16}, 1.0: True, 6.0: min(lengths) < 16, 12.0: max(lengths) < 3}[bias]


def ending(bias, seed=5):
    """A GPT-2 with a bias on the logit of the end of text."""
    model = tiny("gpt2", seed=seed, deviation=0.15)
    model.lm_head.bias = nn.Parameter(torch.zeros(WORDS))
    model.lm_head.bias.data[END] = bias
    return model


@pytest.mark.parametrize("beams", [1, 2, 5, 10])
@pytest.mark.parametrize("ngram", [0, 2, 4])
def test_the_search_of_lora(beams, ngram):
    """Rare, medium and frequent ends; repetitive texts, so that bans and penalties have an effect."""
    prompts, result = inputs(7, 1, 12, 5), []
    for penalty, repetition, new in itertools.product((0.0, 0.8, 1.0, 2.0, -1.0), (1.0, 1.3), (1, 14)):
        model = ending({0.0: 2.0, 0.8: 0.0, 1.0: 3.0, 2.0: 1.0, -1.0: 2.0}[penalty])
        how = options(num_beams=beams, no_repeat_ngram=ngram, length_penalty=penalty, max_new_tokens=new)
        how = dataclasses.replace(how, repetition_penalty=repetition, rules="lora")
        result.append(together(model, prompts, how))
        assert result[-1] == [lora_search(model, prompt, how) for prompt in prompts], how
    lengths = {len(text) for texts in result for text in texts}
    assert {1, 14} < lengths and min(lengths) < 8


@pytest.mark.parametrize("kind", ["gpt_neo", "mistral", "llama"])
def test_the_search_of_lora_with_other_decoders(kind):
    """Models without tree support (a local window, another class) copy keys and values of each beam."""
    model, prompts = tiny(kind), inputs(3, 9, 1, 9)
    if kind == "mistral":
        model.config.sliding_window = 8
    assert tree_cache.supported(model) == (kind == "llama")
    how = options(num_beams=3, no_repeat_ngram=2, repetition_penalty=1.2, length_penalty=0.8, rules="lora")
    assert together(model, prompts, how) == [lora_search(model, prompt, how) for prompt in prompts]


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo"])
@pytest.mark.parametrize("beams", [1, 4])
def test_ngrams_of_the_input_are_banned_or_not(kind, beams):
    """As `transformers` bans them, over the whole sequence or only the text after the input."""
    model, prompts = tiny(kind), [[5, *range(4, 40)], [*range(60, 99), 7]]
    texts = {}
    for over in ("all", "text"):
        how = options(num_beams=beams, no_repeat_ngram=1, ngrams_over=over)
        texts[over] = together(model, prompts, how)
        assert texts[over] == one_by_one(model, prompts, how)
    for prompt, without, text in zip(prompts, texts["all"], texts["text"], strict=True):
        assert not set(prompt) & set(without) and set(prompt) & set(text) and len(set(text)) == len(text)


@pytest.mark.parametrize("new", [1, 2, 40])
def test_maximum_length_of_a_text(gpt2, new):
    prompts = inputs(3, 9, 4)
    how = options(max_new_tokens=new, no_repeat_ngram=3)
    result = together(gpt2, prompts, how)
    assert result == one_by_one(gpt2, prompts, how) and max(map(len, result)) == new


def test_one_input_and_many(gpt2):
    prompts = inputs(*[1 + i % 20 for i in range(80)])
    how = options(no_repeat_ngram=4, length_penalty=0.8)
    result = together(gpt2, prompts, how)
    assert result[:12] == [together(gpt2, [prompt], how)[0] for prompt in prompts[:12]]
    assert result[40:52] == one_by_one(gpt2, prompts[40:52], how)


@pytest.mark.parametrize("kind", tree_cache.KINDS)
def test_decoders_with_tree_support(kind):
    model, prompts = tiny(kind), inputs(3, 9, 1, 9, 6)
    assert tree_cache.supported(model)
    for how in (options(no_repeat_ngram=2, repetition_penalty=1.2), options(num_beams=1, no_repeat_ngram=3)):
        assert together(model, prompts, how) == one_by_one(model, prompts, how)


def test_other_decoders_use_transformers():
    model, prompts = tiny("gpt_neo"), inputs(3, 9, 1, 9)
    assert not tree_cache.supported(model)
    how = options(no_repeat_ngram=2)
    with torch.inference_mode():
        assert generated(model, prompts, how) == one_by_one(model, prompts, how)
    windowed = tiny("mistral")
    windowed.config.sliding_window = 8
    assert not tree_cache.supported(windowed)


def test_settings_in_a_models_generation_config_have_no_effect():
    model, prompts, how = tiny("gpt_neo"), inputs(3), options()
    (text,) = one_by_one(model, prompts, how)
    model.generation_config.suppress_tokens = text
    assert one_by_one(model, prompts, how) == [text] and model.generation_config.suppress_tokens == text


@EACH
def test_modules_of_methods_take_part(method):
    skip_refused(method, "gpt2_mini")
    run, model, tokenizer, rows = prepared(method, "gpt2_mini")
    if not tree_cache.supported(model):
        pytest.skip("behind virtual tokens transformers searches")
    steps(run, model, rows, 3, 1e-2)
    examples = load_split(run.task, run.data, "test", 6).examples
    prompts = [run.task.prompt_ids(example, tokenizer) for example in examples]
    how = options(num_beams=10, no_repeat_ngram=4, length_penalty=0.8, end=tokenizer.eos_token_id)
    model.eval()
    assert together(model, prompts, how) == one_by_one(model, prompts, how)


def test_the_model_is_unchanged(gpt2):
    before = gpt2.config._attn_implementation
    with pytest.raises(IndexError):
        together(gpt2, inputs(90), options(max_new_tokens=20))  # more positions than the model has
    assert gpt2.config._attn_implementation == before
    assert not any("forward" in module.__dict__ for module in gpt2.modules())


def test_padding_has_no_effect(gpt2):
    """The logits after an input do not depend on the rest of the batch."""
    short, long = inputs(2, 30)
    with torch.inference_mode():
        alone, both = (tree_cache.Tree(gpt2, prompts, 3).begin() for prompts in ([short], [short, long]))
    torch.testing.assert_close(both[:1], alone, rtol=1e-5, atol=1e-5)


def test_places_are_reused(gpt2):
    """Beams with a common past need far fewer places than they have tokens."""
    seen = []

    class Watched(tree_cache.Tree):
        def step(self, tokens, parents):
            logits = super().step(tokens, parents)
            seen.append((self.used, int(self.visible.sum(2).max())))
            return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam_search, "Tree", Watched)
        together(gpt2, inputs(5), options(num_beams=10, max_new_tokens=60, no_repeat_ngram=4, end=WORDS + 1))
    assert [depth for _, depth in seen] == list(range(6, 65))
    assert max(used for used, _ in seen) < 5 + 10 * 59 / 2


@pytest.mark.parametrize("words", [7, 64, 65, 1000])
def test_the_largest_of_sums(words):
    draw = torch.Generator().manual_seed(words)
    values, offsets = (torch.randn(*shape, generator=draw) for shape in ((3, 4, words), (3, 4)))
    wanted = (values + offsets[..., None]).flatten(1).topk(8)
    result, index = largest(values, offsets, 8)
    assert torch.equal(result, wanted.values) and torch.equal(index, wanted.indices)


@pytest.mark.skipif(not onednn.available(), reason="this torch has no oneDNN operator")
def test_onednn_products_are_correct():
    _, model, *_ = prepared("lora", "gpt2_mini")
    ids = torch.arange(4, 24).view(2, 10)
    model.eval()
    with torch.inference_mode():
        usual = model(ids).logits
        with onednn.forward_only(model):
            assert "forward" in model.lm_head.__dict__
            result = model(ids).logits
            with torch.autocast("cpu", torch.bfloat16):
                half = model(ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(half, model(ids).logits)
    torch.testing.assert_close(result, usual, rtol=1e-4, atol=1e-4)
    assert "forward" not in model.lm_head.__dict__
