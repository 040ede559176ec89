"""What all parts share: options, rounds in turn, medians with quartiles, targets, and what is written."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rosa_bench.records.environment import environment, processor
from rosa_bench.system.files import write_bytes, write_json

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Measured = dict[str, list[float]]

# A toy run may predict one class only, for which the primary metric of CoLA is undefined.
ALWAYS_DEFINED = ("task.metrics=[accuracy]", "task.primary=accuracy")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line. `quick` is a toy pass that tries every line of a part and measures nothing worth knowing."""

    rounds: int = 5
    size: str = "base"
    threads: int = 2
    quick: bool = False
    length: int = 128  # tokens of every row, where all have the same
    batch: int = 32
    precision: str = "fp32"  # of `steps` and `limit`
    only: tuple[str, ...] = ()  # contenders of `steps`; all if empty
    data: str | None = None  # a folder of real rows, for `decoding`
    inputs: int = 630
    beams: tuple[int, ...] = (1, 10)
    task: str = "e2e"
    method: str = "full"
    eval_batch: int = 64

    @property
    def rows(self) -> str:
        """What the inputs of `decoding` are, without the place where a machine keeps them."""
        return Path(self.data).name if self.data else "embedded"


@dataclass(frozen=True)
class Target:
    """What a figure was asked to be. `value` is what was measured."""

    what: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether it is that."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        """One line of Markdown."""
        sign, told = ("at least" if self.at_least else "at most"), "met" if self.met else "**missed**"
        return f"- {self.what}: {number(self.value)} ({sign} {number(self.bound)}: {told})"


@dataclass
class Found:
    """What a part measured: tables of Markdown cells for the docs, targets, remarks, and every number behind them."""

    tables: list[list[tuple[str, ...]]] = field(default_factory=list)  # each begins with its head
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """Tables, targets and remarks."""
        blocks = ["\n".join(_markdown_rows(rows)) for rows in self.tables]
        blocks += ["\n".join(target.line() for target in self.targets)] if self.targets else []
        blocks += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join(blocks) + "\n"


def _markdown_rows(rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Measured:
    """What each contender gives in each round. Every round runs all of them, in turn and every other one backwards."""
    names = list(contenders)
    found: Measured = {name: [] for name in names}
    for index in range(rounds):
        for name in names if index % 2 == 0 else reversed(names):
            found[name].append(contenders[name]())
    return found


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(measured: Measured, name: str, base: str) -> list[float]:
    """The quotients within the rounds."""
    return [one / other for one, other in zip(measured[name], measured[base], strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; of one value, that value."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return low, middle, high


def spread(values: Sequence[float]) -> str:
    """Median and quartiles as text."""
    low, middle, high = quartiles(values)
    return f"{number(middle)} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Three significant digits or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def host_class() -> str:
    """What the numbers depend on most: processor, number of cores, device; safe as a file name."""
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    parts = (processor(), f"{os.cpu_count()}cores", platform.machine(), device)
    return re.sub(r"[^a-z0-9_]+", "-", "-".join(parts).lower()).strip("-")


def card() -> str:
    """The GPU's name, safe as a file name."""
    return (
        re.sub(r"[^a-z0-9_]+", "-", torch.cuda.get_device_name().lower()).strip("-") if DEVICE == "cuda" else "no-gpu"
    )


def run_part(
    name: str, measure: Callable[[Options], Found], options: Options, out: Path, host: str | None = None
) -> Path:
    """Measure one part and write it into the files of this host class beside the parts that were measured before."""
    torch.set_num_threads(options.threads)
    began, before = time.perf_counter(), os.getloadavg()
    found = measure(options)
    told = {
        "options": asdict(options) | {"data": options.rows},
        "env": environment("auto"),
        "load_before": before,
        "load_after": os.getloadavg(),
        "took_s": time.perf_counter() - began,
        "targets": [asdict(target) | {"met": target.met} for target in found.targets],
        "numbers": found.numbers,
        "markdown": found.markdown(),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{host or host_class()}{'-quick' if options.quick else ''}.json"
    parts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts[name] = json.loads(json.dumps(told))
    write_json(path, parts)
    write_bytes(path.with_suffix(".md"), page(parts).encode())
    print(f"## {name}\n\n{head(told)}\n\n{found.markdown()}\n{path}", flush=True)
    return path


def page(parts: Mapping[str, Any]) -> str:
    """All parts of a host class as Markdown."""
    return "\n".join(f"## {name}\n\n{head(told)}\n\n{told['markdown']}" for name, told in sorted(parts.items()))


def head(told: Mapping[str, Any]) -> str:
    """Where and how a part was measured, in a line."""
    env, options = told["env"], told["options"]
    toy = "**A toy pass: no figure here means anything.** " if options["quick"] else ""
    return (
        f"{toy}{env['device']}, {options['threads']} threads, torch {env['packages']['torch']}, "
        f"{options['rounds']} rounds in turn, medians with quartiles; load {told['load_before'][0]:.1f} before and "
        f"{told['load_after'][0]:.1f} after, {told['took_s'] / 60:.1f} minutes."
    )
