"""Writes a pre-trained mini backbone as it ships: fp16 weights, tokenizer, ``card.json`` and ``README.md``."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from rosa_bench.embedded import VERSION

MAX_PARAMETERS, MAX_BYTES = 4_000_000, 8_000_000

README = """# {name}

A mini {family} of {parameters:,} parameters ({layers} layers, {hidden} wide, {heads} heads, {vocab:,} pieces),
pre-trained on the prose of the embedded world ({kind} stream, generator {generator}). It stands in for the real
backbone when nothing can be downloaded: it knows the language of the embedded tasks and no other, so use it for
nothing else.

| | |
|---|---|
| objective | {objective} |
| data | {tokens:,} tokens in {steps:,} steps, prose seed {train_seed} upwards |
| held-out loss | {loss:.3f} nats a predicted token (perplexity {perplexity:.2f}; fresh weights: {fresh:.2f} nats) |
| wall time | {minutes:.0f} minutes, {threads} CPU thread(s), bf16 with fp32 weights |
| weights | fp16 safetensors; `config.json` says float32, so that they load as float32 |

Made by `{command}`; `card.json` has the loss curve, versions and checksums.
"""


def tree_sha(root: Path, *folders: str) -> str:
    """The current commit, with ``-dirty`` if tracked files of these folders differ from it."""
    try:
        options: dict[str, Any] = {"cwd": root, "capture_output": True, "text": True, "check": True}
        sha = subprocess.run(["git", "rev-parse", "HEAD"], **options).stdout.strip()
        query = ["git", "status", "--porcelain", "--untracked-files=no", "--", *folders]
        changed = subprocess.run(query, **options).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{sha}-dirty" if changed else sha


def file_sha(path: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    target: Path,
    facts: dict[str, Any],
    measure: Callable[[PreTrainedModel], float],
) -> Path:
    """Write the folder to ship and replace ``target`` with it; ``measure`` returns a model's held-out loss."""
    recipe, partial = facts["recipe"], target.with_name(target.name + ".partial")
    parameters = sum(p.numel() for p in model.parameters())
    fresh_loss = measure(type(model)(model.config))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    transformers.utils.logging.disable_progress_bar()
    model.half().save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    config_path = partial / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["dtype"] = "float32"  # without it the half-precision weights would be trained in half precision
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    auto: Any = AutoModelForMaskedLM if recipe["kind"] == "encoder" else AutoModelForCausalLM
    loss = measure(auto.from_pretrained(partial, attn_implementation="eager"))
    (partial / "model.safetensors").chmod(0o644)
    size = (partial / "model.safetensors").stat().st_size
    if parameters > MAX_PARAMETERS or size > MAX_BYTES or not math.isfinite(loss):
        raise ValueError(
            f"{recipe['name']} exceeds a limit: {parameters} parameters, {size} bytes, held-out loss {loss}"
        )
    card = {
        "name": recipe["name"],
        "command": " ".join(["python", "scripts/" + Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_sha": facts["git_sha"],
        "data": {"generator": VERSION, "stream": recipe["kind"], "prose_seeds": facts["prose_seeds"]},
        "parameters": parameters,
        "pieces": len(tokenizer),
        "bytes": size,
        "recipe": recipe,
        "steps": facts["step"],
        "tokens": facts["tokens"],
        "loss_curve": facts["curve"],
        "held_out": {
            "loss": round(loss, 4),
            "perplexity": round(math.exp(loss), 3),
            "fresh": round(fresh_loss, 4),
        },
        "wall_s": round(facts["wall_s"], 1),
        "resumed": facts["resumed"],
        "threads": facts["threads"],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "sha256": {name: file_sha(partial / name) for name in ("model.safetensors", "tokenizer.json")},
    }
    (partial / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(readme(card), encoding="utf-8")
    if target.is_symlink():
        target.unlink()
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def readme(card: dict[str, Any]) -> str:
    """The text of README.md."""
    recipe, encoder = card["recipe"], card["recipe"]["kind"] == "encoder"
    return README.format(
        name=card["name"],
        family="RoBERTa" if encoder else "GPT-2",
        parameters=card["parameters"],
        layers=recipe["layers"],
        hidden=recipe["hidden"],
        heads=recipe["heads"],
        vocab=card["pieces"],
        kind=recipe["kind"],
        generator=card["data"]["generator"],
        objective="guess masked words; tell words that were altered from those that stand as written"
        if encoder
        else "next word",
        tokens=card["tokens"],
        steps=card["steps"],
        train_seed=card["data"]["prose_seeds"]["train_from"],
        loss=card["held_out"]["loss"],
        perplexity=card["held_out"]["perplexity"],
        fresh=card["held_out"]["fresh"],
        minutes=card["wall_s"] / 60,
        threads=card["threads"],
        command=card["command"],
    )
