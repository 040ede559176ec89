"""Linear layers by oneDNN: the values and gradients of torch for every layout, without lasting changes."""

from __future__ import annotations

import pytest
import torch
from support import METHODS, prepared
from torch import nn
from transformers.pytorch_utils import Conv1D

from rosa_bench.data.batches import collate
from rosa_bench.models import onednn

pytestmark = pytest.mark.skipif(not onednn.available(), reason="this torch has no such operator")


@pytest.fixture(autouse=True)
def wanted(monkeypatch):
    """Pretend that this processor profits from oneDNN."""
    monkeypatch.setattr(onednn, "profits", lambda: True)


CPUINFO = "processor\t: 0\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: 17\n"


@pytest.mark.parametrize(("vendor", "family", "wide"), [("AMD", 26, True), ("AMD", 25, False), ("Intel", 26, False)])
def test_only_amds_of_full_width_profit(vendor, family, wide):
    assert onednn.wide_amd(CPUINFO.format({"AMD": "AuthenticAMD", "Intel": "GenuineIntel"}[vendor], family)) == wide
    assert not onednn.wide_amd("processor\t: 0\n")


def gradients(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Outputs and gradients of all inputs and parameters."""
    layer.zero_grad()
    x = x.clone().requires_grad_(True)
    y = layer(x)
    (y * torch.arange(y.numel()).reshape(y.shape).sin()).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)]


@pytest.mark.parametrize("shape", [(9, 24), (2, 16, 24), (3, 24)])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layer", [nn.Linear(24, 40), nn.Linear(24, 40, bias=False), Conv1D(40, 24)])
def test_values_and_gradients_are_torchs(layer, frozen, shape):
    torch.manual_seed(0)
    layer.requires_grad_(not frozen)
    x = torch.randn(shape)
    expected = gradients(layer, x)
    with onednn.training(layer):
        result = gradients(layer, x)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected[0])
    assert "forward" not in layer.__dict__ and len(result) == len(expected)
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_frozen_weight_keeps_no_input():
    layer = nn.Linear(24, 40).requires_grad_(False)
    kept = []
    x = torch.randn(16, 24, requires_grad=True)
    with onednn.training(layer), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert [tuple(t.shape) for t in kept] == [(40, 24)]


def test_autocast_is_left_alone():
    layer = nn.Linear(24, 40)
    with onednn.training(layer), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(16, 24)).dtype is torch.bfloat16


@pytest.mark.parametrize("name", ["roberta_mini", "gpt2_mini"])
@pytest.mark.parametrize("method", ["full", "lora", "meft"])
def test_a_models_gradients_are_torchs(method, name):
    assert method in METHODS
    _, model, _, rows = prepared(method, name)
    model.eval()
    batch = collate(rows, pad_id=1)

    def step() -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    loss, expected = step()
    with onednn.training(model):
        found_loss, result = step()
    assert found_loss == pytest.approx(loss, rel=1e-5) and result.keys() == expected.keys()
    for key, gradient in expected.items():
        scale = float(gradient.abs().max()) + 1e-4
        assert float((result[key] - gradient).abs().max()) < 2e-4 * scale, key  # a key's bias has none but rounding


def test_decoding_within_training_restores_the_forward_methods():
    layer = nn.Sequential(nn.Linear(24, 40))
    with onednn.training(layer):
        ours = layer[0].__dict__["forward"]
        with onednn.forward_only(layer):
            assert layer[0].__dict__["forward"] is not ours
        assert layer[0].__dict__["forward"] is ours
    assert "forward" not in layer[0].__dict__


def test_outputs_can_be_modified_in_place():
    layer = nn.Linear(24, 40).requires_grad_(False)
    x = torch.randn(2, 16, 24, requires_grad=True)
    with onednn.training(layer):
        y = layer(x)
        y += 2 * y.detach()
        y.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
