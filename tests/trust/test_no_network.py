"""Runs contact other machines only on request, and a misbehaving hub gives one line within half a minute."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import SMALL

from rosa_bench import sync

PATIENCE_S = 30
ELSEWHERE = "192.0.2.1"  # an address that is nobody's, kept for documentation


def test_the_block_holds_here_and_in_processes(attempts):
    for ask in (lambda: socket.create_connection((ELSEWHERE, 80), 1), lambda: socket.getaddrinfo("example.org", 80)):
        with pytest.raises(OSError, match="no network"):
            ask()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, pytest.raises(OSError, match="no network"):
        sender.sendto(b"x", (ELSEWHERE, 53))
    code = f"import socket; socket.create_connection(('{ELSEWHERE}', 80), 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "no network" in done.stderr
    assert len(attempts.read_text().splitlines()) == 4


def test_this_machine_can_be_reached():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        listener.listen()
        socket.create_connection(listener.getsockname(), 5).close()


Manners = Callable[[socket.socket, bytes], None]  # what a server does with a connection and what it was asked


def answer(connection: socket.socket, body: bytes, kind: str = "text/html") -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


def hang(connection: socket.socket, requested: bytes) -> None:
    time.sleep(PATIENCE_S)


def reset(connection: socket.socket, requested: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def nonsense(connection: socket.socket, requested: bytes) -> None:
    answer(connection, b"" if requested.startswith(b"HEAD") else b"<html>nonsense</html>")


def no_protocol(connection: socket.socket, requested: bytes) -> None:
    connection.sendall(b"\x00\xff SSH-2.0 hello\r\n\r\n")


def half(connection: socket.socket, requested: bytes) -> None:
    """Announces more bytes than it sends, then stays silent."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
    time.sleep(PATIENCE_S)


def alive_then_hangs(connection: socket.socket, requested: bytes) -> None:
    if requested.startswith(b"HEAD / "):
        answer(connection, b"")
    else:
        time.sleep(PATIENCE_S)


MISBEHAVED = [hang, reset, nonsense, no_protocol, half, alive_then_hangs]


def request(connection: socket.socket) -> bytes:
    """A client's request with its body, which may arrive in a separate packet."""
    output = b""
    while part := connection.recv(65536):
        output += part
        head, _, body = output.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
        if b"\r\n\r\n" in output and len(body) >= (int(length[1]) if length else 0):
            break
    return output


@contextlib.contextmanager
def server(manners: Manners) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server with this behavior on this machine, and the requests it received."""
    requested: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(5)
            requested.append(request(connection))
            manners(connection, requested[-1])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requested
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("manners", MISBEHAVED, ids=lambda manners: manners.__name__)
def test_a_misbehaving_server_gets_no_uploads(manners, monkeypatch):
    monkeypatch.setattr(sync, "TIMEOUT_S", 0.5)
    began = time.monotonic()
    with server(manners) as (address, _):
        assert sync.refusal(address)
    assert time.monotonic() - began < 10


def test_a_server_that_never_stops_sending_gets_no_uploads(monkeypatch):
    """It keeps sending one more byte in time."""

    def drip(connection: socket.socket, requested: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        for _ in range(200):
            connection.sendall(b" ")
            time.sleep(0.05)

    monkeypatch.setattr(sync, "TIMEOUT_S", 0.5)
    began = time.monotonic()
    with server(drip) as (address, _):
        assert sync.refusal(address)
    assert time.monotonic() - began < 8


def test_a_server_that_responds_with_json_gets_uploads():
    with server(lambda connection, requested: answer(connection, b'{"data": {}}', "application/json")) as (
        address,
        requested,
    ):
        assert sync.refusal(address) is None
    assert requested[0].startswith(b"POST /graphql ")


ASKING = """
import sys, time
from rosa_bench.config.compose import compose
from rosa_bench.system import hub
from rosa_bench.errors import UsageError
run = compose(sys.argv[1:])
began = time.monotonic()
hub.prepare(run.needs_hub)
waited = time.monotonic() - began
import datasets, transformers
from rosa_bench.data.source import load_split
from rosa_bench.models.load import load
began = time.monotonic()
try:
    load_split(run.task, run.data, "train")
    load(run.model, run.task, 1)
except UsageError as error:
    print(error)
