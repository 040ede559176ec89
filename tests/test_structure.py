"""Structure of the code: shared code names no method or task; imports need no network, GPU or folder."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import METHODS, TASKS

import rosa_bench

PACKAGE = Path(rosa_bench.__file__).parent
NEUTRAL = ["system", "stats", "config", "data", "models", "records", "training", "evaluation", "suite", "tables"]
SHARED = sorted(path for name in NEUTRAL for path in (PACKAGE / name).rglob("*.py"))


@pytest.mark.parametrize("path", SHARED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_shared_code_names_no_method_and_no_task(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not texts & ({*METHODS, *TASKS} - {"adapter"})  # "adapter" is also a value of `save`
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    assert not [m for m in imported if m.startswith("rosa_bench.methods.")]


def test_imported_packages_are_declared():
    """Every imported package is a declared dependency; pydantic installs its matching core."""
    declared = {canonicalize_name(Requirement(line).name) for line in metadata.requires("rosa_bench") or []}
    homes = metadata.packages_distributions()
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    roots = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"rosa_bench", "pydantic_core"}
    assert not {r for r in roots if not declared & {canonicalize_name(home) for home in homes.get(r, [])}}


def test_every_module_imports_from_anywhere():
    modules = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "rosa_bench.") if "metrics.modules" not in m.name]
    code = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:] if not m.endswith('__main__')]"
    subprocess.run([sys.executable, "-c", code, *modules], check=True, cwd="/", timeout=120)
