"""Files of a public git repository at a pinned commit: a data set as it was released, where a hub does not have it."""

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
    """The file of a split, from the cache or from GitHub; git's id of it is verified each time.

    Raises:
        HubError: if the file is not in the cache and GitHub does not send it as it was committed.
    """
    path, identity = upstream.files[split]
    cached = cache_dir() / "upstream" / identity
    with contextlib.suppress(OSError):
        if blob_id(kept := cached.read_bytes()) == identity:
            return kept
    address = f"{RAW}/{upstream.repository}/{upstream.revision}/{path}"
    if is_first():
        tell(f"downloading {address}")
    sent = hub.get(address)
    if blob_id(sent) != identity:
        raise hub.HubError(
            f"{address} is not the file of that commit: git's id of it is not {identity}; try again later"
        )
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(cached, sent)
    return sent


def is_cached(upstream: Upstream) -> bool:
    """Whether the file of every split was downloaded before."""
    return all((cache_dir() / "upstream" / identity).is_file() for _, identity in upstream.files.values())


def blob_id(content: bytes) -> str:
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
