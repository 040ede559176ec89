"""Whether a hub is asked at all: servers on this machine that answer, refuse, fail, say nothing or are not there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from support import composed

from rosa_bench.data import hub


@contextlib.contextmanager
def serving(status: int) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"{}")

        do_GET = do_HEAD  # noqa: N815 - the names are the base class's

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(
        os, "environ", {k: v for k, v in os.environ.items() if not k.lower().startswith(("hf_", "http"))}
    )


@pytest.mark.parametrize(("status", "expected"), [(200, True), (404, True), (503, False)])
def test_an_answer_is_a_sign_of_life(status, expected):
    with serving(status) as address:
        assert hub.answers(address) is expected


def test_silence_and_nobody_there_are_none(monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.3)
    began = time.monotonic()
    with silent() as address:
        assert not hub.answers(address)
    assert not hub.answers(address) and not hub.answers("nonsense")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("overrides", "asked"), [((), False), (("data=hub",), True), (("model=roberta_base",), True)])
def test_only_a_run_that_wants_a_hub_asks_it(monkeypatch, overrides, asked):
    run = composed("task=cola", *overrides)
    for status in (200, 503):
        with serving(status) as address:
            monkeypatch.setattr(os, "environ", {"HF_ENDPOINT": address})
            hub.prepare(run)
            assert (os.environ.get("HF_HUB_OFFLINE") != "1") == (asked and status == 200)
