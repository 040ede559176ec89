"""The mirror: one offline wandb run per record, finished even if the run fails, without affecting the run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from support import SMALL, composed
from tracked import folder_with

from rosa_bench.tracking import mirror, tracker


def test_follows_complete_lines_until_the_record_is_final(tmp_path):
    folder = folder_with(tmp_path, "failed")
    assert [event["step"] for event in mirror.follow(folder, os.getpid())] == [1, 2]


def test_ends_when_the_process_is_gone(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert len(list(mirror.follow(folder_with(tmp_path, "running"), gone.pid))) == 2


def test_flat_names():
    nested = {"validation": {"": {"matthews": 1.0}, "r4": {"matthews": 2.0}}}
    assert mirror.flat(nested, "final") == {"final/validation/matthews": 1.0, "final/validation/r4/matthews": 2.0}


@pytest.mark.parametrize("status", ["done", "failed"])
def test_writes_an_offline_run_without_an_account(tmp_path, status):
    folder = folder_with(tmp_path, status)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"HOME": str(tmp_path)}
    command = [sys.executable, "-m", "rosa_bench.tracking.mirror", str(folder), "1"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert written.stat().st_size > 500


def test_a_mirror_that_cannot_start_changes_nothing(tmp_path):
    """A broken wandb represents all failures of a tracker."""
    (tmp_path / "path" / "wandb").mkdir(parents=True)
    (tmp_path / "path" / "wandb" / "__init__.py").write_text("raise RuntimeError('broken')")
    search = os.pathsep.join([str(tmp_path / "path"), os.environ["PYTHONPATH"]])
    environment = os.environ | {"PYTHONPATH": search}
    overrides = [item for item in SMALL if not item.startswith("tracker")]
    command = [sys.executable, "-m", "rosa_bench", *overrides, f"output_dir={tmp_path / 'runs'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "broken" not in done.stdout + done.stderr
    (log,) = (tmp_path / "runs").glob("*/mirror.log")
    end = time.monotonic() + 30
    while "broken" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    assert "broken" in log.read_text()


@pytest.mark.parametrize(
    ("variable", "overrides", "expected"),
    [
        (None, [], "offline"),
        ("disabled", [], "disabled"),
        ("disabled", ["tracker.mode=online"], "disabled"),
        ("online", [], "online"),
        ("online", ["tracker.mode=offline"], "offline"),
        ("dryrun", [], "offline"),
        ("online", ["tracker=none"], "disabled"),
    ],
)
def test_wandb_mode_is_respected(variable, overrides, expected, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert tracker.mode(composed(*overrides).tracker) == expected


def test_a_disabled_mirror_is_not_started(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with tracker.mirrored(composed(), tmp_path):
        assert not list(tmp_path.iterdir())
