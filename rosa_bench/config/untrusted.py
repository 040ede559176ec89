"""Configuration files given by the user, such as a run's `config.yaml` that came from somebody else.

Hydra makes an object of whatever a `_target_` in its own section names, and Python's logging of whatever a handler
does, before anything here has seen the configuration. So such files are looked through before Hydra reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from rosa_bench.config import is_own
from rosa_bench.errors import UsageError

OWN = ("-cd", "--config-dir")
FLAGS = ("-cp", "--config-path", "-cd", "--config-dir")  # of Hydra: where more configuration lies
ALLOWED = ("rosa_bench.", "hydra._internal.core_plugins.", "hydra_plugins.")  # what a `_target_` may be
CALLING = ("ext://", "pkg://", "cfg://", "oc.create", "oc.decode")  # in texts: import, or make structure of a text


def check(arguments: Sequence[str]) -> None:
    """Look through every yaml of the folders that a command line names.

    Raises:
        UsageError: naming the file and the key, for one that is damaged or names something to be imported or called.
    """
    for folder, own in _folders(arguments):
        for path in sorted(folder.rglob("*.yaml")):
            for said in _faults(_read(path), "", own):
                raise UsageError(f"{path}: {said}; it is not used, as it could run any program")


def own_folder(flags: Sequence[str]) -> str | None:
    """The folder of `-cd`, whose modules the user wants to be imported; None without one."""
    return next((str(folder) for folder, own in _folders(flags) if own), None)


def _folders(arguments: Sequence[str]) -> Iterator[tuple[Path, bool]]:
    """The folders that a command line names, each with whether it is the user's own (`-cd`)."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        named = value if equals and flag in FLAGS else argument if before in FLAGS else ""
        if named and Path(named).is_dir():
            yield Path(named), (flag if equals else before) in OWN


def _module(target: Any) -> str:
    return str(target).rpartition(".")[0]


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read ({str(error)[:160]})") from error


def _faults(node: Any, path: str, own: bool) -> Iterator[str]:
    """What of a configuration names something to be imported or called."""
    if isinstance(node, dict):
        for key, value in node.items():
            where = f"{path}.{key}".lstrip(".")
            if key in ("()", "searchpath") or (key == "class" and not str(value).startswith("logging.")):
                yield where
            elif key == "_target_" and not str(value).startswith(ALLOWED) and not (own and is_own(_module(value))):
                yield f"{where}={str(value)[:80]}"
            yield from _faults(value, where, own)
    elif isinstance(node, list):
        for value in node:
            yield from _faults(value, path, own)
    elif isinstance(node, str) and any(word in node for word in CALLING):
        yield f"{path}={node[:80]}"
