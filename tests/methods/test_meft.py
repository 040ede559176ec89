"""MEFT's reversible layers against plain autograd through the same formulas, and its arithmetic against integers."""

from __future__ import annotations

import shutil
from fractions import Fraction

import pytest
import torch
import transformers
from support import composed, small

from rosa_bench.errors import UsageError
from rosa_bench.methods.meft import FACTORS, Meft
from rosa_bench.modules.layer_families import FAMILIES
from rosa_bench.modules.reversible import ReversibleStack
from rosa_bench.modules.streams import Halves, agree, from_stream, halves, to_stream
from rosa_bench.run import run as run_experiment
from rosa_bench.system.memory import saved_bytes

VARIANTS = pytest.mark.parametrize("variant", FACTORS)


def built(kind: str, layers: int = 3, width: int = 32, dropout: float = 0.1) -> transformers.PreTrainedModel:
    """A randomly initialized classifier of a `transformers` class, in training mode."""
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=100,
            n_positions=140,
            n_embd=width,
            n_layer=layers,
            n_head=width // 16,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
        )
        return transformers.GPT2ForSequenceClassification(config).train()
    if kind in ("opt", "bart"):
        return opt_or_bart(kind, layers, width, dropout)
    name = {"roberta": "Roberta", "bert": "Bert"}[kind]
    config = getattr(transformers, f"{name}Config")(
        vocab_size=100,
        max_position_embeddings=140,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        intermediate_size=4 * width,
        pad_token_id=0,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return getattr(transformers, f"{name}ForSequenceClassification")(config).train()


def opt_or_bart(kind: str, layers: int, width: int, dropout: float) -> transformers.PreTrainedModel:
    ids = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "dropout": dropout}
    ids |= {"attention_dropout": dropout, "max_position_embeddings": 140}
    if kind == "opt":
        size = {"hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 4 * width, "num_hidden_layers": layers}
        config = transformers.OPTConfig(num_attention_heads=width // 16, **size, **ids)
        return transformers.OPTForSequenceClassification(config).train()
    size = {"encoder_layers": layers, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "activation_dropout": 0.1}
    size |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 64}
    config = transformers.BartConfig(d_model=width, num_labels=2, **size, **ids)
    return transformers.BartForSequenceClassification(config).train()


def batch_of(examples: int, length: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 100, (examples, length), generator=draw)
    ids[:, length // 2 - 1] = 2  # what ends a text of BART
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0  # one padded row
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.randint(0, 2, (examples,), generator=draw),
    }


def stack_of(model) -> ReversibleStack:
    (stack,) = (m for m in model.modules() if isinstance(m, ReversibleStack))
    return stack


def gradients(model, batch, **autocast) -> torch.Tensor:
    """All trained gradients as one vector, with dropout of a fixed seed."""
    torch.manual_seed(7)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(autocast)):
        loss = model(**batch).loss
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, trained)
    return torch.cat([g.flatten().double() for g in grads])


def plain_forward(self, hidden, *args, **kwargs):
    """The paper's formulas under plain autograd."""
    call = self.bind(*args, **kwargs)
    h1 = h2 = hidden
    lam, beta = (float(f) for f in self.factors)
    for layer in self.layers:
        y1 = lam * h1 + layer.F(h2, call)
        y2 = beta * h2 + layer.G(y1, call)
        h1, h2 = (y2, y1) if self.switch else (y1, y2)
    return self.weights[0] * h1 + self.weights[1] * h2


def error(model, batch, monkeypatch, **autocast) -> float:
    ours = gradients(model, batch, **autocast)
    with monkeypatch.context() as patched:
        patched.setattr(ReversibleStack, "forward", plain_forward)
        plain = gradients(model, batch, **autocast)
    return float((ours - plain).norm() / plain.norm())


@pytest.mark.parametrize("factor", [0.1, 0.3, 0.5, 0.7, 1 / 3, 0.05, 1.0])
@pytest.mark.parametrize("size", [(4, 5), (3, 3)])
def test_factors_are_inverted_exactly(factor, size):
    stream = torch.randint(-(2**40), 2**40, size, generator=torch.Generator().manual_seed(0))
    fraction = Fraction(factor).limit_denominator(256)
    half, zeros = Halves(fraction, torch.float32), torch.zeros(size)
    small, rest, _ = half.forward(stream, zeros)
    assert torch.equal(half.backward(small, zeros, rest)[0], stream)
    assert (small.double() - factor * stream.double()).abs().max() <= 1
    if fraction.denominator <= 16 and rest is not None:
        assert rest.numel() == (stream.numel() + 1) // 2  # half a byte per value


def test_streams_hold_large_and_small_values():
    values = torch.tensor([0.0, 1e-6, -1.5, 3000.0, -1e6])
    assert torch.equal(from_stream(to_stream(values), torch.float32)[2:], values[2:])
    assert (from_stream(to_stream(values), torch.float32) - values).abs().max() < 1e-9


