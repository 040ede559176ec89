"""How runs are called in tables and trackers: a method with its ranks, a row of a paper's table, a suite's cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rosa_bench.records.run_key import identity_parts

# What sets a method's size, by the option that says so.
SIZES = {
    "bottleneck": "b={}",
    "layers": "k={}",
    "r": "r={}",
    "target_r": "r={}",
    "num_virtual_tokens": "{} tokens",
}


def rank_label(options: Mapping[str, Any]) -> str | None:
    """The rank or the ranks among a method's options; None where it has none."""
    if "rank_max" in options:
        return f"{options['rank_min']}-{options['rank_max']}"
    return None if options.get("rank") is None else str(options["rank"])


def method_label(config: Mapping[str, Any], method: str) -> str:
    """The method with what sets its size: rank or ranks, bottleneck, layers, virtual tokens."""
    size = _size(config["method"])
    return method + (f" {size}" if size else "") + (" (random backbone)" if config["model"].get("random_init") else "")


def _size(options: Mapping[str, Any]) -> str | None:
    if (rank := rank_label(options)) is not None:
        return f"r={rank}"
    known = {**options, **(options.get("config") or {})}  # with the keys of a `peft` configuration
    for name, template in SIZES.items():
        if known.get(name) is not None:
            return template.format(known[name])
    return None


def option_text(name: str, value: object) -> str:
    """An option of a group, `train.lr`, and its value, as the name of a row says them; cut where it is long."""
    text = " ".join(str(value).split())
    return f"{name.partition('.')[2] or name}={text if len(text) < 24 else text[:20] + '...'}"


def printed_name(template: str, options: Mapping[str, Any], variant: str) -> str:
    """The paper's name of a row, of a template in which {rank} and {variant} stand for a run's."""
    return template.replace("{rank}", rank_label(options) or "").replace("{variant}", variant)


def cell_name(config: Mapping[str, Any]) -> str:
    """What a suite's cell is called in trackers, whatever its seed: 8 hex of what the suite asks for."""
    parts = {name: value for name, value in identity_parts(config).items() if name != "seed"}
    return hashlib.sha256(json.dumps([parts, config["model"]["name"]], sort_keys=True).encode()).hexdigest()[:8]
