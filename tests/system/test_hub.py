"""Files of a hub: real clients against a hub on the loopback that fails, sends wrong data, refuses and disappears."""

from __future__ import annotations

import errno
import os
import shutil
import time

import pytest
from hub_server import Repository
from huggingface_hub import constants
from support import composed, forget_hubs

from rosa_bench.models import identity
from rosa_bench.system import hub, progress

LARGE = bytes(range(256)) * 200  # redirected, and known by its sha256
MODEL = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": LARGE}


def failure(call) -> str:
    """The one-line message of a failing call."""
    with pytest.raises(hub.HubError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pinned_model_is_downloaded_once(hub_server, hub_offline):
    commit = hub_server.add("models", "org/name", {**MODEL, "pytorch_model.bin": b"pickle", "onnx/model.onnx": LARGE})
    folder = hub.model("org/name", commit)
    assert sorted(path.name for path in folder.iterdir()) == sorted(MODEL)
    assert (folder / "model.safetensors").read_bytes() == LARGE
    hub_server.requests.clear()
    forget_hubs()
    assert hub.model("org/name", commit) == folder and not hub_server.requests
    hub_offline()
    assert hub.model("org/name", commit) == folder and not hub_server.requests


@pytest.mark.parametrize(
    ("files", "weights", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "flax_model.msgpack"], True, ["model.safetensors"]),
        (["pytorch_model.bin", "tf_model.h5"], True, ["pytorch_model.bin"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
            True,
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (["model.safetensors", "model.fp16.safetensors", "vocab.txt"], True, ["model.safetensors", "vocab.txt"]),
        (["model.safetensors"], False, []),
    ],
)
def test_only_the_files_that_are_needed_are_downloaded(hub_server, files, weights, chosen):
    commit = hub_server.add("models", "org/name", {"config.json": b"{}"} | {file: file.encode() for file in files})
    folder = hub.model("org/name", commit, weights)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["config.json", *chosen])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "holds an adapter (adapter_config.json); merge it"),
        (["config.json", "model.safetensors", "adapter_config.json"], "holds an adapter (adapter_config.json)"),
        (["config.json", "tf_model.h5"], "neither model.safetensors nor pytorch_model.bin (it has tf_model.h5)"),
        (["config.json"], "it has no weights"),
        (["model.safetensors"], "has no config.json"),
    ],
)
def test_a_repository_without_a_model_is_refused_before_the_download(hub_server, files, expected):
    commit = hub_server.add("models", "org/name", dict.fromkeys(files, b"{}"))
    assert expected in failure(lambda: hub.model("org/name", commit))
    assert not any("/resolve/" in request for request in hub_server.requests)


TRANSIENT = [
    ("GET /api/models/[^/]+/[^/]+/revision", {"status": 503}),
    ("GET /api/models/[^/]+/[^/]+/revision", {"status": 429}),
    ("GET /api/models/[^/]+/[^/]+/revision", {"delay_s": 1.5}),
    ("GET /cdn", {"status": 503}),
    ("GET /cdn", {"status": 520}),
    ("GET /cdn", {"shorten": 1000}),
    ("GET /cdn", {"keep": 1000}),
    ("HEAD .*safetensors", {"status": 500}),
]


@pytest.mark.parametrize(("pattern", "fault"), TRANSIENT, ids=lambda value: str(value))
def test_a_temporary_failure_is_retried(hub_server, pattern, fault):
    commit = hub_server.add("models", "org/name", MODEL)
    hub_server.fail(pattern, **fault, times=1)
    assert (hub.model("org/name", commit) / "model.safetensors").read_bytes() == LARGE


