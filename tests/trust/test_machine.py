"""Full disks, read-only folders, clocks, locales, names and users: it works, or fails with one line."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import killing
import pytest
from killing import Place, arguments, command_line, ended, result, start
from support import SMALL, composed

from rosa_bench.records.record import read_record
from rosa_bench.system import console


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A function that mounts a disk in memory, or remounts it with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        again = "remount," if mounted else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("disks cannot be mounted here")
        mounted.append(place)
        return place

    if shutil.which("mount") is None:
        pytest.skip("disks cannot be mounted here")
    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


def plain(log: Path) -> str:
    """The output, which must not contain a traceback."""
    text = log.read_text(errors="replace")
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize("size", ["2m", "50m"])
def test_a_full_disk_ends_the_run_which_resumes_with_more_space(size, disk, tmp_path, log):
    """The small disk is full in the first checkpoint of 34 MB, the other in a later one."""
    expected, _ = killing.whole(tmp_path / "whole", "full", "roberta_mini")
    own = arguments(disk(f"size={size}") / "runs", "full", "roberta_mini")
    assert ended(start(command_line, own, log=log)) == 1
    assert "no space left on the disk of" in plain(log)
    (path,) = (tmp_path / "disk" / "runs").glob("*/record.json")
    assert read_record(path).status == "failed" and "rosa_bench: see" in log.read_text()
    disk("size=400m")
    assert ended(start(command_line, own, log=log)) == 0, log.read_text()
    assert not killing.differences(expected, result(tmp_path / "disk" / "runs"))


def test_a_disk_full_from_the_start_is_one_line_and_finished_runs_stay(disk, tmp_path, log):
    own = arguments(disk("size=64m") / "runs", "lora", "roberta_mini")
    assert ended(start(command_line, own, log=log)) == 0
    before = result(tmp_path / "disk" / "runs")
    with (tmp_path / "disk" / "ballast").open("wb") as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))
    log.unlink()
    assert ended(start(command_line, [*own, "seed=2"], log=log)) in (1, 2)
    assert "pace left on" in plain(log)
    assert ended(start(command_line, own, log=log)) == 0 and "already done" in log.read_text()
    assert result(tmp_path / "disk" / "runs") == before


def test_a_run_survives_the_loss_of_its_output(tmp_path):
    own = arguments(tmp_path / "runs", "lora", "roberta_mini")
    assert ended(start(command_line, own, log=Path("/dev/full"))) == 0
    assert result(tmp_path / "runs")["record"]["status"] == "done"


def test_a_read_only_folder_still_shows_finished_runs(disk, tmp_path, log):
    own = arguments(disk("size=64m") / "runs", "lora", "roberta_mini")
    assert ended(start(command_line, own, log=log)) == 0
    disk("size=64m,ro")
    assert ended(start(command_line, own, log=log)) == 0 and "already done" in plain(log)
    assert ended(start(command_line, [*own, "seed=2"], log=log)) == 2 and "cannot be written" in plain(log)
    assert ended(start(command_line, [*own, "force=true"], log=log)) == 2
    from rosa_bench.suite import __main__ as suite

    assert suite.main(["smoke", "--dry-run", *own]) == 0  # looks for locks there


def without_rights(folder: str, own: list[str]) -> int:
    """The command line of a user without a home, a database entry or special rights."""
    os.chdir(folder)
    os.environ.pop("HOME", None)

    def unknown(number):
        raise KeyError(number)

    pwd.getpwuid = unknown
    kernel = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert kernel.capget(header, sets) == 0
    for place in range(3):  # effective, permitted, inheritable: root's right to pass over modes
        sets[place] &= ~0b110
    assert kernel.capset(header, sets) == 0
    return command_line(own)


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights cannot be given up here")
def test_a_user_without_rights_and_home(tmp_path, log, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(closed / "cache"))
    own = arguments(closed / "runs", "lora", "roberta_mini")
    assert ended(start(without_rights, str(tmp_path), own, log=log)) == 2
    assert "cannot be written" in plain(log) and not list(closed.iterdir())
    monkeypatch.delenv("ROSA_BENCH_CACHE")
    own = arguments(Path("my runs"), "lora", "roberta_mini")
    assert ended(start(without_rights, str(tmp_path), own, log=log)) == 0, log.read_text()
    assert result(tmp_path / "my runs")["record"]["status"] == "done"


def local_rows(folder: Path) -> Path:
    """CoLA as local files."""
    run = composed("task=cola")
    (folder / "glue" / "cola").mkdir(parents=True)
    for split in run.task.splits:
        rows = [dict(row) for row, _ in zip(run.task.embedded(split), range(60), strict=False)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "glue" / "cola" / f"{split}.jsonl").write_text(lines)
    return folder


def vanishing(place: Place, folder: str, own: list[str]) -> int:
    """The command line, with a folder that disappears at a place."""
    place.reach(lambda: Path(folder).rename(folder + " away"))
    return command_line(own)


def test_vanished_rows_and_weights_are_one_line_and_the_run_resumes_when_they_return(tmp_path, log):
    data = local_rows(tmp_path / "rows ü")
    model = tmp_path / "weights ü"
    shutil.copytree(Path(console.__file__).parent.parent / "embedded" / "models" / "roberta_mini", model)
    more = ["data=local", f"data.dir='{data}'", f"model.path='{model}'", "model.name=roberta_mini"]
    expected, _ = killing.whole(tmp_path / "whole", "lora", "roberta_mini", *more)
    own = arguments(tmp_path / "parts", "lora", "roberta_mini", *more)
    for folder, place in [
        (data, Place("rows", "rosa_bench.suite.worker.report_if_done")),
        (data, Place("rows", "rosa_bench.run.load_split", 2)),
        (model, Place("weights", "rosa_bench.run.load")),
        (model, Place("weights", "rosa_bench.run.Experiment._merge")),  # read once more, to measure the update
    ]:
        log.unlink(missing_ok=True)
        code = ended(start(vanishing, place, str(folder), own, log=log))
        assert code == 2 and "rosa_bench: " in plain(log), (place, log.read_text())
        Path(f"{folder} away").rename(folder)
    log.unlink()
    assert ended(start(command_line, own, log=log)) == 0 and "resuming from step 9" in log.read_text()
    assert not killing.differences(expected, result(tmp_path / "parts"))


def with_a_clock_that_goes_back(own: list[str]) -> int:
    """The command line with a clock that goes back an hour at every reading."""
    real, looks = time.time, iter(range(1, 1 << 30))
    time.time = lambda: real() - 3600 * next(looks)
    return command_line(own)


def test_a_clock_that_goes_back_is_harmless(tmp_path, log):
    expected, _ = killing.whole(tmp_path / "whole", "rosa", "roberta_mini")
    own = arguments(tmp_path / "back", "rosa", "roberta_mini")
    assert ended(start(with_a_clock_that_goes_back, own, log=log)) == 0, log.read_text()
    assert not killing.differences(expected, result(tmp_path / "back"))
    (path,) = (tmp_path / "back").glob("*/record.json")
    assert all(value >= 0 for name, value in read_record(path).cost.items() if name.endswith("_s"))


def in_ascii(own: list[str]) -> int:
    """The command line with an ASCII terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        setattr(sys, name, io.TextIOWrapper(open(os.dup(stream.fileno()), "wb"), encoding="ascii"))  # noqa: PTH123, SIM115
    return command_line(own)


