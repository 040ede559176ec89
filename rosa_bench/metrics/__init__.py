"""Metrics in the scales the papers print. A metric of predictions and labels is one file that defines `METRIC`.

Metrics of generated text follow named conventions (`rosa_bench.metrics.conventions`). `rosa_bench/metrics/modules/`
holds all of them as `evaluate.Metric` modules. Light to import.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosa_bench.metrics.metric import Metric, Test

FOLDERS: list[Path] = [Path(__file__).parent]  # where metrics are found by name; a user's own folders come after ours


def known(name: str) -> bool:
    """Whether there is a metric of predictions and labels of this name, without importing it."""
    return name.isidentifier() and any(_defines(folder, name) for folder in FOLDERS)


def names() -> list[str]:
    """The metrics of predictions and labels."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.py") if known(path.stem)})


def find(name: str) -> Metric:
    """The metric of predictions and labels of this name. Raises KeyError if there is none."""
    for folder in FOLDERS:
        if _defines(folder, name):
            if folder != FOLDERS[0] and str(folder) not in sys.path:
                sys.path.append(str(folder))
            module = importlib.import_module(f"{__name__}.{name}" if folder == FOLDERS[0] else name)
            metric: Metric = module.METRIC
            return metric
    raise KeyError(name)


def _defines(folder: Path, name: str) -> bool:
    try:
        source = (folder / f"{name}.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return re.search(r"^METRIC = ", source, re.MULTILINE) is not None


def traits(name: str) -> tuple[Test, bool]:
    """The paired test over examples of a metric, and whether higher is better.

    A metric that is not known is tested by a bootstrap, and higher is better.
    """
    try:
        metric = find(name)
    except KeyError:
        from rosa_bench.metrics.conventions import LOWER_IS_BETTER

        return "bootstrap", name not in LOWER_IS_BETTER
    return metric.test, metric.higher_is_better