@pytest.mark.parametrize(
    ("pattern", "fault", "expected"),
    [
        ("/api/", {"status": 503}, "{address} answered 503 Service Unavailable"),
        ("/api/", {"status": 500}, "{address} answered 500"),
        ("/api/", {"delay_s": 0.8}, "{address} did not answer a request for org/name within 0.5 s"),
        ("/api/", {"body": b"<html>"}, "{address} does not respond like a hub (JSONDecodeError"),
        ("/api/", {"body": b"{}"}, "{address} does not respond like a hub (KeyError"),
        ("tree", {"body": b"[]"}, "does not respond like a hub"),
        ("/api/", {"status": 401}, "refuses access to org/name (401 Unauthorized); check HF_TOKEN"),
        ("/api/", {"status": 418}, "{address} answered 418"),
        ("GET /cdn", {"status": 503}, "{address} answered 503"),
        ("GET /cdn", {"status": 403}, "refuses access"),
        ("GET /cdn", {"shorten": 1000}, "sent an incomplete file of org/name"),
        ("GET /cdn", {"flip": 1000}, "the cached model.safetensors is damaged"),
        ("GET .*tokenizer", {"flip": 1}, "the cached tokenizer.json is damaged"),
        ("HEAD .*safetensors", {"status": 404, "code": "EntryNotFound"}, "lacks a file at revision"),
    ],
    ids=lambda value: str(value),
)
def test_a_permanent_failure_is_one_line_with_the_endpoint(hub_server, pattern, fault, expected):
    commit = hub_server.add("models", "org/name", MODEL)
    hub_server.fail(pattern, **fault)
    began = time.monotonic()
    assert expected.format(address=hub_server.address) in failure(lambda: hub.model("org/name", commit))
    assert time.monotonic() - began < 10


def test_a_complete_cache_needs_no_hub(hub_server, capsys):
    commit = hub_server.add("models", "org/name", MODEL)
    assert hub.commit("model", "org/name", "main") == commit
    folder = hub.model("org/name", commit)
    hub_server.fail(".*", status=503)
    forget_hubs()
    assert hub.model("org/name", commit) == folder
    assert hub.commit("model", "org/name", "main") == commit  # the last one that is known
    output = capsys.readouterr().err
    assert f"{hub_server.address} answered 503 Service Unavailable" in output
    assert f"using the cached commit {commit[:12]} of org/name@main" in output


def test_a_failure_between_two_requests_for_a_commit_is_one_line(hub_server):
    commit = hub_server.add("models", "org/name", MODEL)
    hub_server.fail("GET /api/models/org/name$", status=429)
    assert "answered 429 Too Many Requests" in failure(lambda: hub.commit("model", "org/name"))
    hub_server.faults.clear()
    assert hub.commit("model", "org/name") == commit


def test_a_cache_of_an_older_client_is_used_as_it_is_when_the_hub_fails(hub_server, tmp_path, hub_offline):
    commit = hub_server.add("models", "org/name", MODEL)
    folder = hub.model("org/name", commit)
    shutil.rmtree(tmp_path / "hub" / "models--org--name" / "trees")
    hub_server.fail(".*", status=503)
    forget_hubs()
    assert hub.model("org/name", commit) == folder
    hub_offline()
    assert hub.model("org/name", commit) == folder
    (folder / "model.safetensors").unlink()
    forget_hubs()
    assert "is not complete in the cache" in failure(lambda: hub.model("org/name", commit))


def test_an_interrupted_download_is_completed_or_named(hub_server, hub_offline):
    commit = hub_server.add("models", "org/name", MODEL)
    hub_server.fail("GET /cdn", status=503)
    failure(lambda: hub.model("org/name", commit))
    hub_offline()
    assert "is not complete in the cache" in failure(lambda: hub.model("org/name", commit))
    constants.HF_HUB_OFFLINE = False
    hub_server.faults.clear()
    assert (hub.model("org/name", commit) / "model.safetensors").read_bytes() == LARGE


def test_part_of_a_split_is_never_read_as_the_whole(hub_server, hub_offline):
    commit = hub_server.add("datasets", "org/rows", {"train-0.parquet": b"1", "train-1.parquet": LARGE})
    hub_server.fail("GET /cdn", status=503)
    assert "503" in failure(lambda: hub.dataset("org/rows", commit, "train-*.parquet"))
    hub_offline()
    assert "is not complete in the cache" in failure(lambda: hub.dataset("org/rows", commit, "train-*.parquet"))


