"""What several tests need: composing a configuration as the command line does, and small runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rosa_bench import cli, config

METHODS = config.choices("method")
TASKS = config.choices("task")
MINIS = {"roberta_mini": "cola", "gpt2_mini": "e2e"}  # with the task they are tried on
SMALL = [
    "tracker=none",
    "train.limit_train=48",
    "train.limit_eval=24",
    "train.batch_size=8",
    "train.max_steps=9",
    "train.max_length=48",
    "train.device=cpu",
    "train.log_steps=2",
    "train.checkpoint_steps=2",
]


def composed(*overrides: str) -> config.Run:
    """The run that these command-line overrides mean."""
    return cli.compose(overrides)


def small(folder: Path, *overrides: str) -> config.Run:
    """A run of a few steps whose records go below `folder`."""
    return composed(*SMALL, f"output_dir={folder}", *overrides)


def without_cost(record: Any) -> dict[str, Any]:
    """What of a record has to be the same when the same run is done again."""
    return {name: getattr(record, name) for name in ("key", "status", "scores", "primary", "data", "variant_names")}
