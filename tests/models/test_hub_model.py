"""A backbone on a hub: runs that lose the hub, runs without it, and their records."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from support import forget_hubs, small

import rosa_bench.run as runs
from rosa_bench.errors import UsageError
from rosa_bench.models.load import load, loading_facts


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


@pytest.fixture
def commit(hub_server, backbone) -> str:
    return hub_server.add("models", "org/tiny-roberta", files(backbone("roberta")))


def test_a_model_of_the_hub_equals_its_folder(hub_server, commit, backbone, tmp_path):
    run = small(tmp_path, "model.hub=org/tiny-roberta", "model.revision=main")
    local = small(tmp_path, f"model.path={backbone('roberta')}")
    downloaded, read = load(run.model, run.task, 3)[0], load(local.model, local.task, 3)[0]
    assert downloaded.name_or_path == downloaded.config.name_or_path == "org/tiny-roberta"
    assert all(torch.equal(tensor, read.state_dict()[name]) for name, tensor in downloaded.state_dict().items())


def test_a_hub_model_with_pickled_weights_alone_is_read(hub_server, backbone, tmp_path):
    content = files(backbone("roberta"))
    state, saved = load_tensors(content.pop("model.safetensors")), io.BytesIO()
    torch.save(state, saved)
    hub_server.add("models", "org/pickled", content | {"pytorch_model.bin": saved.getvalue()})
    run = small(tmp_path, "model.hub=org/pickled", "model.revision=main")
    local = small(tmp_path, f"model.path={backbone('roberta')}")
    model, read = load(run.model, run.task, 3)[0], load(local.model, local.task, 3)[0]
    assert all(torch.equal(tensor, read.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert loading_facts(model)["pickled_weights"] == ["pytorch_model.bin"]


def test_a_hub_that_disappears_after_the_download_is_harmless(hub_server, commit, tmp_path, monkeypatch):
    """LoRA merges at the end and compares with the backbone, which is loaded again."""
    loads = []

    def loaded(*arguments):
        loaded_model = load(*arguments)
        loads.append(len(hub_server.requests))
        hub_server.fail(".*", status=503)
        forget_hubs()
        return loaded_model

    monkeypatch.setattr(runs, "load", loaded)
    monkeypatch.setattr("rosa_bench.evaluation.export.load", loaded)
    record = runs.run(small(tmp_path, "method=lora", "model.hub=org/tiny-roberta", "train.max_steps=2"))
    assert record.status == "done" and len(loads) == 2 and loads[0] == loads[1] == len(hub_server.requests)
    assert record.model == "tiny-roberta"
    assert record.config["model"]["revision"] == commit and commit in (
        tmp_path / record.run_id / "config.yaml"
    ).read_text(encoding="utf-8")


def test_a_damaged_weight_ends_the_run_before_training(hub_server, commit, tmp_path):
    run = small(tmp_path, "model.hub=org/tiny-roberta", f"model.revision={commit}")
    load(run.model, run.task, 1)
    (weights,) = (tmp_path / "hub").rglob("snapshots/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.resolve().write_bytes(content)
    forget_hubs()
    with pytest.raises(UsageError, match=r"the cached model\.safetensors is damaged.*Delete .*Use an embedded model"):
        runs.run(run)


@pytest.mark.slow
def test_the_command_line_works_again_without_the_hub(hub_server, commit, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
        "HF_ENDPOINT": hub_server.address, "HF_HOME": str(tmp_path / "home")
    }  # fmt: skip
    command = [sys.executable, "-m", "rosa_bench", "model.hub=org/tiny-roberta", "method=lora", "train.max_steps=1"]
    command += ["train.limit_train=8", "train.limit_eval=8", "tracker=none", f"output_dir={tmp_path / 'runs'}"]
    for more, variables in ([], {}), (["seed=2"], {"HF_HUB_OFFLINE": "1"}):
        done = subprocess.run(
            [*command, *more], env=environment | variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    assert "downloaded org/tiny-roberta" not in done.stdout
    failed = subprocess.run(
        [*command, "model.hub=org/other"], env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "HF_HUB_OFFLINE" in failed.stderr