def test_missing_names_are_reported(hub_server):
    commit, none = hub_server.add("models", "org/name", MODEL), "0" * 40
    assert f"{hub_server.address}/org/name has no revision {none}" in failure(lambda: hub.model("org/name", none))
    assert f"{hub_server.address}/org/name has no revision v9" in failure(lambda: hub.commit("model", "org/name", "v9"))
    message = failure(lambda: hub.model("org/none", commit))
    assert f"{hub_server.address}/org/none does not exist or is private (401); check the name" in message
    assert "'a/b/c' is not a valid repository name" in failure(lambda: hub.model("a/b/c", commit))
    assert "'a/b/c' is not a valid repository name" in failure(lambda: hub.commit("model", "a/b/c", "main"))
    rows = hub_server.add("datasets", "org/rows", {"x/train.parquet": b"1"})
    assert "org/rows at revision" in failure(lambda: hub.dataset("org/rows", rows, "y/*.parquet"))


def test_a_gated_repository_says_how_to_get_access(hub_server, monkeypatch):
    commit = hub_server.add("models", "org/name", MODEL)
    repository = hub_server.repositories["models", "org/name"]
    repository.gate = 401
    message = failure(lambda: hub.model("org/name", commit))
    assert "org/name is gated (401): set HF_TOKEN" in message and f"{hub_server.address}/org/name" in message
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.model("org/name", commit).is_dir()
    other = hub_server.add("models", "org/other", MODEL)
    hub_server.repositories["models", "org/other"].gate = 403
    message = failure(lambda: hub.model("org/other", other))
    assert "org/other is gated (403): the account of HF_TOKEN has no access" in message and "hf_secret" not in message


