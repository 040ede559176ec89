"""Hashes of tensors."""

from __future__ import annotations

import hashlib

import torch

from rosa_bench.models.hashing import tensor_hash


def test_a_scalar_has_a_hash():
    """A method may train a gate without dimensions."""
    scalar, vector = torch.tensor(1.5), torch.tensor([1.5])
    assert tensor_hash({"g": scalar}) == hashlib.sha256(b"g () torch.float32\n" + scalar.numpy().tobytes()).hexdigest()
    assert tensor_hash({"g": scalar}) != tensor_hash({"g": vector})
