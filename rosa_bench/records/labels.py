"""Names of runs in tables and trackers: a method with its size, a row of a paper's table, a cell of a suite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rosa_bench.records.run_key import identity_parts, method_class


def method_label(config: Mapping[str, Any], method: str) -> str:
    """The method with its size: rank or ranks, bottleneck, layers, virtual tokens."""
    size = method_class(config["method"]).size_label(config["method"])
    return method + (f" {size}" if size else "") + (" (random backbone)" if config["model"].get("random_init") else "")


def option_text(name: str, value: object) -> str:
    """An option and its value as row names show them: `train.lr` as `lr=VALUE`.

    A long value ends with four digits of its hash, so that no two values look the same.
    """
    text = " ".join(str(value).split())
    if len(text) >= 24:
        text = f"{text[:20]}...{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:4]}"
    return f"{name.partition('.')[2] or name}={text}"


def printed_name(template: str, options: Mapping[str, Any], variant: str) -> str:
    """The name of a row in a paper: `template` with {rank} and {variant} filled in."""
    size = method_class(options).size_label(options) or ""
    return template.replace("{rank}", size.removeprefix("r=")).replace("{variant}", variant)


def cell_name(config: Mapping[str, Any]) -> str:
    """The name of a suite's cell in trackers, independent of the seed: 8 hex digits of the hashed settings."""
    parts = {name: value for name, value in identity_parts(config).items() if name != "seed"}
    return hashlib.sha256(json.dumps([parts, config["model"]["name"]], sort_keys=True).encode()).hexdigest()[:8]
