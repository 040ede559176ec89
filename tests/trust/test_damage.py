"""Truncated files and flipped bits are detected and named, and the last intact file is used."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import composed, interrupt, small, without_cost

from rosa_bench.data import encode, source
from rosa_bench.errors import UsageError
from rosa_bench.evaluation.journal import Journal
from rosa_bench.models import hashing
from rosa_bench.models.load import load
from rosa_bench.records import checkpoints
from rosa_bench.records.record import COPY, read_record
from rosa_bench.records.run_key import finished
from rosa_bench.run import run as run_experiment
from rosa_bench.system import console, files

OVERRIDES = ("method=lora", "save=adapter")


def damages(content: bytes, every: int = 1) -> Iterator[bytes]:
    """The content with a bit flipped in every n-th byte, and truncated at several lengths."""
    for place in range(0, len(content), every):
        yield content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]
    yield from (content[:length] for length in (0, 1, len(content) // 2, len(content) - 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The same run twice: `whole` is finished, `parts` was stopped after five steps and has two checkpoints."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSA_BENCH_CACHE", str(folder / "cache"))
        run_experiment(small(folder / "whole", *OVERRIDES))
        interrupt(small(folder / "parts", *OVERRIDES), 5)
    return folder


@pytest.fixture
def copied(made, tmp_path, monkeypatch) -> Path:
    """Copies of both for damaging, with caches of messages and hashes cleared."""
    console.warn_once.cache_clear()
    files._sha256.cache_clear()
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def one(folder: Path, pattern: str) -> Path:
    (result,) = folder.glob(pattern)
    return result


def test_every_changed_byte_of_a_record_is_detected(copied):
    path = one(copied, "whole/*/record.json")
    path.with_name(COPY).unlink()
    content = path.read_bytes()
    for damaged in damages(content):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"record\.json is not a record"):
            read_record(path)
    path.write_bytes(content)
    assert read_record(path).status == "done"


def test_the_copy_of_a_damaged_record_is_used(copied, capsys):
    path = one(copied, "whole/*/record.json")
    record, content = read_record(path), path.read_bytes()
    path.write_bytes(content.replace(b'"seed": ', b'"seed": 1', 1))  # a number that looks like any other
    assert read_record(path) == record == read_record(path)
    message = capsys.readouterr().err
    assert message.count("its checksum does not match") == 1 and f"using its copy {COPY}" in message
    run = small(copied / "whole", *OVERRIDES)
    assert finished(run, path.parent, record.key) == record
    path.with_name(COPY).write_bytes(b"{")
    assert finished(run, path.parent, record.key) is None
    assert "running it again" in capsys.readouterr().err
    again = run_experiment(run)
    assert without_cost(again) == without_cost(record) == without_cost(read_record(path))


def test_every_changed_byte_of_a_checkpoint_is_detected(copied):
    newest, _ = checkpoints.checkpoints(one(copied, "parts/*/record.json").parent)
    assert checkpoints.read_mark(newest) is not None
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        own = path.name == checkpoints.MARK
        for damaged in damages(content, 1 if own else max(1, len(content) // 7)):
            path.write_bytes(damaged)
            if not own:
                files._sha256.cache_clear()  # file systems' clocks are too coarse for two changes in a moment
            assert checkpoints.read_mark(newest) is None, path.name
        path.write_bytes(content)
        files._sha256.cache_clear()
    assert checkpoints.read_mark(newest) is not None
    (newest / "optimizer.pt").unlink()
    assert checkpoints.read_mark(newest) is None


def test_the_checkpoint_before_one_with_a_wrong_value_is_used(copied, capsys):
    newest, before = checkpoints.checkpoints(one(copied, "parts/*/record.json").parent)
    mark = newest / checkpoints.MARK
    mark.write_text(mark.read_text().replace('"examples": ', '"examples": 1'))  # what a rate would be made of
    record = run_experiment(small(copied / "parts", *OVERRIDES))
    output = capsys.readouterr().out
    assert f"{newest.name} is damaged" in output and f"resuming from step {before.name.rpartition('-')[2]}" in output
    assert without_cost(record) == without_cost(read_record(one(copied, "whole/*/record.json")))
    assert record.cost["padding_fraction"] == read_record(one(copied, "whole/*/record.json")).cost["padding_fraction"]


def test_a_damaged_token_cache_is_named_and_rebuilt(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(tmp_path))
    run = composed("task=cola")
    _, tokenizer = load(run.model, run.task, 1)
    rows = source.load_split(run.task, run.data, "train", 12)
    encoded = encode.encode_split(run.task, tokenizer, rows, 64)
    path = one(tmp_path, "tokens/*.json")
    content = path.read_bytes()
    for damaged in damages(content, 23):
        path.write_bytes(damaged)
        assert encode.encode_split(run.task, tokenizer, rows, 64) == encoded
        assert f"{path} is damaged" in capsys.readouterr().err and path.read_bytes() == content
    assert encode.encode_split(run.task, tokenizer, rows, 64) == encoded and not capsys.readouterr().err


def test_damaged_parts_of_a_decoding_are_decoded_again(tmp_path, capsys):
    path = tmp_path / "decoding.jsonl"
    right = {0: "one", 1: "two", 2: "three\nlines ü", 3: "four"}
    journal = Journal(path, "this state")
    for start in (0, 2):
        journal.add({i: right[i] for i in (start, start + 1)})
    content = path.read_bytes()
    assert Journal(path, "this state").texts == right and not capsys.readouterr().err
    for damaged in damages(content):
        path.write_bytes(damaged)
        after = Journal(path, "this state")
        assert len(after.texts) in (0, 2) and after.texts.items() <= right.items()
        assert not damaged or f"{path}" in capsys.readouterr().err
        for start in (0, 2):
            if start not in after.texts:
                after.add({i: right[i] for i in (start, start + 1)})
        assert Journal(path, "this state").texts == right and path.read_bytes() == content


def test_a_damaged_adapter_is_refused(copied):
    run = small(copied / "whole", *OVERRIDES)
    folder = one(copied, "whole/*/adapter")
    model, _ = load(run.model, run.task, 1)
    digest = hashing.backbone_hash(model)
    run.method.attach(model, 1)
    checkpoints.load_adapter(model, run.method, folder, digest)
    path = folder / "adapter.safetensors"
    content = path.read_bytes()
    for damaged in damages(content, len(content) // 11):
        path.write_bytes(damaged)
        files._sha256.cache_clear()
        with pytest.raises(UsageError, match="is damaged: its checksum"):
            checkpoints.load_adapter(model, run.method, folder, digest)


def test_the_score_of_a_damaged_best_checkpoint_is_absent_with_a_message(tmp_path, monkeypatch, capsys):
    losses = itertools.count(1.0)  # the first epoch is the best
    monkeypatch.setattr("rosa_bench.evaluation.predict.Predictor.mean_losses", lambda *_: [next(losses)])
    original, damaged = checkpoints.read_mark, {"checkpoint-2"}
    monkeypatch.setattr(checkpoints, "read_mark", lambda path: None if path.name in damaged else original(path))
    record = run_experiment(small(tmp_path, "task=e2e", "train.limit_train=16", "train.max_steps=4"))
    assert record.primary["best_epoch"] == 1 and "best" not in record.primary and "last" in record.primary
    assert "of the best epoch is damaged" in capsys.readouterr().err
