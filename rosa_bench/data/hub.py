"""Whether a run may ask a hub, and whether the hub answers. To be settled before the hub's client is imported."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException

from rosa_bench.config import Run
from rosa_bench.system.strict_json import loads

TIMEOUT_S = 8.0  # for a sign of life
DEFAULT = "https://huggingface.co"
LARGEST = 2**24  # bytes of an answer


def prepare(run: Run) -> None:
    """Keep the hub's client offline unless this run wants a hub that answers; the user's own settings win.

    Offline, what was downloaded before is still found, and anything else fails at once instead of after half a minute
    of retries.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        os.environ.setdefault(name, "10")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if not wanted(run) or offline or not alive(run):
        os.environ["HF_HUB_OFFLINE"] = "1"


def alive(run: Run) -> bool:
    """Whether the hub answers, and answers as a hub does when it is asked what the run is going to ask it for."""
    return answers(endpoint()) and all(speaks(f"{endpoint()}/api/{place}") for place in _asked(run))


def _asked(run: Run) -> Iterator[str]:
    """What the run wants of the hub, as addresses of its interface."""
    if run.data.source == "hub":
        yield f"datasets/{run.task.hub.repository}"
    if run.model.hub is not None and run.model.path is None:
        yield f"models/{urllib.parse.quote(run.model.hub)}"


def wanted(run: Run) -> bool:
    """Whether rows or weights come from a hub."""
    return run.data.source == "hub" or (run.model.hub is not None and run.model.path is None)


def endpoint() -> str:
    """The hub's address, the user's own if one is set."""
    return os.environ.get("HF_ENDPOINT", DEFAULT)


def answers(endpoint: str) -> bool:
    """Whether anything at the address speaks HTTP within `TIMEOUT_S` seconds; a refusal is an answer too."""
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, HTTPException):
        return False


def speaks(address: str, asked: bytes | None = None) -> bool:
    """Whether what answers at an address speaks JSON; `asked` is posted as such. A refusal is an answer too."""
    request = urllib.request.Request(address, data=asked, headers={"Content-Type": "application/json"})
    ends = time.monotonic() + TIMEOUT_S
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            told = b""
            while part := reply.read1(LARGEST):
                told += part
                if time.monotonic() > ends or len(told) > LARGEST:
                    return False
            loads(told)
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, HTTPException):
        return False
