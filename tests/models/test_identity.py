"""The files of a folder that enter a run's key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import transformers
from support import composed

from rosa_bench.errors import UsageError
from rosa_bench.models.identity import identity, source_of, tokenizer_files, weight_files
from rosa_bench.records.run_key import config_key

TOKENIZER = ["vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json", "special_tokens_map.json"]
OTHERS = ["README.md", "training_args.bin", "optimizer.pt", "card.json", "tf_model.h5", "flax_model.msgpack"]


def copied(folder: Path, to: Path) -> Path:
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize("name", TOKENIZER)
def test_a_change_of_any_tokenizer_file_changes_the_key(backbone, tmp_path, name):
    run = composed(f"model.path={copied(backbone('bert'), tmp_path)}")
    keys = {config_key(run)}
    for content in ("a", "b"):
        (tmp_path / name).write_text(content)
        keys.add(config_key(run))
    assert len(keys) == 3


def test_files_that_no_run_reads_do_not_change_the_key(backbone, tmp_path):
    run = composed(f"model.path={copied(backbone('bert'), tmp_path)}")
    key = config_key(run)
    for name in [*OTHERS, "pytorch_model.bin", "adapter_model.safetensors"]:
        (tmp_path / name).write_text("a")
    assert config_key(run) == key


def test_the_generation_configuration_is_in_the_key_of_a_task_that_generates(backbone, tmp_path):
    folder = copied(backbone("gpt2"), tmp_path)
    runs = [composed(f"model.path={folder}", f"task={task}") for task in ("e2e", "cola", "sciq")]
    before = [config_key(run) for run in runs]
    (folder / "generation_config.json").write_text('{"repetition_penalty": 1.5}')
    assert [config_key(run) == key for run, key in zip(runs, before, strict=True)] == [False, True, True]


@pytest.mark.parametrize(("model", "task"), [("roberta_mini", "cola"), ("gpt2_mini", "e2e")])
def test_keys_of_the_embedded_models_stay(model, task):
    run = composed(f"model={model}", f"task={task}")
    names = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert identity(run.model, run.task)["files"].keys() == names
    assert not run.model.random_init and Path(source_of(run.model)).name == model


def test_all_names_of_tokenizer_files_are_covered(tmp_path):
    """The names that the tokenizers of `transformers` declare."""
    names = set()
    for path in (Path(transformers.__file__).parent / "models").glob("*/tokenization_*.py"):
        for declared in re.findall(r"VOCAB_FILES_NAMES\s*=\s*\{([^}]*)\}", path.read_text(encoding="utf-8")):
            names |= set(re.findall(r':\s*"([^"]+)"', declared))
    assert len(names) > 10
    for name in names:
        (tmp_path / name).touch()
    assert set(tokenizer_files(tmp_path)) == names


def test_weights_are_the_files_that_are_loaded(tmp_path):
    assert weight_files(tmp_path) == []
    (tmp_path / "pytorch_model.bin").touch()
    assert weight_files(tmp_path) == ["pytorch_model.bin"]
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[1], "b": shards[0], "c": shards[0]}}))
    (tmp_path / shards[0]).touch()
    with pytest.raises(UsageError, match=f"lists 1 missing file .{shards[1]} ....; copy them here"):
        weight_files(tmp_path)
    (tmp_path / shards[1]).touch()
    assert weight_files(tmp_path) == [index.name, *shards]
    index.write_text("[]")
    with pytest.raises(UsageError, match="is not a valid weight index"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weight_files(tmp_path) == ["model.safetensors"]
    (tmp_path / "config.json").write_text('{"transformers_weights": "mine.safetensors"}')
    (tmp_path / "mine.safetensors").touch()
    assert weight_files(tmp_path) == ["mine.safetensors"]
