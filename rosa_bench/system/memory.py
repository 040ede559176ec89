"""Peak memory of a section of this process, independent of what ran before it."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

INTERVAL_S = 0.05
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak resident and peak device bytes from construction to `read`.

    On Linux this resets and reads the kernel's high-water mark; elsewhere a thread samples every 50 ms.
    """

    def __init__(self) -> None:
        self._sampled = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        _release_freed_memory()
        try:
            _CLEAR.write_text("5")  # resets VmHWM to the current resident size
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
        """`peak_rss_bytes`; `peak_device_bytes` and `peak_reserved_bytes` if a GPU is available."""
        out = {"peak_rss_bytes": self._sampled if self._thread else _high_water()}
        if torch.cuda.is_available():
            out["peak_device_bytes"] = torch.cuda.max_memory_allocated()
            out["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()  # includes what the allocator has cached
        return out

    def close(self) -> None:
        """Stop the sampling thread, if any."""
        self._stop.set()


def _release_freed_memory() -> None:
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
    """A ledger entry for a tensor that autograd saves; the tensor counts while this object is alive."""

    def __init__(self, tensor: torch.Tensor, ledger: Ledger) -> None:
        self.ledger = ledger
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        self.ledger.add(self.key, self.size)

    def __del__(self) -> None:
        self.ledger.drop(self.key, self.size)


class Ledger:
    """Bytes of distinct storages: `now` is the current total, `bytes` the peak."""

    def __init__(self) -> None:
        self.holders: dict[int, int] = {}
        self.now = self.bytes = 0

    def add(self, key: int, size: int) -> None:
        """Add a reference to a storage."""
        if self.holders.setdefault(key, 0) == 0:
            self.now += size
            self.bytes = max(self.bytes, self.now)
        self.holders[key] += 1

    def drop(self, key: int, size: int) -> None:
        """Drop a reference to a storage."""
        self.holders[key] -= 1
        if self.holders[key] == 0:
            self.now -= size


@contextlib.contextmanager
def saved_bytes(model: torch.nn.Module, copies: Iterable[torch.Tensor] = ()) -> Iterator[Ledger]:
    """Measure the peak bytes that autograd saves for backward: distinct storages other than parameters and buffers.

    `copies` of parameters count as parameters. Both forward and backward passes are measured, so activations that a
    reversible or checkpointed layer recomputes count while they are held.
    """
    hooks = torch.autograd.graph.saved_tensors_hooks
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers(), *copies]}
    ledger = Ledger()

    def is_own(tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in own

    def pack(tensor: torch.Tensor) -> tuple[torch.Tensor, Held | None]:
        return tensor, None if is_own(tensor) else Held(tensor, ledger)

    def unpack(saved: tuple[torch.Tensor, Held | None]) -> torch.Tensor:
        return saved[0]

    def enter(inner: torch.autograd.graph.saved_tensors_hooks) -> None:
        """Also count under the hooks of activation checkpointing, which replace ours during recomputation."""
        theirs = inner.pack_hook

        def counted(tensor: torch.Tensor) -> Any:
            alias = tensor.detach()
            kept = weakref.ref(alias)
            packed = theirs(alias)
            del alias
            if (alive := kept()) is not None and not is_own(tensor):  # checkpointing discards it in the forward pass
                alive.held = Held(tensor, ledger)  # type: ignore[attr-defined]  # lives as long as this alias
            return packed

        inner.pack_hook = counted
        unmeasured(inner)
        inner.pack_hook = theirs

    unmeasured = hooks.__enter__
    with hooks(pack, unpack):
        hooks.__enter__ = enter  # type: ignore[method-assign]
        try:
            yield ledger
        finally:
            hooks.__enter__ = unmeasured  # type: ignore[method-assign]
