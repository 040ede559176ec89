"""Virtual tokens before a text: positions, padding, caches and beams."""

from __future__ import annotations

import pytest
import torch
from backbones import backbone_with_head
from classes import made
from support import THIN, composed, small

from rosa_bench.errors import UsageError
from rosa_bench.methods.peft import PROMPTS
from rosa_bench.run import run as run_experiment

pytest.importorskip("peft")


@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2", "opt"])
@pytest.mark.parametrize("positions", ["shifted", "kept"])
@pytest.mark.parametrize("preset", ["prompt_tuning", "prefix_tuning"])
def test_padding_after_a_prompt_has_no_effect(backbone, preset, kind, positions):
    options = ("method.config.num_virtual_tokens=4", f"method.positions={positions}")
    method = composed(f"method={preset}", *options).method
    assert method.extra_tokens == (4 if positions == "shifted" else 0)
    model = backbone_with_head(backbone(kind), causal=False)
    method.attach(model, seed=1)
    ids = torch.randint(5, 40, (2, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, 6:], ids[1, 6:] = 0, 1
    together = model(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(together[1], model(input_ids=ids[1:, :6], attention_mask=mask[1:, :6]).logits[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2"])
def test_kept_positions_equal_those_without_a_prompt(backbone, kind):
    seen = []
    for positions in ("shifted", "kept"):
        options = ("method.config.num_virtual_tokens=4", f"method.positions={positions}")
        model, plain = (backbone_with_head(backbone(kind), causal=False) for _ in range(2))
        composed("method=prefix_tuning", *options).method.attach(model, seed=1)
        table = next(m for n, m in model.named_modules() if n.endswith(("position_embeddings", "wpe")))
        own = next(m for n, m in plain.named_modules() if n.endswith(("position_embeddings", "wpe")))
        for embedding in (table, own):
            embedding.register_forward_hook(lambda module, args, out: seen.append(args[0].flatten().tolist()))
        ids = torch.arange(5, 12)[None]
        for each in (model, plain):
            each(input_ids=ids, attention_mask=torch.ones_like(ids))
    shifted, output, kept, again = seen
    assert kept == output == again and shifted == [position + 4 for position in output]


@pytest.mark.parametrize(("name", "preset"), [("distilbert", "prompt_tuning"), ("mpt", "prefix_tuning")])
def test_a_prompt_fits_a_backbone_with_its_own_names_of_sizes(name, preset):
    model, ids = made(name), torch.arange(5, 12)[None]
    before = model(input_ids=ids).logits
    composed(f"method={preset}", "method.config.num_virtual_tokens=4").method.attach(model, seed=1)
    after = model(input_ids=ids).logits
    assert after.shape == before.shape and not torch.allclose(after, before)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
@pytest.mark.parametrize("positions", ["shifted", "kept"])
@pytest.mark.parametrize("preset", sorted(PROMPTS & {name.upper() for name in THIN}))
def test_decoding_with_and_without_a_cache_agree(backbone, preset, positions, kind):
    options = ("method.config.num_virtual_tokens=4", f"method.positions={positions}")
    method = composed(f"method={preset.lower()}", *options).method
    model = backbone_with_head(backbone(kind), causal=True)
    method.attach(model, seed=1)
    ids = torch.randint(5, 40, (3, 7), generator=torch.Generator().manual_seed(3))
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    for _ in range(8):
        new = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1].argmax(-1)
        ids = torch.cat([ids, new[:, None]], dim=1)
    assert torch.equal(made, ids)
    beams = model.generate(input_ids=ids[:, :7], attention_mask=torch.ones_like(ids[:, :7]), num_beams=3, **options)
    assert beams.shape == ids.shape


@pytest.mark.parametrize("preset", ["prefix_tuning", "prompt_tuning"])
def test_beam_search_with_a_prompt(preset, tmp_path):
    """With prefixes computed by a network, as in LoRA's tables."""
    network = ("method.config.prefix_projection=true", "method.config.encoder_hidden_size=16")
    own = network if preset == "prefix_tuning" else ()
    overrides = (f"method={preset}", "task=e2e", "task.num_beams=3", "task.no_repeat_ngram=4", *own)
    record = run_experiment(small(tmp_path, *overrides))
    assert record.status == "done" and record.scores["test"][""]["bleu"] >= 0


@pytest.mark.parametrize("preset", ["prompt_tuning", "p_tuning", "prefix_tuning"])
def test_encoder_decoders_refuse_prompts(backbone, preset):
    model = backbone_with_head(backbone("bart"), causal=False)
    with pytest.raises(UsageError, match=f"method={preset} is not supported with BartModel"):
        composed(f"method={preset}", "method.config.num_virtual_tokens=4").method.attach(model, seed=1)


def test_a_prompt_trains_if_the_head_calls_the_decoder(backbone, tmp_path):
    """OPT's language model bypasses the base model and calls its decoder."""
    overrides = (f"model.path={backbone('opt')}", "task=sciq", "method.config.num_virtual_tokens=4")
    record = run_experiment(small(tmp_path, "method=prompt_tuning", *overrides, "train.max_steps=2"))
    assert record.status == "done" and record.facts["start_cosine"] < 0.9999