EDGES = [0, 1, 9, 10, 11, 2**31, 2**44 + 3, 2**50 - 1]
FLOATS = [0.0, 2.0**-31, 1.5 * 2.0**-30, 2.5 * 2.0**-30, 0.1, -3.7, 6e4]


def stream_of(value: float) -> int:
    """The nearest multiple of 2**-30, ties to even, by Python's exact fractions."""
    return round(Fraction(value) * 2**30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [Fraction(1, 10), Fraction(1, 3), Fraction(3, 7), Fraction(1, 20), Fraction(1)])
@pytest.mark.parametrize("spare", [0, 1])
def test_half_a_layer_is_exact_arithmetic(factor, dtype, spare):
    """Against Python's integers and fractions, also for an odd number of values."""
    pairs = [(sign * edge, value) for edge in EDGES for value in FLOATS for sign in (1, -1)]
    pairs = pairs[: len(pairs) - spare]
    stream, added = torch.tensor([s for s, _ in pairs]), torch.tensor([v for _, v in pairs]).to(dtype)
    half = halves(factor, torch.float32, torch.device("cpu"))
    total, rest, floats = half.forward(stream, added)
    n, d = factor.numerator, factor.denominator
    values = [stream_of(value) for value in added.tolist()]
    expected = [s * n // d + value for (s, _), value in zip(pairs, values, strict=True)]
    assert total.tolist() == expected and torch.equal(floats, (torch.tensor(expected).double() / 2**30).float())
    back, before = half.backward(total, added, rest)
    assert torch.equal(back, stream) and torch.equal(before, from_stream(stream, torch.float32))


def test_floats_are_nan_where_the_addend_is_not_finite():
    added = torch.tensor([1.0, float("nan"), float("inf"), -2.0])
    _, _, floats = Halves(Fraction(1, 10), torch.float32).forward(torch.zeros(4, dtype=torch.int64), added)
    assert floats.isnan().tolist() == [False, True, True, False]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method. is deprecated:DeprecationWarning")  # importing inductor uses it
@pytest.mark.filterwarnings("ignore:bf16 and fp16 are mixed")  # says inductor of bf16 alone
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for the CPU needs g++")
@pytest.mark.parametrize("factor", [Fraction(1, 10), Fraction(3, 7), Fraction(1, 20), Fraction(1)])
def test_compiled_halves_equal_eager_ones(factor):
    """Bitwise. The same check decides on a GPU whether the compiled halves are used."""
    for dtype in (torch.float32, torch.bfloat16):
        assert agree(Halves(factor, dtype, compiled=True), Halves(factor, dtype), torch.device("cpu"))


def test_halves_that_differ_are_not_used():
    class Off(Halves):
        def forward(self, stream, added):
            total, rest, floats = super().forward(stream, added)
            return total + (stream == 2**44), rest, floats

    eager = Halves(Fraction(1, 10), torch.float32)
    assert agree(eager, eager, torch.device("cpu"))
    assert not agree(Off(Fraction(1, 10), torch.float32), eager, torch.device("cpu"))


@VARIANTS
@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2", "opt", "bart"])
def test_gradients_equal_plain_autograd_with_dropout(kind, variant, monkeypatch):
    model = built(kind, layers=4)
    Meft(variant=variant).attach(model, 3)
    assert error(model, batch_of(3, 9), monkeypatch) < 1e-5


@VARIANTS
@pytest.mark.parametrize(("layers", "autocast", "bound"), [(12, {}, 1e-3), (12, {"bf16": True}, 2e-2)])
def test_gradients_at_the_width_of_roberta_base(variant, layers, autocast, bound, monkeypatch):
    _at_base_width(variant, layers, autocast, bound, monkeypatch)


@pytest.mark.slow
@VARIANTS
@pytest.mark.parametrize(("layers", "autocast", "bound"), [(24, {}, 1e-3), (24, {"bf16": True}, 2e-2)])
def test_gradients_of_twenty_four_layers(variant, layers, autocast, bound, monkeypatch):
    _at_base_width(variant, layers, autocast, bound, monkeypatch)


def _at_base_width(variant, layers, autocast, bound, monkeypatch):
    model = built("roberta", layers=layers, width=768)
    Meft(variant=variant).attach(model, 3)
    assert error(model, batch_of(2, 16), monkeypatch, **autocast) < bound


@VARIANTS
@pytest.mark.parametrize(("frozen", "reversible"), [(0, 0), (0, 2), (1, None), (2, 1)])
def test_some_layers_frozen_and_some_reversible(variant, frozen, reversible, monkeypatch):
    model = built("roberta", layers=4)
    Meft(variant=variant, frozen_layers=frozen, reversible_layers=reversible).attach(model, 3)
    assert stack_of(model).reversible == (4 - frozen if reversible is None else reversible)
    assert error(model, batch_of(3, 9), monkeypatch) < 1e-5
    lower = [p for layer in model.roberta.encoder.layer[:frozen] for p in layer.parameters()]
    assert not any(p.requires_grad for p in lower)


@pytest.mark.parametrize("factors", [(0.5, 0.25), (1.0, 1.0), (1 / 3, 0.1)])
@pytest.mark.parametrize("switch", [True, False])
def test_other_factors_and_orders(factors, switch, monkeypatch):
    model = built("gpt2", layers=4)
    Meft(lambda_factor=factors[0], beta_factor=factors[1], switch=switch).attach(model, 3)
    assert error(model, batch_of(3, 9), monkeypatch) < 1e-5


@pytest.mark.parametrize("factor", ["0.123456789", "1e-10"])
def test_factors_without_a_short_fraction_are_refused(factor):
    with pytest.raises(UsageError, match="lambda_factor"):
        composed("method=meft", f"method.lambda_factor={factor}")


@VARIANTS
def test_keeps_few_activations(variant):
    batch = batch_of(8, 64)
    held = []
    for method in (None, Meft(variant=variant)):
        model = built("roberta", layers=24, width=64)
        if method:
            method.attach(model, 3)
        with saved_bytes(model) as total:
            model(**batch).loss.backward()
        held.append(total.bytes)
    assert held[1] < 0.16 * held[0]  # the paper's best is a reduction by 84 %


def test_a_backward_pass_preserves_the_random_stream():
    model = built("roberta")
    Meft().attach(model, 3)
    loss = model(**batch_of(3, 9)).loss
    before = torch.get_rng_state()
    loss.backward()
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_accumulate_over_two_backward_passes():
    model = built("roberta")
    Meft().attach(model, 3)
    once = gradients(model, batch_of(3, 9))
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(2):
        torch.manual_seed(7)
        model(**batch_of(3, 9)).loss.backward()
    twice = torch.cat([p.grad.flatten().double() for p in trained])
    assert torch.allclose(twice, 2 * once, rtol=1e-5, atol=1e-9)


def test_values_that_are_not_finite_propagate():
    model = built("roberta")
    Meft().attach(model, 3)
    next(p for name, p in model.named_parameters() if "ffn" in name or "intermediate" in name).data.fill_(float("nan"))
    assert model(**batch_of(3, 9)).loss.isnan()


@pytest.mark.parametrize("kind", ["opt", "bart"])
def test_the_two_halves_equal_the_layer(kind):
    """Without the adapter, pre-norm or post-norm, the halves of a layer in sequence equal the layer, with dropout."""
    for before in (True, False):
        model = built(kind)
        holder = model.base_model.decoder if kind == "opt" else model.base_model.encoder
        layer = holder.layers[0]
        if kind == "opt":
            layer.do_layer_norm_before = before
        spelled = FAMILIES[kind].adapt_feed_forward(layer, lambda x: 0.0)
        h = torch.randn(2, 5, 32)
        results = []
        for run in (layer, spelled):
            torch.manual_seed(3)
            results.append(run(h, attention_mask=None))
        assert torch.allclose(results[0], results[1], atol=1e-6)


def test_the_published_settings_of_opt(monkeypatch):
    """Upper layers reversible, lower ones frozen, streams combined with weights 0.1 and 1."""
    model = built("opt", layers=6)
    Meft(frozen_layers=2).attach(model, 3)
    stack = stack_of(model)
    assert stack.reversible == len(stack.layers) == 4 and stack.weights == (0.1, 1.0)
    lower = [p for layer in model.model.decoder.layers[:2] for p in layer.parameters()]
    assert len(model.model.decoder.layers) == 3 and not any(p.requires_grad for p in lower)
    assert error(model, batch_of(3, 10), monkeypatch) < 1e-5


def test_layerdrop_is_refused():
    model = built("opt")
    model.config.layerdrop = 0.1
    with pytest.raises(UsageError, match="layerdrop"):
        Meft().attach(model)


@VARIANTS
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_generates_the_same_with_and_without_a_cache(kind, variant, backbone):
    model = transformers.AutoModelForCausalLM.from_pretrained(backbone(kind))
    Meft(variant=variant).attach(model, 3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(5, 40, (2, 6), generator=torch.Generator().manual_seed(2))
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "pad_token_id": 0, "num_beams": 3}
    model.eval()
    assert torch.equal(*(model.generate(ids, use_cache=cache, **options) for cache in (True, False)))


def test_other_backbones_are_refused_by_name(backbone):
    model = transformers.AutoModelForCausalLM.from_pretrained(backbone("llama"))
    with pytest.raises(UsageError, match="llama"):
        Meft().attach(model)


def test_too_many_layers_are_refused():
    with pytest.raises(UsageError, match="3 layers"):
        Meft(frozen_layers=2, reversible_layers=2).attach(built("roberta"))


def test_a_record_has_the_errors_of_the_inversion(tmp_path):
    record = run_experiment(small(tmp_path, "task=sst2", "method=meft", "method.variant=meft3"))
    assert record.facts["reconstruction_rel_err"] < 1e-7 and record.facts["gradient_rel_err"] < 1e-4
    assert 0.8 < record.facts["start_cosine"] < 1 and "start_score_abs_diff" in record.facts
    with pytest.raises(UsageError, match="gradient_checkpointing"):
        run_experiment(small(tmp_path, "method=meft", "train.gradient_checkpointing=true"))
