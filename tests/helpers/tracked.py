"""A run's folder for the tests of the wandb mirror."""

from __future__ import annotations

import json
from pathlib import Path


def folder_with(tmp_path: Path, status: str) -> Path:
    """The folder of a finished run."""
    tmp_path.mkdir(exist_ok=True)
    tracker = {"project": "p", "entity": None, "mode": "offline", "tags": ["a tag", "suite:" + 80 * "x", ""]}
    output = {
        "run_id": "cola-m-lora-s1-0",
        "key": "0" * 64,
        "task": "cola",
        "method": "lora",
        "status": status,
        "config": {"tracker": tracker, "train": {"lr": 0.1}},
        "scores": {"validation": {"": {"matthews": 1.5}}},
    }
    (tmp_path / "record.json").write_text(json.dumps(output))
    events = [{"step": 1, "loss": 0.5}, {"step": 2, "epoch": 1.0, "scores": {"validation": {"matthews": 1.5}}}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"step": 3, "lo')
    return tmp_path
