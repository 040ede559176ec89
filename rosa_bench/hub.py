"""Whether a run may ask a hub, and whether the hub answers. To be settled before the hub's client is imported."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

from rosa_bench.config import Run

TIMEOUT_S = 8.0  # for a sign of life
DEFAULT = "https://huggingface.co"


def prepare(run: Run) -> None:
    """Keep the hub's client offline unless this run wants a hub that answers; the user's own settings win.

    Offline, what was downloaded before is still found, and anything else fails at once instead of after half a minute
    of retries.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        os.environ.setdefault(name, "20")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if not wanted(run) or offline or not answers(endpoint()):
        os.environ["HF_HUB_OFFLINE"] = "1"


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
    except (OSError, ValueError):
        return False
