"""Backbones by kind, real rows where there are any, no network, and a clean environment for every test."""

from __future__ import annotations

import gc
import os
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import backbones
import pytest
from beside import SHARED

BLOCKED = Path(__file__).parent / "helpers" / "blocked"
ATTEMPTS = Path(tempfile.mkstemp(prefix="rosa_bench-attempts-")[1])  # of this process and of those it starts
runpy.run_path(str(BLOCKED / "sitecustomize.py"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BLOCKED), os.environ.get("PYTHONPATH", "")]))
os.environ["ROSA_BENCH_TEST_ATTEMPTS"] = str(ATTEMPTS)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def backbone():
    """A function from a kind (roberta, bert, gpt2, llama) to the folder of a small backbone of that class."""
    return backbones.folder


def pytest_unconfigure() -> None:
    ATTEMPTS.unlink(missing_ok=True)


@pytest.fixture(autouse=True, scope="module")
def _nothing_old_to_look_through() -> None:
    """What is there when a module's tests begin, stays: a run collects twice, a third of a second each among it all."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def attempts() -> Iterator[Path]:
    """A file with a line for each machine that a test has asked for; one that asks on purpose is forgiven by it."""
    yield ATTEMPTS
    ATTEMPTS.write_text("")


@pytest.fixture(autouse=True)
def _no_network(request) -> Iterator[None]:
    """A test fails that asks for another machine, or that starts a process which does."""
    ATTEMPTS.write_text("")
    yield
    if told := ATTEMPTS.read_text():
        pytest.fail(f"the network was asked for: {told}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def shared_data() -> Path:
    """The folder of real rows beside the checkout; tests that need it are skipped without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no folder of real rows beside the checkout")
    return SHARED / "data"
