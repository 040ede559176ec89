"""The process that `tracker.mirrored` starts: follows the files of a run and logs them to wandb."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

POLL_S = 1.0
LONGEST_TAG = 64  # characters; wandb rejects a run with a longer or an empty tag


def record_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return value


def follow(folder: Path, pid: int) -> Iterator[dict[str, Any]]:
    """Yield the events of a run as they are written, until the record is final or the process has exited."""
    path, offset = folder / "events.jsonl", 0
    while True:
        ended = record_of(folder)["status"] != "running" or not psutil.pid_exists(pid)
        if path.is_file():
            if path.stat().st_size < offset:
                offset = 0  # a resumed run has truncated the file
            with path.open("rb") as stream:
                stream.seek(offset)
                for line in stream:
                    if line.endswith(b"\n"):
                        offset += len(line)
                        yield json.loads(line)
        if ended:
            return
        time.sleep(POLL_S)


def flat(scores: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten nested scores to `split/variant/metric` names."""
    out: dict[str, float] = {}
    for name, value in scores.items():
        path = f"{prefix}/{name}".strip("/") if name else prefix
        out |= flat(value, path) if isinstance(value, dict) else {path: value}
    return out


def begin(record: dict[str, Any], folder: Path, mode: str) -> Any:
    """Start a wandb run; an online run times out after 30 seconds."""
    import wandb

    tracker = record["config"]["tracker"]
    tags = [*tracker["tags"], record["task"], record["method"], f"key:{record['key'][:8]}"]
    return wandb.init(
        project=tracker["project"],
        entity=tracker["entity"],
        mode=mode,  # type: ignore[arg-type]
        dir=str(folder),
        name=record["run_id"],
        config=record["config"],
        tags=[tag[:LONGEST_TAG] for tag in tags if tag],
        settings=wandb.Settings(x_disable_stats=True, console="off", save_code=False, init_timeout=30),
    )


def main(folder: Path, pid: int) -> None:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # otherwise wandb contacts its error server, even offline
    import wandb

    record = record_of(folder)
    mode = record["config"]["tracker"]["mode"] or os.environ.get("WANDB_MODE", "offline")
    try:
        run = begin(record, folder, mode)
    except (wandb.Error, OSError) as error:
        if mode == "offline":
            raise
        print(f"wandb cannot be reached; logging the run offline: {error}", flush=True)
        wandb.teardown()
        run = begin(record, folder, "offline")
    for event in follow(folder, pid):
        step = event.pop("step")
        scores = flat(event.pop("scores", {}), "scores")
        run.log({**event, **scores}, step=step)
    record = record_of(folder)
    run.summary.update({"status": record["status"], **flat(record.get("scores", {}), "final")})
    run.finish(exit_code=0 if record["status"] == "done" else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