def test_a_token_stays_with_the_hub(hub_server, monkeypatch):
    """Large files come from another host, which must not receive the token."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.model("org/name", hub_server.add("models", "org/name", MODEL))
    assert any("/api/" in path for path in hub_server.shown) and not any("/cdn/" in path for path in hub_server.shown)


def test_a_mirror_without_xet_can_be_used(hub_server, monkeypatch):
    """Its listing names xet hashes, but it does not serve xet."""
    monkeypatch.setattr("hub_server.XET", "ab" * 32)
    commit = hub_server.add("models", "org/name", MODEL)
    message = failure(lambda: hub.model("org/name", commit))
    assert "answered 404 Not Found to a request for org/name; HF_HUB_DISABLE_XET=1" in message
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert (hub.model("org/name", commit) / "model.safetensors").read_bytes() == LARGE


def test_a_renamed_repository_is_followed(hub_server):
    commit = hub_server.add("models", "org/new", MODEL)
    hub_server.repositories["models", "org/old"] = Repository(renamed="org/new")
    assert (hub.model("org/old", commit) / "model.safetensors").read_bytes() == LARGE


def test_a_damaged_file_in_the_cache_is_named_and_can_be_downloaded_again(hub_server):
    commit = hub_server.add("models", "org/name", MODEL)
    file = hub.model("org/name", commit) / "model.safetensors"
    damaged = bytearray(LARGE)
    damaged[77] ^= 1
    file.resolve().write_bytes(damaged)
    forget_hubs()
    message = failure(lambda: hub.model("org/name", commit))
    assert f"Delete {file.resolve()} and run the command again" in message
    file.resolve().unlink()
    assert (hub.model("org/name", commit) / "model.safetensors").read_bytes() == LARGE


def test_a_file_is_hashed_once_as_long_as_it_does_not_change(hub_server, monkeypatch):
    commit = hub_server.add("models", "org/name", MODEL)
    hashed = []
    hashes = hub._hashes
    monkeypatch.setattr(hub, "_hashes", lambda path, size: hashed.append(path) or hashes(path, size))
    file = hub.model("org/name", commit) / "model.safetensors"
    assert len(hashed) == len(MODEL)
    forget_hubs()
    hub.model("org/name", commit)
    assert len(hashed) == len(MODEL)
    os.utime(file.resolve(), ns=(1, 1))
    forget_hubs()
    hub.model("org/name", commit)
    assert hashed[len(MODEL) :] == [file.resolve()]


def test_a_cache_that_cannot_be_written_is_named(hub_server, tmp_path, monkeypatch):
    commit = hub_server.add("models", "org/name", MODEL)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    (tmp_path / "file").write_text("")
    message = failure(lambda: hub.model("org/name", commit))
    assert f"the cache {tmp_path / 'file' / 'hub'} cannot be written (Not a directory); set HF_HOME" in message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_each_reason_for_a_failed_write_is_reported(hub_server, number):
    output = str(hub._explained(OSError(number, os.strerror(number), "/x"), "model", "org/name", None))
    assert f"cannot be written ({os.strerror(number)}); set HF_HOME" in output


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_complete_cache_may_be_read_only(hub_server, tmp_path):
    commit = hub_server.add("models", "org/name", MODEL)
    folder = hub.model("org/name", commit)
    closed = [path for path in (tmp_path / "hub").rglob("*") if path.is_dir()]
    try:
        for path in closed:
            path.chmod(0o500)
        forget_hubs()
        assert hub.model("org/name", commit) == folder
    finally:
        for path in closed:
            path.chmod(0o700)


def test_a_branch_is_recorded_as_its_commit_and_a_moved_branch_is_another_model(hub_server, hub_offline):
    first = hub_server.add("models", "org/name", MODEL)
    run = composed("task=cola", "model.hub=org/name", "model.revision=main")
    assert identity.pinned(run.model).revision == first == identity.identity(run.model, run.task)["revision"]
    second = hub_server.add("models", "org/name", MODEL | {"config.json": b"{ }"})
    forget_hubs()
    assert identity.identity(run.model, run.task)["revision"] == second != first
    hub_offline()
    assert identity.identity(run.model, run.task)["revision"] == second


def test_without_hub_and_cache_the_message_names_two_alternatives(hub_server, hub_offline):
    hub_offline()
    run = composed("task=cola", "model.hub=org/name")
    for call in (lambda: identity.identity(run.model, run.task), lambda: identity.source_of(run.model)):
        with pytest.raises(Exception, match=r"^model=name: org/name at revision main .* HF_HUB_OFFLINE .*model=auto"):
            call()


def test_another_repository_has_neither_the_name_nor_the_revision_of_a_choice():
    chosen = composed("task=cola", "model=roberta_base").model
    assert composed("task=cola", f"model.hub={chosen.hub}", "model=roberta_base").model == chosen
    for choice in ("roberta_base", "auto", "roberta_mini"):
        model = composed("task=cola", f"model={choice}", "model.hub=org/name").model
        assert (model.name, model.hub, model.revision) == ("name", "org/name", None)
    own = composed(
        "task=cola", "model=roberta_base", "model.hub=org/name", "model.revision=v1", "model.name=mine"
    ).model
    assert (own.name, own.revision) == ("mine", "v1")


def test_a_download_is_shown_in_lines_without_a_terminal(hub_server, capsys, monkeypatch):
    monkeypatch.setattr(progress, "REPORT_S", 0.0)
    commit = hub_server.add("models", "org/name", MODEL)
    hub.model("org/name", commit)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"downloading org/name@{commit[:12]} (3 files, 0.1 MB) from {hub_server.address}"
    assert lines[-1].startswith(f"downloaded org/name@{commit[:12]} (3 files, 0.1 MB) in ")
    assert any(line.endswith("%") for line in lines[1:-1]) and all("\r" not in line for line in lines)
    forget_hubs()
    hub.model("org/name", commit)
    assert capsys.readouterr() == ("", "")


def test_an_endpoint_that_does_not_answer_is_named(hub_server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in failure(lambda: hub.commit("model", "org/name", "main"))
    assert "http://127.0.0.1:9 cannot be reached" in str(hub.unreachable())


def test_the_reason_why_a_hub_does_not_answer(hub_server, hub_offline):
    assert hub.unreachable() is None  # 404 is an answer
    hub_server.fail("/", status=503, times=1)
    assert hub.unreachable() is None
    hub_server.fail("/", status=503)
    assert hub.unreachable() == f"{hub_server.address} answered 503 Service Unavailable"
    hub_offline()
    assert "HF_HUB_OFFLINE" in str(hub.unreachable())


@pytest.mark.parametrize(("overrides", "needed"), [((), False), (("data=hub",), True), (("model=roberta_base",), True)])
def test_only_a_run_that_needs_a_hub_contacts_it(monkeypatch, overrides, needed):
    monkeypatch.setattr(os, "environ", {})
    hub.prepare(composed("task=cola", *overrides).needs_hub)
    assert (os.environ.get("HF_HUB_OFFLINE") != "1") == needed
