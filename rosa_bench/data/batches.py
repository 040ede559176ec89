"""Batches: which examples go together (a function of seed and epoch), and how they become padded tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from rosa_bench.core.task import IGNORED, Encoded

POOL = 32  # batches whose examples are sorted by length together; larger values pad less and shuffle less


class Rows(Dataset[tuple[int, Encoded]]):
    """A torch Dataset of encoded examples with their index; `ids` holds the examples' ids."""

    def __init__(self, encoded: Sequence[Encoded], ids: Sequence[str]) -> None:
        self.encoded, self.ids = encoded, ids

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> tuple[int, Encoded]:
        return index, self.encoded[index]


def epoch_order(
    lengths: Sequence[int] | NDArray[np.int64], batch_size: int, seed: int, epoch: int, bucket: bool
) -> list[int]:
    """A permutation of an epoch's examples that depends only on the arguments.

    With `bucket`, each run of `batch_size` examples has similar lengths, and batches come in random order with the
    smaller last batch at the end. In epoch 0 the batch with the longest example comes first, so that a run that would
    exhaust memory fails immediately.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: NDArray[np.int64] = torch.randperm(len(lengths), generator=generator).numpy()
    if bucket:
        size, tokens = batch_size * POOL, np.asarray(lengths)
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            pool[:] = pool[np.argsort(tokens[pool], kind="stable")]
        full = len(order) // batch_size * batch_size
        shuffled = torch.randperm(full // batch_size, generator=generator).numpy()
        batches = order[:full].reshape(-1, batch_size)[shuffled]
        if epoch == 0:
            batches = batches[np.argsort(tokens[batches].max(axis=1, initial=0) < tokens.max(initial=0), kind="stable")]
        order = np.concatenate([batches.reshape(-1), order[full:]])
    numbers: list[int] = order.tolist()
    return numbers


class EpochSampler(Sampler[int]):
    """Samples in `epoch_order`; the trainer sets `epoch` before each pass."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, bucket: bool) -> None:
        self.lengths, self.batch_size, self.seed, self.bucket = np.asarray(lengths), batch_size, seed, bucket
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.lengths, self.batch_size, self.seed, self.epoch, self.bucket))


def padded_length(longest: int, multiple: int, limit: int) -> int:
    """The length of a batch whose longest example has `longest` tokens: the next multiple, but at most `limit`."""
    return max(longest, min(-(-longest // multiple) * multiple, limit))


def padding_multiple(lengths: Sequence[int], phases: int, limit: int) -> int:
    """The first of 8 and 16 that leaves at most 64 combinations of batch length and method phase, else 32."""
    for multiple in (8, 16):
        if len({padded_length(length, multiple, limit) for length in lengths}) * phases <= 64:
            return multiple
    return 32


def collate(batch: Sequence[Encoded], pad_id: int, multiple: int = 1, limit: int = sys.maxsize) -> dict[str, Any]:
    """Right-padded `input_ids`, `attention_mask` (and `token_type_ids`), each [examples, length], and `labels`.

    `length` is the longest example's, rounded up to a multiple of `multiple`, but at most `limit`.

    Labels are [examples] for a class or a score, [examples, outputs] for several outputs (lists of floats), and
    [examples, length] with -100 on padding for generation (lists of token ids).
    """
    longest = padded_length(max(len(item.input_ids) for item in batch), multiple, limit)

    def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
        return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])

    tensors: dict[str, Any] = {
        "input_ids": padded([item.input_ids for item in batch], pad_id),
        "attention_mask": padded([[1] * len(item.input_ids) for item in batch], 0),
    }
    if batch[0].token_type_ids is not None:
        tensors["token_type_ids"] = padded([item.token_type_ids or [] for item in batch], 0)
    labels = batch[0].labels
    if isinstance(labels, list) and not isinstance(labels[0], float):
        tensors["labels"] = padded([item.labels for item in batch], IGNORED)
    elif labels is not None:
        tensors["labels"] = torch.tensor([item.labels for item in batch])
    return tensors


@dataclass(frozen=True)
class BatchInfo:
    """Facts about a batch, kept on the host so that tensors need not be read back from a device."""

    rows: list[int]  # index of each example
    tokens: int  # without padding
    cells: int  # with padding


def collate_with_info(
    batch: Sequence[tuple[int, Encoded]], pad_id: int, multiple: int = 1, limit: int = sys.maxsize
) -> dict[str, Any]:
    """Collate items of `Rows`: the tensors of `collate`, and a `BatchInfo` as `info`."""
    numbers, encoded = zip(*batch, strict=True)
    tensors = collate(encoded, pad_id, multiple, limit)
    tokens = sum(len(item.input_ids) for item in encoded)
    return {**tensors, "info": BatchInfo(list(numbers), tokens, tensors["input_ids"].numel())}
