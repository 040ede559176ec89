"""SIGTERM and SIGINT during a run."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from rosa_bench.system import signals
from rosa_bench.system.signals import Signals


@pytest.fixture
def own():
    """Handlers, a file descriptor and an alarm of the program that starts the run."""
    fired, source = [], os.pipe()
    os.set_blocking(source[1], False)
    before = {number: signal.getsignal(number) for number in (*signals.WATCHED, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, lambda *_: fired.append(time.monotonic()))
    wakeup = signal.set_wakeup_fd(source[1])
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    yield fired, source[1]
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
        signal.signal(number, handler)
    for descriptor in source:
        os.close(descriptor)


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("context", [contextlib.nullcontext, signals.as_keyboard_interrupt])
def test_a_callers_alarm_and_wakeup_descriptor_survive(own, stopped, context):
    fired, descriptor = own
    handler = Signals(lambda: True, lambda: None)
    with context():
        handler.begin()
        if stopped:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        handler.orderly_end_over()
        handler.ignore()
        handler.end()
    assert not fired
    time.sleep(0.4)
    assert len(fired) == 1
    assert signal.set_wakeup_fd(-1) == descriptor


def test_only_a_command_is_ended_in_a_long_library_call(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(signals, "LIMIT_S", 0.05)
    for context in (contextlib.nullcontext, signals.as_keyboard_interrupt):
        with context():
            handler = Signals(lambda: True, lambda: None)
            handler.begin()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
            handler.end()
        assert len(ended) == (context is not contextlib.nullcontext)


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