print(waited + time.monotonic() - began, file=sys.stderr)
"""


def online(**more: str) -> dict[str, str]:
    """An environment in which a hub may be contacted."""
    away = (
        "HF_HUB_OFFLINE",
        "HF_HUB_ETAG_TIMEOUT",
        "HF_HUB_DOWNLOAD_TIMEOUT",
        "TRANSFORMERS_OFFLINE",
        "HF_DATASETS_OFFLINE",
    )
    return {name: value for name, value in os.environ.items() if name not in away} | more


@pytest.mark.slow
@pytest.mark.parametrize("requested", ["data=hub", "model=roberta_base"])
@pytest.mark.parametrize("manners", MISBEHAVED, ids=lambda manners: manners.__name__)
def test_a_run_with_such_a_hub_ends_with_one_line(manners, requested, tmp_path):
    """Includes the hub's own clients, but not the time to import them."""
    with server(manners) as (address, _):
        limits = {} if manners is hang else {"HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
        environment = online(HF_ENDPOINT=address, HF_HOME=str(tmp_path), **limits)
        command = [sys.executable, "-c", ASKING, requested]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("\n") == 1 and "=FOLDER" in done.stdout, done.stdout + done.stderr
    assert float(done.stderr.splitlines()[-1]) < PATIENCE_S


@pytest.mark.parametrize("manners", [hang, nonsense, reset], ids=lambda manners: manners.__name__)
def test_uploading_to_such_a_wandb_ends_with_one_line(manners, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run" / "wandb" / "offline-run-1-a"
    folder.mkdir(parents=True)
    (folder / "run-a.wandb").write_bytes(b"")
    monkeypatch.setattr(sync, "TIMEOUT_S", 0.5)
    with server(manners) as (address, _):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert sync.main(["--runs", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "nothing was uploaded" in err and sync.waiting(tmp_path)


@pytest.mark.slow
def test_a_silent_wandb_ends_with_one_line(tmp_path, monkeypatch, capsys):
    """It answers the first request and then never responds."""

    def once(connection: socket.socket, requested: bytes) -> None:
        if requested.startswith(b"HEAD") or b"__typename" in requested:
            answer(connection, b"" if requested.startswith(b"HEAD") else b"{}", "application/json")
        else:
            time.sleep(60)

    folder = tmp_path / "run" / "wandb" / "offline-run-1-a"
    folder.mkdir(parents=True)
    (folder / "run-a.wandb").write_bytes(b"")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    began = time.monotonic()
    with server(once) as (address, _):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        assert sync.main(["--runs", str(tmp_path)]) == 1
    assert time.monotonic() - began < PATIENCE_S and "not uploaded: " in capsys.readouterr().out


def run_with_mirror(folder: Path, environment: dict[str, str], *before: str) -> subprocess.CompletedProcess[str]:
    """A small run with the default wandb mirror."""
    overrides = [item for item in SMALL if not item.startswith("tracker")]
    command = [*before, sys.executable, "-m", "rosa_bench", *overrides, "train.max_steps=2", f"output_dir={folder}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550)


def mirrors(folder: Path) -> list[psutil.Process]:
    """The processes that mirror runs below a folder."""
    results = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "rosa_bench.tracking.mirror" in process.cmdline() and any(
                str(folder) in word for word in process.cmdline()
            ):
                results.append(process)
    return results


def test_a_run_and_its_mirror_contact_no_machine(tmp_path, attempts):
    """Python's sockets are guarded; other programs, such as wandb's, would use the proxy."""
    with server(nonsense) as (address, requested):
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), address)
        done = run_with_mirror(tmp_path, online(HF_HOME=str(tmp_path / "hf"), HOME=str(tmp_path), **proxies))
        ends = time.monotonic() + 120
        while mirrors(tmp_path) and time.monotonic() < ends:
            time.sleep(0.2)
    assert done.returncode == 0, done.stderr
    assert not requested and not attempts.read_text()
    assert list(tmp_path.glob("*/wandb/offline-run-*/*.wandb")), "there was no mirror to watch"


@pytest.mark.slow
def test_a_run_without_any_network(tmp_path):
    """In a network namespace without even a loopback, which covers programs other than Python."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no namespace may be made here")
    done = run_with_mirror(tmp_path, online(HF_HOME=str(tmp_path / "hf")), *alone)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*/record.json")
    assert json.loads(path.read_text())["status"] == "done"