def test_an_ascii_terminal_gets_escapes(tmp_path, log):
    own = arguments(tmp_path / "läufe", "lora", "roberta_mini")
    assert ended(start(in_ascii, own, log=log)) == 0, log.read_text()
    assert "l\\xe4ufe" in plain(log) and (tmp_path / "läufe").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
def test_a_locale_without_utf_8(locale, tmp_path):
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": locale}
    own = arguments(Path("läufe"), "lora", "gpt2_mini")
    done = subprocess.run(
        [sys.executable, "-m", "rosa_bench", *own], cwd=tmp_path, env=environment, capture_output=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "läufe")["record"]["status"] == "done"


def test_names_with_spaces_symbols_and_unicode(tmp_path, log, monkeypatch):
    home = tmp_path / "a folder, with (signs) & ümläuts 例"
    home.mkdir()
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(home / "a cache"))
    data = local_rows(home / "my rows")
    model = home / "my weights"
    shutil.copytree(Path(console.__file__).parent.parent / "embedded" / "models" / "roberta_mini", model)
    own = [*SMALL, "method=lora", "data=local", f"data.dir='{data}'", f"model.path='{model}'", "save=merged"]
    assert ended(start(elsewhere, str(home), [*own, "output_dir='my runs'"], log=log)) == 0, log.read_text()
    (record,) = (home / "my runs").glob("*/record.json")
    assert (record.parent / "merged" / "model.safetensors").is_file() and list((home / "a cache").rglob("*.json"))
    again = ["-cp", str(record.parent), "-cn", "config"]
    assert ended(start(elsewhere, str(home), again, log=log)) == 0 and "already done" in plain(log)


def elsewhere(folder: str, own: list[str]) -> int:
    """The command line in another working directory."""
    os.chdir(folder)
    return command_line(own)


def nowhere(folder: str, own: list[str]) -> int:
    """The command line in a deleted working directory."""
    os.chdir(folder)
    Path(folder).rmdir()
    return command_line(own)


def test_a_deleted_working_directory_is_one_line(tmp_path, log):
    (tmp_path / "gone").mkdir()
    assert ended(start(nowhere, str(tmp_path / "gone"), [*SMALL], log=log)) == 2
    assert "the working directory no longer exists" in plain(log)
