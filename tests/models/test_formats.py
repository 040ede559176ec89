"""Pickled and sharded weights equal those of one safetensors file; a pickle runs no code."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from support import composed, small

from rosa_bench import cli, doctor
from rosa_bench.models.load import load, loading_facts
from rosa_bench.run import run as run_experiment
from rosa_bench.system import hub

FORMS = ["pickle", "pickle_shards", "safetensors_shards"]


def copied(folder: Path, to: Path, form: str) -> Path:
    """A copy of a model's folder with its weights in another format."""
    shutil.copytree(folder, to)
    state = {name: tensor.clone() for name, tensor in load_file(to / "model.safetensors").items()}
    (to / "model.safetensors").unlink()
    if form == "pickle":
        torch.save(state, to / "pytorch_model.bin")
    else:
        save_torch_state_dict(state, to, max_shard_size="20KB", safe_serialization=form != "pickle_shards")
        assert len(list(to.glob("*-of-*"))) > 2
    return to


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "task"), [("opt", "sciq"), ("roberta", "cola")])
def test_every_format_gives_the_same_weights(backbone, tmp_path, form, kind, task):
    folder = copied(backbone(kind), tmp_path / "model", form)
    plain, other = (composed(f"model.path={path}", f"task={task}") for path in (backbone(kind), folder))
    expected, result = (load(run.model, run.task, 1)[0] for run in (plain, other))
    for (name, p), (_, q) in zip(expected.named_parameters(), result.named_parameters(), strict=True):
        assert torch.equal(p, q), name
    pickled = loading_facts(result).get("pickled_weights", [])
    assert bool(pickled) == form.startswith("pickle") and all((folder / name).is_file() for name in pickled)


def test_a_pickled_model_runs_and_is_recorded_as_such(backbone, tmp_path):
    folder = copied(backbone("opt"), tmp_path / "model", "pickle")
    record = run_experiment(small(tmp_path, f"model.path={folder}", "task=sciq", "method=meft", "train.max_steps=1"))
    assert record.status == "done" and record.facts["loading"]["pickled_weights"] == ["pytorch_model.bin"]


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["EVIL"],)


def test_a_pickle_that_would_run_code_is_refused(backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EVIL", str(tmp_path / "made"))
    folder = copied(backbone("roberta"), tmp_path / "model", "pickle")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    assert cli.main([f"model.path={folder}", "tracker=none", f"output_dir={tmp_path / 'runs'}"]) == 2
    err = capsys.readouterr().err
    assert "cannot be loaded" in err and err.count("\n") == 1 and not (tmp_path / "made").exists()


def test_a_missing_shard_is_named(backbone, tmp_path, capsys):
    folder = copied(backbone("roberta"), tmp_path / "model", "safetensors_shards")
    shard = sorted(folder.glob("*-of-*"))[1]
    shard.unlink()
    for command in (cli.main, doctor.main):
        assert command([f"model.path={folder}", "tracker=none", f"output_dir={tmp_path / 'runs'}"]) == 2
        printed = capsys.readouterr()
        assert f"lists 1 missing file ({shard.name} ...)" in printed.out + printed.err


def test_no_service_is_asked_to_convert_a_pickle(monkeypatch):
    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub.prepare(True)
    assert os.environ["DISABLE_SAFETENSORS_CONVERSION"] == "1"
