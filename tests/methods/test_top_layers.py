"""Training of the last layers, and LoRA's parameter count of FT-Top2."""

from __future__ import annotations

import backbones
import pytest
import transformers
from support import prepared

from rosa_bench.errors import UsageError
from rosa_bench.methods.top_layers import TopLayers


def trained(model) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("norm", [False, True])
def test_count_of_ft_top2(norm):
    model = backbones.outline("gpt2_medium")
    TopLayers(layers=2, final_norm=norm).attach(model)
    width = 1024  # twelve squared widths in maps, thirteen widths in biases and norms
    assert sum(trained(model).values()) == 2 * (12 * width**2 + 13 * width) + norm * 2 * width
    assert round(sum(trained(model).values()) / 1e6, 2) == 25.19


@pytest.mark.parametrize("kind, prefix", [("roberta", "roberta.encoder.layer."), ("llama", "model.layers.")])
def test_the_last_layers_train_and_the_head(backbone, kind, prefix):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(backbone(kind), num_labels=2)
    TopLayers(layers=1).attach(model)
    inside = {name for name in trained(model) if name.startswith(f"{prefix}1.")}
    assert inside == {name for name, _ in model.named_parameters() if name.startswith(f"{prefix}1.")}
    assert all(name.startswith(("classifier.", "score.")) for name in trained(model).keys() - inside)
    assert len(trained(model)) > len(inside)


def test_parts_of_layers_are_not_taken_for_layers():
    """XLM has no list of layers, but lists of attentions, feed-forward maps and norms."""
    sizes = {"vocab_size": 40, "emb_dim": 16, "n_layers": 2, "n_heads": 2}
    model = transformers.XLMForSequenceClassification(transformers.XLMConfig(**sizes))
    with pytest.raises(UsageError, match="no list of layers"):
        TopLayers(layers=1).attach(model)


def test_missing_layers_and_norms_are_refused():
    with pytest.raises(UsageError, match="layers=5 is more than the backbone's 4"):
        prepared("top_layers", "gpt2_mini", "method.layers=5")
    with pytest.raises(UsageError, match="no norm after its last layer"):
        prepared("top_layers", "roberta_mini", "method.final_norm=true")
    sizes = {"vocab_size": 40, "hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32, "num_attention_heads": 2}
    post_norm = transformers.OPTConfig(num_hidden_layers=2, do_layer_norm_before=False, **sizes)
    with pytest.raises(UsageError, match="no norm after its last layer"):
        TopLayers(final_norm=True).attach(transformers.OPTForCausalLM(post_norm))
