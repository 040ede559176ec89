"""Uploading offline runs: uploaded ones are skipped; failures are reported in one line and can be repeated."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
from tracked import folder_with

from rosa_bench import sync
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE

KEY = "0123456789" * 4


class Nonsense(http.server.BaseHTTPRequestHandler):
    """A server that answers every request with nonsense."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else b"nonsense")

    do_POST = do_HEAD = do_GET  # noqa: N815 - the names are the base class's

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture
def runs(tmp_path):
    """Two offline runs, one of them uploaded."""
    for name in ("first", "second"):
        folder = tmp_path / name / "wandb" / "offline-run-1-a"
        folder.mkdir(parents=True)
        (folder / "run-a.wandb").write_bytes(b"")
    (tmp_path / "first" / "wandb" / "offline-run-1-a" / "run-a.wandb.synced").touch()
    return tmp_path


def test_uploaded_runs_are_skipped(runs, capsys):
    assert [folder.parent.parent.name for folder in sync.waiting(runs)] == ["second"]
    assert sync.main(["--runs", str(runs), "--dry-run"]) == EXIT_DONE
    assert "second" in (message := capsys.readouterr().out) and "first" not in message


def test_each_run_is_uploaded_once(runs, monkeypatch, capsys):
    def marks(folder):
        (folder / "run-a.wandb.synced").touch()

    monkeypatch.setattr(sync, "send", marks)
    monkeypatch.setattr(sync, "refusal", lambda _: None)
    with server() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert sync.main(["--runs", str(runs)]) == EXIT_DONE
        assert "second: uploaded" in capsys.readouterr().out
        assert sync.main(["--runs", str(runs)]) == EXIT_DONE and "0 offline runs" in capsys.readouterr().out


def test_an_address_without_a_scheme_is_one_line(runs, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "wandb.example.org")
    assert sync.main(["--runs", str(runs)]) == EXIT_USAGE
    assert "check WANDB_BASE_URL" in capsys.readouterr().err
    asked = []
    monkeypatch.setattr(sync, "refusal", lambda server: asked.append(server) or "no")
    monkeypatch.setenv("WANDB_BASE_URL", "")
    assert sync.main(["--runs", str(runs)]) == EXIT_USAGE and asked == [sync.SERVER]


def test_without_a_server_nothing_is_lost(runs, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert sync.main(["--runs", str(runs)]) == EXIT_USAGE
    assert "cannot be reached" in capsys.readouterr().err and len(sync.waiting(runs)) == 1


def test_a_real_offline_run_with_a_server_of_nonsense(tmp_path, monkeypatch, capsys):
    folder = folder_with(tmp_path / "run", "done")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-m", "rosa_bench.tracking.mirror", str(folder), "1"], env=environment, check=True, timeout=120
    )
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with server() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert sync.main(["--runs", str(tmp_path)]) == EXIT_USAGE
        assert "does not respond like a wandb server" in capsys.readouterr().err
        monkeypatch.setattr(sync, "refusal", lambda _: None)  # as if it had answered once, and no more
        assert sync.main(["--runs", str(tmp_path)]) == EXIT_FAILED
    assert "run: not uploaded: " in capsys.readouterr().out and len(sync.waiting(tmp_path)) == 1


def test_an_online_mirror_without_a_server_is_kept_offline(tmp_path):
    folder = folder_with(tmp_path / "run", "done")
    content = json.loads((folder / "record.json").read_text())
    content["config"]["tracker"]["mode"] = "online"
    (folder / "record.json").write_text(json.dumps(content))
    environment = os.environ | {"WANDB_API_KEY": KEY, "HOME": str(tmp_path)}
    with server() as address:
        environment["WANDB_BASE_URL"] = address
        command = [sys.executable, "-m", "rosa_bench.tracking.mirror", str(folder), "1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "logging the run offline" in done.stdout, done.stderr
    assert len(sync.waiting(tmp_path)) == 1
