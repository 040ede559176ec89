"""Batches: labels of every kind."""

from __future__ import annotations

import torch

from rosa_bench.core.task import IGNORED, Encoded
from rosa_bench.data.batches import collate


def test_several_outputs_are_not_padded_like_tokens():
    rows = [Encoded([3, 4, 5], [0.5, -1.0]), Encoded([3], [2.0, 0.0])]
    for multiple in (1, 8):
        labels = collate(rows, pad_id=0, multiple=multiple)["labels"]
        assert torch.equal(labels, torch.tensor([[0.5, -1.0], [2.0, 0.0]]))


def test_labels_of_tokens_are_padded_with_the_ignored_one():
    batch = collate([Encoded([3, 4, 5], [IGNORED, 4, 5]), Encoded([3], [3])], pad_id=0, multiple=4)
    assert batch["labels"].tolist() == [[IGNORED, 4, 5, IGNORED], [3, IGNORED, IGNORED, IGNORED]]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 4)
