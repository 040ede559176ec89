"""Which weights a configuration names, without loading them. Light: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rosa_bench.config import Model
from rosa_bench.errors import UsageError
from rosa_bench.system.files import file_sha256

MADE = {"synthetic"}  # made from the task's configuration, not read
EMBEDDED = Path(__file__).parent.parent / "embedded" / "models"


def source_of(model: Model) -> str:
    """The folder or hub name to load from. Raises UsageError for an embedded name the package does not have."""
    if model.path is not None:
        return model.path
    if model.hub is not None:
        return model.hub
    have = sorted(path.name for path in EMBEDDED.glob("*/"))
    if model.name not in have:
        raise UsageError(f"model={model.name[:80]} is not in the package (there: {', '.join(have) or 'none'})")
    return str(EMBEDDED / model.name)


def identity(model: Model) -> dict[str, Any]:
    """What identifies the weights: part of a run's key. Files by their content, never by their path."""
    if model.path is None and model.hub is not None:
        return {"hub": model.hub, "revision": model.revision, "random_init": model.random_init}
    if model.embedded and model.name in MADE:
        return {"made": model.name, "random_init": model.random_init}
    folder = Path(source_of(model))
    names = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    names += [] if model.random_init else sorted(path.name for path in folder.glob("*.safetensors"))
    files = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    return {"files": files, "random_init": model.random_init}
