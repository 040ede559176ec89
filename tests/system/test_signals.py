"""SIGTERM and SIGINT while a run works."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rosa_bench.system import signals
from rosa_bench.system.signals import Signals


@pytest.fixture
def handled():
    """Signals that are handled while a test runs, and how often the work was asked to end by itself."""
    asked = []
    handler = Signals(lambda: not asked and not asked.append(1), lambda: None)
    handler.begin()
    yield asked
    handler.end()


def test_sigterm_from_several_senders_at_once_is_one_wish(handled, monkeypatch):
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert handled == [1]
    monkeypatch.setattr(signals, "SAME_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_second_ctrl_c_means_at_once(handled):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
