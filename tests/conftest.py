"""Fixtures: small backbones, optional real rows, no network, and a clean environment for every test."""

from __future__ import annotations

import gc
import os
import runpy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import backbones
import pytest
from beside import SHARED
from hub_server import Hub, serving

BLOCKED = Path(__file__).parent / "helpers" / "blocked"
ATTEMPTS = Path(tempfile.mkstemp(prefix="rosa_bench-attempts-")[1])  # of this process and of those it starts
runpy.run_path(str(BLOCKED / "sitecustomize.py"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BLOCKED), os.environ.get("PYTHONPATH", "")]))
os.environ["ROSA_BENCH_TEST_ATTEMPTS"] = str(ATTEMPTS)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small products on two threads wait for each other
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def backbone():
    """Maps a kind (roberta, bert, gpt2, llama) to the folder of a small backbone of that class."""
    return backbones.folder


def pytest_unconfigure() -> None:
    ATTEMPTS.unlink(missing_ok=True)


@pytest.fixture(autouse=True, scope="module")
def _freeze_existing_objects() -> None:
    """Freeze existing objects before each module: each run collects garbage twice, which takes 0.3 s per collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def attempts() -> Iterator[Path]:
    """A file with one line per machine that a test tried to reach; a test that does so on purpose clears it."""
    yield ATTEMPTS
    ATTEMPTS.write_text("")


@pytest.fixture(autouse=True)
def _no_network(request) -> Iterator[None]:
    """Fail a test that tries to reach another machine, itself or in a process it starts."""
    ATTEMPTS.write_text("")
    yield
    if output := ATTEMPTS.read_text():
        pytest.fail(f"the network was asked for: {output}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def shared_data() -> Path:
    """The folder of real rows next to the checkout. Skips the test if it does not exist."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no folder of real rows next to the checkout")
    return SHARED / "data"


@pytest.fixture
def hub_server(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub on the loopback, an empty cache, short waits and no token."""
    from huggingface_hub import constants
    from support import forget_hubs

    from rosa_bench.system import hub

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    monkeypatch.setattr(hub, "WAITS_S", (0.01, 0.01, 0.01))
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    forget_hubs()
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server
    forget_hubs()


@pytest.fixture
def hub_offline(monkeypatch) -> Callable[[], None]:
    """A function that forbids downloads from then on."""
    from huggingface_hub import constants
    from support import forget_hubs

    def switch() -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        forget_hubs()

    return switch
