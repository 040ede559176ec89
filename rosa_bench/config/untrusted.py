"""Check configuration files from other people, such as the `config.yaml` of someone else's run.

Hydra instantiates any `_target_` in its own section, and Python's logging any handler, before this package sees the
configuration. These files are therefore checked before Hydra reads them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from rosa_bench.config import GROUPS, is_own
from rosa_bench.errors import UsageError

OWN = ("-cd", "--config-dir")
FLAGS = ("-cp", "--config-path", "-cd", "--config-dir")  # Hydra's flags for config folders
ALLOWED = ("rosa_bench.", "hydra._internal.core_plugins.", "hydra_plugins.")  # allowed prefixes of a `_target_`
CALLING = ("ext://", "pkg://", "cfg://", "oc.create", "oc.decode")  # in strings, these import objects or parse text


def check(flags: Sequence[str]) -> None:
    """Check the yaml files of the folders named in `flags`, where each flag is followed by its value.

    Raises:
        UsageError: with the file and the key, if a file is damaged or names something to import or call.
    """
    for folder, own in _folders(flags):
        for path in _files(folder, own):
            for fault in _faults(_read(path), "", own):
                raise UsageError(f"{path}: {fault} is refused because it could run any program; remove it")


def own_folder(flags: Sequence[str]) -> str | None:
    """The folder of `-cd`, whose modules may be imported; None if not given."""
    return next((str(folder) for folder, own in _folders(flags) if own), None)


def _folders(flags: Sequence[str]) -> Iterator[tuple[Path, bool]]:
    """Folders that flags name, each with whether it is the user's own (`-cd`)."""
    for flag, value in itertools.pairwise(flags):
        if flag in FLAGS and Path(value).is_dir():
            yield Path(value), flag in OWN


def _files(folder: Path, own: bool) -> list[Path]:
    """The yaml files of a folder. The user's own may be a whole project: only its top level and its groups count."""
    if not own:
        return sorted(folder.rglob("*.yaml"))
    groups = [folder / group for group in (*GROUPS, "hydra")]
    return sorted([*folder.glob("*.yaml"), *(path for group in groups for path in group.rglob("*.yaml"))])


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read ({str(error)[:160]})") from error


def _faults(node: Any, path: str, own: bool) -> Iterator[str]:
    """Yield the keys of a configuration that name something to import or call."""
    if isinstance(node, dict):
        for key, value in node.items():
            where, module = f"{path}.{key}".lstrip("."), str(value).rpartition(".")[0]
            if key in ("()", "searchpath") or (key == "class" and not str(value).startswith("logging.")):
                yield where
            elif key == "_target_" and not (
                str(value).startswith(ALLOWED) or ((own or path in GROUPS) and is_own(module))
            ):
                yield f"{where}={str(value)[:80]}"
            yield from _faults(value, where, own)
    elif isinstance(node, list):
        for value in node:
            yield from _faults(value, path, own)
    elif isinstance(node, str) and any(word in node for word in CALLING):
        yield f"{path}={node[:80]}"
