"""SIGTERM and SIGINT during a run."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rosa_bench.system import signals
from rosa_bench.system.signals import Signals


@pytest.fixture
def handled():
    """Handles signals during a test and counts stop requests."""
    results = []
    handler = Signals(lambda: not results and not results.append(1), lambda: None)
    handler.begin()
    yield results
    handler.end()


def test_simultaneous_sigterms_are_one_request(handled, monkeypatch):
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert handled == [1]
    monkeypatch.setattr(signals, "SAME_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_second_ctrl_c_stops_immediately(handled):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_a_file_that_cannot_be_written_is_one_line(capsys):
    def main():
        raise OSError(28, "No space left on device", "out.jsonl")

    assert signals.command(main) == 2
    assert capsys.readouterr().err == "rosa_bench: out.jsonl: No space left on device\n"
