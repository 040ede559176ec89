"""Finished runs write requested artefacts without training, or say how to get them."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file
from support import small

from rosa_bench.errors import UsageError
from rosa_bench.evaluation import export
from rosa_bench.run import run as run_experiment
from rosa_bench.suite.worker import cell_code, report_if_done


def folder_of(tmp_path):
    (record,) = tmp_path.glob("*/record.json")
    return record.parent


@pytest.mark.parametrize(("method", "first"), [("lora", "save=adapter"), ("rosa", "train.keep_checkpoints=true")])
def test_a_later_artefact_equals_that_of_a_run_that_saved_it(tmp_path, method, first):
    common = [f"method={method}", "train.max_steps=3"]
    expected, later = tmp_path / "expected", tmp_path / "later"
    run_experiment(small(expected, *common, "save=merged"))
    run_experiment(small(later, *common, first))
    before = (folder_of(later) / "record.json").read_bytes()
    record = small(later, *common, "save=merged")
    assert report_if_done(record) is None
    run_experiment(record)
    assert (folder_of(later) / "record.json").read_bytes() == before
    ours, theirs = (load_file(folder_of(f) / "merged" / "model.safetensors") for f in (later, expected))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    assert report_if_done(record) == 0


def test_an_adapter_of_kept_checkpoints(tmp_path):
    common = ["method=lora", "train.max_steps=3"]
    run_experiment(small(tmp_path / "a", *common, "save=adapter"))
    run_experiment(small(tmp_path / "b", *common, "train.keep_checkpoints=true"))
    run_experiment(small(tmp_path / "b", *common, "save=adapter"))
    one, other = (folder_of(tmp_path / f) / "adapter" / "adapter.safetensors" for f in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_without_weights_the_message_says_what_to_do(tmp_path, capfd):
    run_experiment(small(tmp_path, "method=lora", "train.max_steps=2"))
    for requested in ("save=merged", "save=adapter", "train.keep_checkpoints=true"):
        again = small(tmp_path, "method=lora", "train.max_steps=2", requested)
        with pytest.raises(UsageError, match=f"train it again with force=true {requested}$"):
            run_experiment(again)
        assert cell_code(again) == 2 and "kept no trained weights" in capfd.readouterr().err


def test_what_cannot_be_merged_is_refused(tmp_path):
    run_experiment(small(tmp_path, "method=meft", "train.max_steps=2", "save=adapter"))
    with pytest.raises(UsageError, match="cannot be merged"):
        run_experiment(small(tmp_path, "method=meft", "train.max_steps=2", "save=merged"))


def test_everything_that_is_missing_is_named(tmp_path):
    run_experiment(small(tmp_path, "method=lora", "train.max_steps=2", "save=adapter"))
    both = "save=merged train.keep_checkpoints=true"
    with pytest.raises(UsageError, match=f"for {both}; train it again with force=true {both}$"):
        run_experiment(small(tmp_path, "method=lora", "train.max_steps=2", *both.split()))


def test_an_adapter_that_peft_cannot_represent_is_enough(tmp_path, monkeypatch):
    def refuse(*_):
        raise export.ExportError("other outputs")

    monkeypatch.setattr(export, "save_peft", refuse)
    run = small(tmp_path, "method=lora", "train.max_steps=2", "save=peft")
    record = run_experiment(run)
    assert record.facts["saved"]["as"] == "adapter" and record.facts["saved"]["peft_error"] == "other outputs"
    assert run_experiment(run).finished == record.finished and report_if_done(run) == 0


def test_weights_of_an_earlier_run_do_not_outlive_it(tmp_path):
    common = ["method=lora", "train.max_steps=2"]
    run_experiment(small(tmp_path, *common, "save=adapter"))
    folder = folder_of(tmp_path)
    for name in ("adapter-r1", "merged", "peft-r1", ".merged-12345678.tmp"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    run_experiment(small(tmp_path, *common, "force=true"))
    assert not [path for path in folder.iterdir() if path.is_dir()]
    with pytest.raises(UsageError, match="kept no trained weights"):
        run_experiment(small(tmp_path, *common, "save=merged"))


def test_starting_again_is_not_resuming(tmp_path):
    run_experiment(small(tmp_path, "method=lora", "train.max_steps=2"))
    before = (folder_of(tmp_path) / "record.json").read_bytes()
    with pytest.raises(UsageError, match="force=true starts again"):
        run_experiment(small(tmp_path, "method=lora", "train.max_steps=2", "force=true", "resume=must"))
    assert (folder_of(tmp_path) / "record.json").read_bytes() == before
