"""The documentation builds without a warning and loads nothing from other sites."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def test_links_and_anchors_are_valid(site):
    assert (site / "background" / "methods.html").is_file()


def test_pages_load_nothing_from_other_sites(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"(?:https?:)?//[^\"]*", html)
        loaded += re.findall(
            r"<link[^>]*rel=\"(?:stylesheet|preload|preconnect|icon)\"[^>]*href=\"https?://[^\"]*", html
        )
        loaded += re.findall(r"<link[^>]*href=\"https?://[^\"]*\"[^>]*rel=\"(?:stylesheet|preload|preconnect)\"", html)
        assert not loaded, (page, loaded)
        assert 'class="mermaid"' not in html  # its renderer would be loaded from another site
