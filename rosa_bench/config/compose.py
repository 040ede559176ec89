"""Compose command-line overrides with Hydra and validate them; every error becomes a one-line message."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from rosa_bench.config import GROUPS, Run, choices, config_dir, group_nodes, resolve, run_defaults, yamls
from rosa_bench.config.arguments import quoted_home
from rosa_bench.core.aliases import meant
from rosa_bench.errors import UsageError, nearest


def compose(overrides: Sequence[str]) -> Run:
    """The run for these command-line overrides, without running it. Raises UsageError for invalid ones."""
    if isinstance(overrides, str):
        raise UsageError(f"overrides must be a list, not a text: write {overrides.split()}")
    return resolve(composed(overrides), overrides)


_COMPOSING = threading.RLock()  # Hydra's state is global to the process


# What Hydra itself stores; its plugins add to the same dictionaries later.
_HYDRAS = {name: node for name, node in ConfigStore.instance().repo.items() if name.startswith(("hydra", "_dummy"))}


@contextlib.contextmanager
def _no_other_hydra() -> Iterator[None]:
    """Set the process's Hydra instance, stored nodes and version aside; only ours are stored in the block."""
    current, store, version = GlobalHydra.instance(), ConfigStore.instance(), VersionBase.instance()
    before = current.hydra, store.repo, version.version_base
    current.clear()
    store.repo = _HYDRAS | _nodes(yamls())
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, store.repo, version.version_base = before


def composed(overrides: Sequence[str]) -> DictConfig:
    """Compose overrides with Hydra, without validation."""
    refuse_lists(overrides)
    try:
        with _COMPOSING, _no_other_hydra(), hydra.initialize(version_base="1.3", config_path=None):
            cfg = hydra.compose(config_name="run", overrides=[*map(quoted_home, overrides)], return_hydra_config=True)
            return with_choices(cfg, cfg.hydra.runtime.choices)
    except UsageError:
        raise
    except Exception as error:  # errors in Hydra's grammar and defaults lists share no base class
        raise UsageError(plain(error, overrides)) from error


def refuse_lists(overrides: Sequence[str]) -> None:
    """Raise UsageError for a group with a list of choices: Hydra would merge them and name none of them."""
    for override in overrides:
        key, _, value = override.partition("=")
        if (group := key.lstrip("+")) in GROUPS and value.lstrip().startswith("["):
            names = ",".join(name.strip() for name in value.strip(" []").split(","))[:200]
            if "," in names:
                raise UsageError(f"{override[:200]} names several choices; sweep over them with -m {group}={names}")
            raise UsageError(f"{override[:200]} is a list; write {group}={names or 'CHOICE'}")


def with_choices(cfg: DictConfig, chosen: Mapping[str, Any]) -> DictConfig:
    """Remove Hydra's own node and add the chosen name of every group."""
    names = {group: str(chosen[group]) for group in GROUPS if group in chosen}
    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    OmegaConf.set_struct(plain, False)
    plain["choices"] = {**(plain.get("choices") or {}), **names}
    OmegaConf.set_struct(plain, True)
    return plain


def register() -> None:
    """Register every yaml of `configs/` with Hydra, with the defaults of its dataclass filled in, for `hydra.main`."""
    ConfigStore.instance().repo |= _nodes(yamls())
    OmegaConf.register_new_resolver("sweep_dir", sweep_dir, replace=True)


