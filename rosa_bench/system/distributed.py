"""Collectives across the processes that torchrun starts for one run.

With a single process every function returns its input unchanged. Importing this module does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def world_size() -> int:
    """Number of processes of this run, from torchrun's `WORLD_SIZE`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is rank 0, the process that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def _joined() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _device() -> torch.device:
    import torch
    from torch import distributed

    return torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")


def on_devices() -> bool:
    """Whether processes communicate through their GPUs, so that a collective waits for all work queued before it."""
    return _joined() and _device().type == "cuda"


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process."""
    return total([int(flag)])[0] > 0


def total(numbers: list[int]) -> list[int]:
    """Elementwise sums over all processes."""
    if not _joined():
        return numbers
    import torch
    from torch import distributed

    values = torch.tensor(numbers, device=_device())
    distributed.all_reduce(values)
    return [int(value) for value in values.tolist()]


def joined(items: list[int]) -> list[int]:
    """All processes' items, concatenated by rank, on every process."""
    if not _joined():
        return items
    from torch import distributed

    parts: list[list[int]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def wait() -> None:
    """Wait until every process has called this function."""
    if _joined():
        from torch import distributed

        distributed.barrier()


def from_first(value: Any) -> Any:
    """Broadcast a picklable value from rank 0 to all processes."""
    if not _joined():
        return value
    from torch import distributed

    box = [value]
    distributed.broadcast_object_list(box, src=0, device=_device())
    return box[0]


def copy_from_first(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors in place with rank 0's values."""
    if not _joined():
        return
    from torch import distributed

    for tensor in tensors:
        values = tensor.detach().to(_device()).contiguous()
        distributed.broadcast(values, src=0)
        tensor.data.copy_(values)
