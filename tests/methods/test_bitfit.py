"""BitFit: names and number of trained parameters."""

from __future__ import annotations

import backbones
import pytest
import transformers
from support import prepared, steps

from rosa_bench.errors import UsageError
from rosa_bench.methods.bitfit import BitFit


def trained(model) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def test_only_biases_and_the_head_train(backbone):
    for name in ("roberta_mini", "gpt2_mini"):
        run, model, _, rows = prepared("bitfit", name, "method.train_head=false")
        every = {key for key, _ in model.named_parameters() if key.endswith("bias") and "classifier" not in key}
        assert trained(model).keys() == every and any("ln_1" in key or "LayerNorm" in key for key in every)
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        steps(run, model, rows, 2, 1e-3)
        assert {key for key, p in model.named_parameters() if not p.equal(before[key])} <= every


def test_the_biases_of_debertas_queries_and_values_train():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.DebertaForSequenceClassification(transformers.DebertaConfig(vocab_size=50, **sizes))
    BitFit(train_head=False).attach(model)
    attention = "deberta.encoder.layer.0.attention.self"
    assert {f"{attention}.q_bias", f"{attention}.v_bias"} <= trained(model).keys()


@pytest.mark.parametrize("kind, printed", [("roberta_base", 0.1), ("roberta_large", 0.3)])
def test_count_of_the_paper(kind, printed):
    model = backbones.outline(kind)
    BitFit(train_head=False).attach(model)
    width, layers = model.config.hidden_size, model.config.num_hidden_layers
    # per layer q, k, v, o, both feed-forward maps (4 and 1 widths) and two norms; one norm of the embeddings
    assert sum(trained(model).values()) == layers * 11 * width + width
    assert round(sum(trained(model).values()) / 1e6, 1) == printed


def test_a_backbone_without_biases_is_refused(backbone):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(backbone("llama"))
    with pytest.raises(UsageError, match="method=bitfit"):
        BitFit().attach(model)
