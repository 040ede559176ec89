"""Peak memory of a stretch of time in this process, on its own whatever ran before in it."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch

INTERVAL_S = 0.05
NO_BACKWARD = -1  # torch's name for the running backward pass when there is none
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak resident and peak device bytes from construction to `read`.

    On Linux the kernel's own high-water mark is reset and read; elsewhere a thread samples every 50 ms.
    """

    def __init__(self) -> None:
        self._sampled = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        _give_back()
        try:
            _CLEAR.write_text("5")  # resets VmHWM to the resident size of now
        except OSError:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(INTERVAL_S):
            self._sampled = max(self._sampled, process.memory_info().rss)

    def read(self) -> dict[str, int]:
        """`peak_rss_bytes`, and `peak_device_bytes` where there is a device."""
        out = {"peak_rss_bytes": self._sampled if self._thread else _high_water()}
        if torch.cuda.is_available():
            out["peak_device_bytes"] = torch.cuda.max_memory_allocated()
        return out

    def close(self) -> None:
        """End the sampling thread, if there is one."""
        self._stop.set()


def _give_back() -> None:
    """Return freed memory to the system, so that an earlier run in this process does not count for this one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _high_water() -> int:
    line = next(
        line for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024


class Held:
    """An entry for a tensor that autograd keeps; it counts for as long as it lives itself."""

    def __init__(self, tensor: torch.Tensor, ledger: Ledger) -> None:
        self.ledger = ledger
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        self.ledger.add(self.key, self.size)

    def __del__(self) -> None:
        self.ledger.drop(self.key, self.size)


class Ledger:
    """Bytes of distinct storages held now and at most; `bytes` is the most so far."""

    def __init__(self) -> None:
        self.holders: dict[int, int] = {}
        self.now = self.bytes = 0

    def add(self, key: int, size: int) -> None:
        """One more holder of a storage."""
        if self.holders.setdefault(key, 0) == 0:
            self.now += size
            self.bytes = max(self.bytes, self.now)
        self.holders[key] += 1

    def drop(self, key: int, size: int) -> None:
        """One holder less."""
        self.holders[key] -= 1
        if self.holders[key] == 0:
            self.now -= size


@contextlib.contextmanager
def saved_bytes(model: torch.nn.Module, copies: Iterable[torch.Tensor] = ()) -> Iterator[Ledger]:
    """The most bytes that autograd keeps at a time for backward passes: distinct storages that are not parameters.

    `copies` of parameters count as parameters.

    Covers forward and backward alike, so what a backward pass computes again counts while it is held, by a reversible
    layer or by a checkpointed one.
    """
    hooks = torch.autograd.graph.saved_tensors_hooks
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers(), *copies]}
    ledger = Ledger()

    def is_own(tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in own

    def pack(tensor: torch.Tensor) -> tuple[torch.Tensor, Held | None]:
        return tensor, None if is_own(tensor) else Held(tensor, ledger)

    def unpack(kept: tuple[torch.Tensor, Held | None]) -> torch.Tensor:
        return kept[0]

    def enter(inner: torch.autograd.graph.saved_tensors_hooks) -> None:
        """Activation checkpointing computes again under hooks of its own, which take the place of ours."""

        def counted(tensor: torch.Tensor) -> Any:
            kept = tensor.detach()
            if torch._C._current_graph_task_id() != NO_BACKWARD and not is_own(tensor):
                kept.held = Held(tensor, ledger)  # type: ignore[attr-defined]  # lives as long as this alias
            return inner.pack_hook(kept)

        torch._C._autograd._push_saved_tensors_default_hooks(counted, inner.unpack_hook)

    with hooks(pack, unpack), mock.patch.object(hooks, "__enter__", enter):
        yield ledger
