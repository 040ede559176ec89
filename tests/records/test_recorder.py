"""What a record says about a run that was interrupted and continued."""

from __future__ import annotations

from support import composed

from rosa_bench.records.recorder import Recorder
from rosa_bench.tables.costs import on_gpu, seconds


def test_a_run_that_continues_on_another_device_names_both_and_has_no_time_in_tables(tmp_path):
    run = composed("method=lora", "task=cola", "train.device=cpu", f"output_dir={tmp_path}")
    (tmp_path / "run").mkdir()
    with Recorder(run, "run", "key", None) as recorder:
        recorder.record.cost["memory"] = {}
        own, clocks, measured = recorder.record.env["device"], recorder.clocks(), recorder.measured()
    for before, names in {own: own, "NVIDIA H100": f"NVIDIA H100, then {own}"}.items():
        with Recorder(run, "run", "key", None) as recorder:
            recorder.continue_from(clocks | {"train_s": 100.0}, measured | {"device": before})
        record = recorder.record
        assert record.env["device"] == names and record.cost["train_s"] == 100.0
        assert (seconds(record) is None) == (on_gpu(record) is None) == (before != own)


def test_a_resumed_run_has_the_largest_peak_of_its_processes(tmp_path):
    run = composed("method=lora", "task=cola", "train.device=cpu", f"output_dir={tmp_path}")
    (tmp_path / "run").mkdir()
    with Recorder(run, "run", "key", None) as recorder:
        recorder.record.cost["memory"] = {}
        clocks, measured = recorder.clocks(), recorder.measured()
    own = measured["peaks"]["peak_rss_bytes"]
    assert own > 0
    for earlier in (own // 2, own * 10):
        with Recorder(run, "run", "key", None) as recorder:
            recorder.continue_from(clocks, measured | {"peaks": {"peak_rss_bytes": earlier}})
            again = recorder.measured()["peaks"]["peak_rss_bytes"]
        assert (recorder.record.cost["peak_rss_bytes"] == again == earlier) == (earlier > own)
