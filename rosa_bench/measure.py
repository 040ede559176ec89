"""Peak memory of a stretch of time in this process, on its own whatever ran before in it."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import psutil
import torch

INTERVAL_S = 0.05
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
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
