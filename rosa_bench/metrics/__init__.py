"""Metrics on the scales that the papers print. A metric of predictions and labels is one file that defines `METRIC`.

Metrics of generated text follow named conventions (`rosa_bench.metrics.conventions`). `rosa_bench/metrics/modules/`
provides all metrics as `evaluate.Metric` modules. Importing this package loads no metric.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rosa_bench.metrics.metric import Metric, Test

FOLDERS: list[Path] = [Path(__file__).parent]  # searched for metrics by name; `config.use_folder` adds the user's


def exists(name: str) -> bool:
    """Whether a metric of predictions and labels has this name. Does not import it."""
    return name.isidentifier() and any(_defines(folder, name) for folder in FOLDERS)


def names() -> list[str]:
    """Names of all metrics of predictions and labels, sorted."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.py") if exists(path.stem)})


def find(name: str) -> Metric:
    """Import a metric of predictions and labels by name. Raises KeyError if it does not exist."""
    for folder in FOLDERS:
        if _defines(folder, name):
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
    """A metric's paired test over examples, and whether higher is better.

    Metrics of generated text and unknown metrics are tested by a bootstrap.
    """
    try:
        metric = find(name)
    except KeyError:
        from rosa_bench.metrics.conventions import LOWER_IS_BETTER

        return "bootstrap", name not in LOWER_IS_BETTER
    return metric.test, metric.higher_is_better
