"""SIGKILL, SIGTERM and Ctrl-C anywhere: the same command resumes to bitwise the same result."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import killing
import pytest
from killing import DECODING, FINISHING, TRAINING, Place, arguments, at, command_line, differences, ended, result, start
from support import METHODS, MINIS, skip_refused

from rosa_bench.records import checkpoints
from rosa_bench.records.record import read_record
from rosa_bench.system.signals import command

PLACES = {"roberta_mini": [*TRAINING, *FINISHING], "gpt2_mini": [*TRAINING, *DECODING, *FINISHING]}
FEW = {"training", "checkpoint not yet declared whole", "evaluation", "half a batch of texts", "before the last record"}
NAMES = list(MINIS)


def stopped_everywhere(folder: Path, method: str, name: str, places: list[Place], number: int) -> None:
    """Stop one run at every place in sequence, complete it and compare the result."""
    expected, _ = killing.whole(folder / "whole", method, name)
    parts, log = arguments(folder / "parts", method, name), folder / "parts.log"
    for place in places:
        code = ended(start(at, place, number, parts, log=log))
        assert code == (-number if number == signal.SIGKILL else 130), (place.name, code, log.read_text())
    assert ended(start(command_line, parts, log=log)) == 0, log.read_text()
    assert not differences(expected, result(folder / "parts")), log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_every_kind_of_place(name, tmp_path):
    stopped_everywhere(tmp_path, "rosa", name, PLACES[name], signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "rosa"])
def test_every_method_killed_at_some_places(method, name, tmp_path):
    skip_refused(method, name)
    places = [place for place in PLACES[name] if place.name in FEW]
    stopped_everywhere(tmp_path, method, name, places, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_twenty_random_moments(method, name, tmp_path):
    skip_refused(method, name)
    tally = killing.killed_at_random(tmp_path, method, name, 20, f"{method} {name}")
    assert tally.kills == 20 and tally.finished >= 1
    print(f"kills {method} {name}: {tally.kills} kills, {tally.finished} runs ended, all the same")


@pytest.mark.parametrize("name", ["gpt2_mini", pytest.param("roberta_mini", marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_interrupted_at_every_kind_of_place(number, name, tmp_path):
    kept = {"loading", "training", "evaluation", "decoding", "merging"}
    places = [place for place in PLACES[name] if place.name in kept]
    expected, _ = killing.whole(tmp_path / "whole", "rosa", name)
    parts, log = arguments(tmp_path / "parts", "rosa", name), tmp_path / "parts.log"
    for place in places:
        assert ended(start(at, place, number, parts, log=log)) == 130, (place.name, log.read_text())
        line = "rerun the same command to resume from the last checkpoint"
        assert log.read_text().rstrip().endswith(line), place.name
        if place.name != "loading":
            (path,) = (tmp_path / "parts").glob("*/record.json")
            assert read_record(path).status == "interrupted" and checkpoints.checkpoints(path.parent), place.name
    assert ended(start(command_line, parts, log=log)) == 0, log.read_text()
    actual = result(tmp_path / "parts")
    actual["curve"], expected["curve"] = ([e for e in r["curve"] if e["scores"]] for r in (actual, expected))
    assert not differences(expected, actual), log.read_text()  # a stop writes a line of the curve of its own


def test_a_stop_at_the_last_step_of_an_epoch_forgets_no_evaluation(tmp_path):
    expected, _ = killing.whole(tmp_path / "whole", "lora", "roberta_mini")
    parts, log = arguments(tmp_path / "parts", "lora", "roberta_mini"), tmp_path / "parts.log"
    for step in (6, 3):  # the ends of both epochs: the second one three steps after the first
        last = Place("last step of an epoch", "rosa_bench.training.trainer.BenchTrainer.training_step", step)
        assert ended(start(at, last, signal.SIGTERM, parts, log=log)) == 130, log.read_text()
    assert ended(start(command_line, parts, log=log)) == 0
    assert not differences(expected, result(tmp_path / "parts"))


def test_a_stop_between_the_last_step_and_its_evaluation_forgets_none(tmp_path):
    expected, _ = killing.whole(tmp_path / "whole", "lora", "roberta_mini")
    parts, log = arguments(tmp_path / "parts", "lora", "roberta_mini"), tmp_path / "parts.log"
    for count in (1, 1):
        place = Place("end of an epoch", "rosa_bench.training.trainer.Loop.on_epoch_end", count)
        assert ended(start(at, place, signal.SIGTERM, parts, log=log)) == 130, log.read_text()
    assert ended(start(command_line, parts, log=log)) == 0
    actual = result(tmp_path / "parts")
    assert actual["record"]["primary"] == expected["record"]["primary"] and actual["files"] == expected["files"]


def test_evaluating_again_after_a_kill_uses_the_same_precision(tmp_path):
    more = ("train.precision=bf16",)
    expected, _ = killing.whole(tmp_path / "whole", "lora", "roberta_mini", *more)
    parts, log = arguments(tmp_path / "parts", "lora", "roberta_mini", *more), tmp_path / "parts.log"
    place = Place("all steps done", "rosa_bench.evaluation.scorer.Scorer.finish")
    assert ended(start(at, place, signal.SIGKILL, parts, log=log)) == -signal.SIGKILL
    assert ended(start(command_line, parts, log=log)) == 0, log.read_text()
    assert not differences(expected, result(tmp_path / "parts"))


def deaf(place: Place, seconds: int, arguments: list[str]) -> int:
    """The command line, with a library call at a place that never returns and blocks signals."""

    def call():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
        ctypes.CDLL(None).sleep(seconds)

    place.reach(call)
    return command_line(arguments)


def test_a_call_that_never_returns_is_ended_within_ten_seconds(tmp_path):
    place = Place("training", "rosa_bench.training.trainer.BenchTrainer.training_step", 4)
    parts, log = arguments(tmp_path / "parts", "lora", "roberta_mini"), tmp_path / "parts.log"
    process = start(deaf, place, 120, parts, log=log)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "parts").glob("*/checkpoint-2/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)  # to be in the call
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process, 60) == 130 and time.monotonic() - began < 10, log.read_text()
    (path,) = (tmp_path / "parts").glob("*/record.json")
    assert read_record(path).status == "interrupted" and checkpoints.checkpoints(path.parent)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_is_one_line(number, capsys):
    def main() -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            raise AttributeError("as omegaconf does, if it is half made")

    before = signal.signal(number, signal.SIG_IGN)  # as in a job that a shell began in the background
    try:
        assert command(main) == 130 and command(lambda: 2) == 2
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == "rosa_bench: interrupted\n"
