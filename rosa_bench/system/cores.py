"""CPU cores, without torch: its number of threads is set before it is imported."""

from __future__ import annotations

import os


def processor_cores() -> int:
    """Number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
