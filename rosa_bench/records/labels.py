"""How runs are called in tables and trackers: a method with its ranks, a row of a paper's table, a suite's cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from rosa_bench.core.method import Method
from rosa_bench.records.run_key import class_of, identity_parts


def size_label(options: Mapping[str, Any]) -> str | None:
    """What sets a method's size ("r=8"), as its class says, from its options in a record; None if nothing does.

    Raises KeyError if an option is missing.
    """
    cls = class_of("method", str(options.get("_target_", ""))) or Method
    return cast(type[Method], cls).size_label(options)


def method_label(config: Mapping[str, Any], method: str) -> str:
    """The method with what sets its size: rank or ranks, bottleneck, layers, virtual tokens."""
    size = size_label(config["method"])
    return method + (f" {size}" if size else "") + (" (random backbone)" if config["model"].get("random_init") else "")


def option_text(name: str, value: object) -> str:
    """An option of a group, `train.lr`, and its value, as the name of a row says them; cut where it is long."""
    text = " ".join(str(value).split())
    return f"{name.partition('.')[2] or name}={text if len(text) < 24 else text[:20] + '...'}"


def printed_name(template: str, options: Mapping[str, Any], variant: str) -> str:
    """The paper's name of a row, of a template in which {rank} and {variant} stand for a run's."""
    return template.replace("{rank}", (size_label(options) or "").removeprefix("r=")).replace("{variant}", variant)


def cell_name(config: Mapping[str, Any]) -> str:
    """What a suite's cell is called in trackers, whatever its seed: 8 hex of what the suite asks for."""
    parts = {name: value for name, value in identity_parts(config).items() if name != "seed"}
    return hashlib.sha256(json.dumps([parts, config["model"]["name"]], sort_keys=True).encode()).hexdigest()[:8]
