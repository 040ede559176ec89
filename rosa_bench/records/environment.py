"""The environment of a result: versions, commit, device, threads."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rosa_bench.system.distributed import world_size

PACKAGES = (
    "rosa_bench",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "datasets",
    "numpy",
    "scikit-learn",
    "sacrebleu",
    "peft",
)


@lru_cache(maxsize=1)
def code_state() -> dict[str, Any]:
    """The commit of the checkout this package runs from and whether it has changes; empty outside a checkout."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return {}
    try:
        options: dict[str, Any] = {"cwd": root, "capture_output": True, "text": True, "timeout": 10, "check": True}
        sha = subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_sha": sha, "git_dirty": bool(dirty)}


def versions() -> dict[str, str]:
    """Installed versions of the packages a result depends on."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def environment(device: str) -> dict[str, Any]:
    """The `env` of a record; `device` is the configured one."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return {
        "python": sys.version.split()[0],
        "packages": versions(),
        **code_state(),
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu ({processor()})",
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "platform": platform.platform(),
    }


@lru_cache(maxsize=1)
def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
