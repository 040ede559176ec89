"""Files of a public git repository at a pinned commit, for data sets whose original release is not on the hub."""

from __future__ import annotations

import contextlib
import hashlib

from rosa_bench.core.task import Upstream
from rosa_bench.system import hub
from rosa_bench.system.console import tell
from rosa_bench.system.distributed import is_first
from rosa_bench.system.files import cache_dir, write_bytes

RAW = "https://raw.githubusercontent.com"


def content(upstream: Upstream, split: str) -> bytes:
    """The file of a split, from the cache or GitHub, with its git blob id verified each time.

    Raises:
        HubError: if the file is not cached and GitHub does not send the committed file.
    """
    path, identity = upstream.files[split]
    cached = cache_dir() / "upstream" / identity
    with contextlib.suppress(OSError):
        if blob_id(stored := cached.read_bytes()) == identity:
            return stored
    address = f"{RAW}/{upstream.repository}/{upstream.revision}/{path}"
    if is_first():
        tell(f"downloading {address}")
    received = hub.get(address)
    if blob_id(received) != identity:
        raise hub.HubError(f"{address} does not match the commit: its git blob id is not {identity}; try again later")
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(cached, received)
    return received


def is_cached(upstream: Upstream) -> bool:
    """Whether the files of all splits are cached."""
    return all((cache_dir() / "upstream" / identity).is_file() for _, identity in upstream.files.values())


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
