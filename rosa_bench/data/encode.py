"""Tokenized examples, cached under a hash of everything that can change them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rosa_bench.config import PACKAGE
from rosa_bench.core.task import Encoded, Task
from rosa_bench.system import progress
from rosa_bench.system.console import warn
from rosa_bench.system.files import cache_dir, write_bytes
from rosa_bench.system.strict_json import loads

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rosa_bench.data.source import Split

FORMAT = 4  # increased when `Encoded` or the encoding changes


def encode_split(task: Task, tokenizer: PreTrainedTokenizerBase, split: Split, max_length: int) -> list[Encoded]:
    """Encode every example of a split, or read the result from the cache.

    A damaged cache entry causes a warning and is encoded again; failed writes are ignored. User-defined tasks and
    tokenizers in Python are not cached, since the key does not cover their code, merges and options.
    """
    cacheable = tokenizer.is_fast and type(task).__module__.startswith(PACKAGE)
    path = cache_dir() / "tokens" / f"{_key(task, tokenizer, split, max_length)}.json" if cacheable else None
    if path is not None and (cached := _read(path)) is not None:
        return cached
    examples = progress.each(split.examples, f"tokenizing {task.name}", len(split.examples))
    encoded = [task.encode(example, tokenizer, max_length) for example in examples]
    if path is not None:
        _write(path, encoded)
    return encoded


def _key(task: Task, tokenizer: PreTrainedTokenizerBase, split: Split, max_length: int) -> str:
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("truncation", "padding"):  # settings of the last call, not of the tokenizer
        vocabulary.pop(state, None)
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    parts = [
        FORMAT,
        repr(task),
        split.sha256,
        len(split.examples),
        max_length,
        type(tokenizer).__name__,
        vocabulary,
        special,
        tokenizer.truncation_side,
        tokenizer.model_input_names,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> list[Encoded] | None:
    try:
        head, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != head:
        warn(f"rosa_bench: cache file {path} is damaged; encoding its texts again")
        return None
    return [Encoded(*values) for values in loads(body)]


def _write(path: Path, encoded: Sequence[Encoded]) -> None:
    body = json.dumps([list(asdict(item).values()) for item in encoded], separators=(",", ":"))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}".encode())
