"""Backbones by kind, real rows where there are any, and a clean environment for every test."""

from __future__ import annotations

import os
from pathlib import Path

import backbones
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def backbone():
    """A function from a kind (roberta, bert, gpt2, llama) to the folder of a small backbone of that class."""
    return backbones.folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def shared_data() -> Path:
    """The folder of real rows beside the checkout; tests that need it are skipped without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no folder of real rows beside the checkout")
    return SHARED / "data"
