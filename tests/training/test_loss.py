"""The loss of a step against the model's own, and its independence of micro-batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers

from rosa_bench.tasks.kinds import classify, generate, regress
from rosa_bench.training.trainer import StepLoss

KINDS = {module.KIND.name: module.KIND for module in (classify, generate, regress)}


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_equals_the_loss_of_the_model(backbone, kind):
    labels = torch.tensor([0, 1, 1]) if kind == "classify" else torch.tensor([0.5, 4.0, 2.5])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        backbone("roberta"), num_labels=2 if kind == "classify" else 1
    ).eval()
    outputs = model(input_ids=torch.randint(5, 40, (3, 7)), labels=labels)
    assert torch.allclose(StepLoss(KINDS[kind], 0.0)(outputs, labels, 3), outputs.loss)


def test_equals_the_loss_of_a_language_model(backbone):
    model = transformers.AutoModelForCausalLM.from_pretrained(backbone("gpt2")).eval()
    ids = torch.randint(5, 40, (3, 7))
    labels = ids.masked_fill(torch.arange(7) < torch.tensor([[2], [4], [3]]), -100)
    outputs = model(input_ids=ids, labels=labels)
    assert torch.allclose(StepLoss(KINDS["generate"], 0.0)(outputs, labels, int((labels != -100).sum())), outputs.loss)


def test_smoothing_mixes_in_the_mean_over_the_vocabulary():
    logits, labels = torch.randn(4, 6), torch.tensor([1, 2, 3, 5])
    outputs = SimpleNamespace(logits=logits)
    logp = logits.log_softmax(-1)
    nll = -logp[torch.arange(4), labels]
    assert torch.allclose(
        StepLoss(KINDS["classify"], 0.1)(outputs, labels, 4), (0.9 * nll + 0.1 * -logp.mean(-1)).mean(), atol=1e-6
    )


@pytest.mark.parametrize("cuts", [[8], [4, 4], [3, 3, 2], [1] * 8])
def test_the_sum_over_micro_batches_is_the_mean_of_the_step(cuts):
    logits, labels = torch.randn(8, 3), torch.randint(0, 3, (8,))
    parts = zip(logits.split(cuts), labels.split(cuts), strict=True)
    total = sum(StepLoss(KINDS["classify"], 0.0)(SimpleNamespace(logits=part), output, 8) for part, output in parts)
    assert torch.allclose(total, torch.nn.functional.cross_entropy(logits, labels))
