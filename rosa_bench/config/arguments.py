"""Prepare command-line arguments for Hydra: flags may appear anywhere, and paths may begin with `~`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rosa_bench.config.untrusted import FLAGS as FOLDER_FLAGS
from rosa_bench.errors import UsageError, nearest

# Hydra's flags.
WITHOUT_VALUE = {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"}
WITHOUT_VALUE |= {"--shell-completion", "-sc"}
WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--experimental-rerun", *FOLDER_FLAGS}
INFO = {"--info", "-i"}  # flags whose value is optional
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
HOME = re.compile(r"(?:^|(?<=,))~[^,'\"]*")  # a path below a home folder, alone or in a list of sweep values


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into overrides and flags, each followed by its value, both in order.

    Raises:
        UsageError: for an unknown flag, a flag without its value, or one with a value that it does not take.
    """
    overrides, flags = [], []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            overrides.append(quoted_home(word))
            continue
        name, equals, value = word.partition("=")
        if name not in WITHOUT_VALUE | WITH_VALUE | INFO:
            raise UsageError(f"{name} is not a flag: {nearest(name, WITHOUT_VALUE | WITH_VALUE | INFO)}")
        flags.append(name)
        if equals:
            words.insert(0, value)
        if name in WITHOUT_VALUE and equals:
            raise UsageError(f"{name} takes no value")
        if name in WITH_VALUE and not words:
            raise UsageError(f"{name} needs a value")
        if equals or name in WITH_VALUE or (name in INFO and words and words[0] in INFO_VALUES):
            value = words.pop(0)
            is_folder = name in FOLDER_FLAGS and Path(value).is_dir()
            flags.append(str(Path(value).resolve()) if is_folder else value)  # Hydra resolves against the package
    return overrides, flags


def quoted_home(override: str) -> str:
    """Quote paths that begin with `~`, which Hydra cannot parse unquoted."""
    key, equals, value = override.partition("=")
    home = HOME.sub(r"'\g<0>'", value)
    return f"{key}={home}" if equals else override
