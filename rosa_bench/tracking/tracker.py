"""Mirrors a run to wandb from a process of its own, so that nothing a tracker does can slow or fail the run.

The run writes `record.json` and `events.jsonl`; the mirror follows those files and ends when the record is final or
the run's process is gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rosa_bench.config import Run, Tracker
from rosa_bench.system.distributed import is_first

GRACE_S = 20


def mode(tracker: Tracker) -> Literal["disabled", "offline", "online"]:
    """Where a run is mirrored to: `tracker.mode`, else WANDB_MODE, else offline. WANDB_MODE=disabled always counts."""
    wanted = os.environ.get("WANDB_MODE", "")
    if tracker.name == "none" or wanted == "disabled":
        return "disabled"
    return tracker.mode or ("online" if wanted in ("online", "run") else "offline")


@contextlib.contextmanager
def mirrored(run: Run, folder: Path) -> Iterator[None]:
    """Start the mirror of a run and, at its end, leave it to finish by itself."""
    if mode(run.tracker) == "disabled" or not is_first():
        yield
        return
    command = [sys.executable, "-m", "rosa_bench.tracking.mirror", str(folder.resolve()), str(os.getpid())]
    with contextlib.suppress(OSError), (folder / "mirror.log").open("wb") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder,
            env=_environment(run),
        )
    yield


def _environment(run: Run) -> dict[str, str]:
    package = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    silent = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DISABLE_GIT": "true"}
    return {**os.environ, **silent, "WANDB_MODE": mode(run.tracker), "PYTHONPATH": path}
