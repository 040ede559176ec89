"""Mirrors a run to wandb from a separate process, so that the tracker can neither slow down nor fail the run.

The run writes `record.json` and `events.jsonl`; the mirror follows these files and exits when the record is final or
the run's process has exited.
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


def mode(tracker: Tracker) -> Literal["disabled", "offline", "online"]:
    """The wandb mode of a run: `tracker.mode`, else WANDB_MODE, else offline. WANDB_MODE=disabled takes precedence."""
    variable = os.environ.get("WANDB_MODE", "")
    if tracker.name == "none" or variable == "disabled":
        return "disabled"
    return tracker.mode or ("online" if variable in ("online", "run") else "offline")


@contextlib.contextmanager
def mirrored(run: Run, folder: Path) -> Iterator[None]:
    """Start the mirror of a run. It finishes by itself after the block."""
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