@functools.lru_cache(maxsize=1)
def _nodes(yamls: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """The yamls as Hydra stores them. Cached until one changes: this takes two thirds of the time of a composition."""
    store = copy.copy(ConfigStore.instance())  # the class itself returns the store of the process
    store.repo = {}
    for group, name, node in group_nodes():
        store.store(group=group, name=name, node=node, provider="rosa_bench")
    top = OmegaConf.merge(OmegaConf.create(run_defaults()), top_config())
    store.store(name="run", node=top, provider="rosa_bench")
    return store.repo


def sweep_dir(*, _root_: DictConfig) -> str:
    """Output folder of Hydra's launchers, inside the part of `output_dir` that all runs of a sweep share."""
    output: Any = OmegaConf.to_container(_root_, resolve=False)
    fixed, reference, _ = str(output["output_dir"]).partition("${")
    folder = Path(f"{fixed}_").parent if reference else Path(fixed)
    return str(folder.expanduser() / ".sweep")


def top_config() -> DictConfig:
    """`configs/config.yaml` as is: the default choice of every group."""
    return cast(DictConfig, OmegaConf.load(config_dir() / "config.yaml"))


def default_choices() -> dict[str, str]:
    """The choice of every group that the command line does not set."""
    defaults: Any = OmegaConf.to_container(top_config().defaults)
    return {group: choice for entry in defaults if isinstance(entry, dict) for group, choice in entry.items()}


LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")  # of the extra `slurm`


def plain(error: Exception, overrides: Sequence[str]) -> str:
    """Reduce a Hydra or OmegaConf error to one line with the nearest valid names."""
    text = f"{error}\n{error.__cause__ or ''!s}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and name in LAUNCHERS:
            return f"{group}={name} needs the extra slurm: pip install 'rosa_bench[slurm]'"
        return f"{group or 'config'}={name} is not a choice: {nearest(name, error.options or [])}"
    if (override := _unparsable(overrides)) is not None:
        return _grammar(" ".join(override.split())[:200])
    if (match := re.search(r"Ambiguous value for argument '(.{1,200}?)'\n", text)) is not None:
        key, _, value = match.group(1).partition("=")
        listed = "" if key in GROUPS else f", write a list as {key}=[{value}], or quote one text as \"{key}='{value}'\""
        return f"{key}={value} has several values: sweep over them with -m{listed}"
    unknown = r"Could not override '([^']+)'|Key '[^']*' is not in struct\s+full_key: (\S+)"
    if (match := re.search(unknown, text)) is not None:
        return unknown_key(match.group(1) or match.group(2), overrides)
    if isinstance(error, RecursionError):
        return "a value is nested too deeply"
    message = str(error).split("\nSee https")[0].split("\nEnvironment")[0][:400]
    return " ".join(message.split()) or f"the command line cannot be parsed ({type(error).__name__})"


def _unparsable(overrides: Sequence[str]) -> str | None:
    """The first override that violates Hydra's grammar."""
    parser = OverridesParser.create()
    for override in overrides:
        try:
            parser.parse_override(quoted_home(override))
        except HydraException:
            return override
        except (ValueError, RecursionError):  # too long a number or too deep a list; its own message says so
            return None
    return None


def _grammar(override: str) -> str:
    """Message for an override that cannot be parsed."""
    key, equals, _ = override.partition("=")
    if equals:
        return f"{override} cannot be parsed; quote values with special characters: \"{key}='VALUE'\""
    chosen = [f"{group}={override}" for group in GROUPS if override in choices(group)]
    meaning = f": did you mean {' or '.join(chosen)}?" if chosen else "; write KEY=VALUE"
    return f"{override or 'an empty text'} is not key=value{meaning}"


def unknown_key(key: str, overrides: Sequence[str]) -> str:
    """Message for a key that no configuration has."""
    group = key.rpartition(".")[0]
    nodes = list(group_nodes())
    top = {*GROUPS, *run_defaults()}
    elsewhere = top | {f"{g}.{k!s}" for g, _, node in nodes if g != group for k in node if k != "_target_"}
    if key in GROUPS:
        field = next(str(k) for g, name, node in nodes if (g, name) == (key, default_choices()[key]) for k in node)
        return f"{key} has no choices in this configuration; set its keys, such as {key}.{field}=VALUE"
    if group not in GROUPS:
        return f"{key} is not a key: {meant(key, GROUPS if group else top, elsewhere)}"
    typed = (argument.partition("=")[2] for argument in reversed(overrides) if argument.startswith(f"{group}="))
    chosen = next(typed, default_choices()[group]).split(",")
    keys = {f"{g}.{k!s}" for g, name, node in nodes if g == group and name in chosen for k in node if k != "_target_"}
    return f"{key} is not a key of this choice: {meant(key, keys or top, elsewhere)}"
