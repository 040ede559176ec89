"""Prepare command-line arguments for Hydra: flags may stand anywhere, and paths may begin with `~`."""

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
    """Split a command line into overrides and flags with their values, each in order.

    Raises:
        UsageError: for an unknown flag, or a flag without its value.
    """
    overrides, flags = [], []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            overrides.append(quoted_home(word))
            continue
        name, equals, _ = word.partition("=")
        if name not in WITHOUT_VALUE | WITH_VALUE | INFO:
            raise UsageError(f"{name} is not a flag: {nearest(name, WITHOUT_VALUE | WITH_VALUE | INFO)}")
        flags.append(word)
        if equals or name in WITHOUT_VALUE or (name in INFO and words[:1] and words[0] not in INFO_VALUES):
            continue
        if words:
            flags.append(words.pop(0))
        elif name in WITH_VALUE:
            raise UsageError(f"{name} needs a value")
    return overrides, absolute_folders(flags)


def absolute_folders(flags: Sequence[str]) -> list[str]:
    """Make config folders in flags absolute: Hydra resolves relative ones against the package."""
    out = []
    for before, word in zip(["", *flags], flags, strict=False):
        flag, equals, value = word.partition("=")
        if equals and flag in FOLDER_FLAGS and Path(value).is_dir():
            word = f"{flag}={Path(value).resolve()}"
        elif before in FOLDER_FLAGS and Path(word).is_dir():
            word = str(Path(word).resolve())
        out.append(word)
    return out


def quoted_home(override: str) -> str:
    """Quote paths that begin with `~`, which Hydra cannot parse unquoted."""
    key, equals, value = override.partition("=")
    home = HOME.sub(r"'\g<0>'", value)
    return f"{key}={home}" if equals else override
