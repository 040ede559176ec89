"""Hydra sweeps: one record and one process per cell, with any launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from support import SMALL, composed

from rosa_bench import cli
from rosa_bench.records.record import read_record
from rosa_bench.records.run_key import config_key


def test_a_sweep_writes_one_record_per_cell_and_skips_finished_ones(tmp_path, capsys):
    arguments = ["-m", *SMALL, f"output_dir={tmp_path}", "method=lora,rosa", "method.rank=1"]
    assert cli.main(arguments) == 0
    assert len(list(tmp_path.glob("*/record.json"))) == 2
    capsys.readouterr()
    assert cli.main([*arguments[:-1], "method.rank=1,2"]) == 0
    assert capsys.readouterr().out.count("already done") == 2
    records = [read_record(p) for p in tmp_path.glob("*/record.json")]
    assert len({record.key for record in records}) == 4


def test_a_sweep_continues_after_a_wrong_cell(tmp_path, capsys):
    assert cli.main(["-m", *SMALL, f"output_dir={tmp_path}", "method=lora", "method.rank=0,2"]) == 2
    assert len(list(tmp_path.glob("*/record.json"))) == 1


def test_each_cell_of_a_sweep_has_its_own_peak(tmp_path):
    large = "train.limit_train=4000,48"  # the first cell of the sweep holds far more rows than the second
    arguments = ["-m", *SMALL, f"output_dir={tmp_path / 'sweep'}", "method=full", "task=mnli", "train.batch_size=64,2"]
    assert subprocess.run([sys.executable, "-m", "rosa_bench", *arguments, large], timeout=600).returncode == 0
    alone = [*SMALL, f"output_dir={tmp_path / 'alone'}", "method=full", "task=mnli", "train.batch_size=2"]
    assert cli.main(["-m", *alone]) == 0
    peaks = {}
    for path in tmp_path.glob("*/*/record.json"):
        record = read_record(path)
        train = record.config["train"]
        peaks[path.parts[-3], train["batch_size"], train["limit_train"]] = record.cost["peak_rss_bytes"]
    assert peaks["sweep", 2, 48] < 1.03 * peaks["alone", 2, 48] and len(peaks) == 5
    assert max(peaks.values()) > 1.05 * peaks["alone", 2, 48]


def test_a_killed_cell_of_a_sweep_is_reported(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("rosa_bench.suite.worker._child", killed)
    assert cli.main(["-m", *SMALL, f"output_dir={tmp_path}", "method=lora"]) == 1
    assert "the cell's process was killed" in capfd.readouterr().err


def killed(run):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugin", "options"),
    [
        ("hydra_joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_submitit_launcher", ["hydra/launcher=submitit_local"]),
    ],
)
def test_a_sweep_through_another_launcher_writes_the_same_records(tmp_path, plugin, options):
    pytest.importorskip(f"hydra_plugins.{plugin}")
    sweep = ["-m", *SMALL, "method=lora", "method.rank=0,1,2", f"output_dir={tmp_path}"]
    for count in (1, 2):  # the second time what is finished is skipped
        done = subprocess.run(
            [sys.executable, "-m", "rosa_bench", *sweep, *options], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr, (count, done.stderr)
    records = [read_record(path) for path in tmp_path.glob("*/record.json")]
    expected = {config_key(composed(*SMALL, "method=lora", f"method.rank={rank}")) for rank in (1, 2)}
    assert {record.key for record in records} == expected and {record.status for record in records} == {"done"}
