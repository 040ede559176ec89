"""The line of progress on pseudo-terminals, plain lines elsewhere, and output that fails."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from support import SMALL
from terminal import on_terminal, shown

from rosa_bench.system import progress

LONGER = ["train.limit_train=2000", "train.max_steps=120", "train.log_steps=2", "train.eval_batch_size=4"]
FIELDS = {
    "share": r"\d+%", "count": r"\d+/120", "time left": r"\d\d:\d\d left", "loss": r"loss \d\.\d{4}",
    "speed": r"\d+ ex/s", "memory": r"\d+(\.\d+)?[MG]B",
}  # fmt: skip
SCRIPT = """
import sys, time, warnings
from rosa_bench.system import progress
progress.DELAY_S = progress.DRAW_S = 0.0
with progress.showing(sys.argv[1]):
    for i in progress.each(range(40), "counting söme wörk", 40):
        time.sleep(0.005)
        if i == 10:
            print("on standard output")
        if i == 20:
            print("on standard error", file=sys.stderr)
        if i == 25:
            warnings.warn("a warning")
        if i == 30:
            print("half a line", end="")
        if i == 35:
            print(" and its end")
print("the end")
"""


def run(folder, *more: str) -> list[str]:
    return [sys.executable, "-m", "rosa_bench", *SMALL, *LONGER, f"output_dir={folder}", *more]


def script(*arguments: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT, *arguments]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_one_line_shows_a_run_on_a_terminal(tmp_path, columns):
    done = on_terminal(run(tmp_path, "task=sst2", "method=lora"), columns)
    assert done.code == 0
    training = [state for state in done.states if re.search(FIELDS["count"], state)]
    assert len(training) > 5 and max(map(len, training)) < columns
    shares = [int(re.search(r"(\d+)%", state).group(1)) for state in training]
    assert shares == sorted(shares) and shares[-1] > 80
    last = training[-1]
    seen = {name for name, pattern in FIELDS.items() if re.search(pattern, last)}
    assert seen == (set(FIELDS) if columns >= 80 else {"share", "count", "time left", "loss"})
    assert "█" in last or columns < 200
    assert not [line for line in done.lines if "%" in line and "ex/s" in line]  # nothing of it is left
    assert any(line.startswith("record: ") for line in done.lines)


def test_the_metric_stays_in_the_line_after_the_first_epoch(tmp_path):
    done = on_terminal(run(tmp_path, "task=sst2", "method=lora", "train.limit_train=160", "train.epochs=6"), 80)
    assert re.search(r"loss \d\.\d{4}  accuracy \d+\.\d\d  \d+ ex/s", "\n".join(done.states))


def test_other_output_is_never_mixed_with_the_line():
    done = on_terminal(script("auto"), 60)
    warning = [line for line in done.lines if "a warning" in line]
    assert done.code == 0 and len(warning) == 1
    assert [line for line in done.lines if line not in warning] == [
        "on standard output", "on standard error", "half a line and its end", "the end", ""
    ]  # fmt: skip
    assert sum("counting" in state for state in done.states) > 20


@pytest.mark.parametrize(
    ("setting", "environment"),
    [("off", {}), ("auto", {"CI": "true"}), ("auto", {"TERM": "dumb"}), ("auto", {"RANK": "1", "WORLD_SIZE": "2"})],
)
def test_there_is_no_line_where_it_is_switched_off(setting, environment):
    done = on_terminal(script(setting), 60, environment)
    assert done.code == 0 and not any("counting" in state for state in done.states)
    assert "half a line and its end" in done.lines


def test_a_pipe_gets_no_control_characters():
    done = subprocess.run(script("auto"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not re.search(r"[\r\x1b]", done.stdout + done.stderr)
    assert "counting" not in done.stdout + done.stderr


def test_a_terminal_without_block_characters():
    done = on_terminal(script("auto"), 100, {"PYTHONIOENCODING": "ascii"})
    text = "\n".join(done.states)
    assert done.code == 0 and "counting s?me w?rk" in text and text.isascii() and "##" in text


def test_a_terminal_without_a_size():
    done = on_terminal(script("auto"), 0)
    assert done.code == 0 and max(map(len, done.states)) == 79


def test_a_closed_terminal_does_not_end_a_run(tmp_path):
    code = f"import os, runpy, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {MAIN}"
    done = on_terminal([sys.executable, "-c", code, *run(tmp_path)[3:], "task=sst2"], 80, close_after="ex/s")
    assert done.code == 0
    (record,) = tmp_path.glob("*/record.json")
    assert '"done"' in record.read_text()


MAIN = "runpy.run_module('rosa_bench', run_name='__main__')"


def test_a_reader_that_goes_away_does_not_end_a_run():
    code = "from rosa_bench.system import progress; progress.REPORT_S = 0; list(progress.each(range(9), 'work', 9))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_an_interrupted_line_is_removed(tmp_path):
    assert shown("a long line\r\x1b[Kshort\n").lines == ["short", ""]
    stop = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    text = stop + SCRIPT.replace("if i == 20:", "if i == 20:\n            os.kill(os.getpid(), signal.SIGINT)")
    done = on_terminal([sys.executable, "-c", text, "auto"], 60)
    assert done.code == -signal.SIGINT
    assert done.lines[:2] == ["on standard output", "Traceback (most recent call last):"]


def test_plain_lines_report_long_work(capsys, monkeypatch):
    monkeypatch.setattr(progress, "REPORT_S", 0.0)
    assert list(progress.each("abcd", "reading", 4)) == list("abcd")
    assert capsys.readouterr().out == "".join(f"  reading: {share}%\n" for share in (25, 50, 75, 100))
    task = progress.Task("copying", 0, unit="B")
    task.advance(1_500_000)
    assert capsys.readouterr().out == "  copying: 1.50MB\n"
    with progress.showing(plain_lines=False):
        list(progress.each("abcd", "reading", 4))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", [1, 2, 10, 25, 40, 80, 200])
@pytest.mark.parametrize("what", ["", "decoding validation_mismatched", "表" * 30])
def test_a_line_is_never_wider_than_its_terminal(columns, what):
    from tqdm.utils import disp_len

    task = progress.Task(what, 3000, details=lambda: ["loss 0.1234", "", "matthews 12.34", "123 ex/s", "1.2GB"])
    task.advance(700)
    assert disp_len(task.line(columns)) < max(columns, 2)


def test_streams_are_restored_and_other_attributes_are_those_of_the_stream():
    out, terminal = io.StringIO(), progress.Terminal(os.open(os.devnull, os.O_RDONLY), "utf-8")
    stream = progress.Above(out, terminal)
    terminal.draw("a line")  # fails: the descriptor is not open for writing
    assert terminal.broken
    stream.writelines(["a\n", "b"])
    assert stream.getvalue() == "a\nb" and terminal.in_line
    os.close(terminal.descriptor)
    assert terminal.columns == 0


def test_a_step_costs_next_to_nothing():
    task = progress.Task("", 10**9, details=list)
    began = time.perf_counter()
    for _ in range(10_000):
        task.advance()
    assert (time.perf_counter() - began) / 10_000 < 20e-6
