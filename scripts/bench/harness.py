"""Common to all parts: options, alternating rounds, medians with quartiles, targets, and output files."""

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

# A toy run may predict a single class, for which the primary metric of CoLA is undefined.
ACCURACY = ("task.metrics=[accuracy]", "task.primary=accuracy")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Command-line options. `quick` runs every line of a part in toy size; its figures mean nothing."""

    rounds: int = 5
    size: str = "base"
    threads: int = 2
    quick: bool = False
    length: int = 128  # tokens per row, for parts with rows of one length
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
        """The source of the inputs of `decoding`, without the path on this machine."""
        return Path(self.data).name if self.data else "embedded"


@dataclass(frozen=True)
class Target:
    """A required bound of a figure, and its measured value."""

    what: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the value satisfies the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        """One line of Markdown."""
        sign, verdict = ("at least" if self.at_least else "at most"), "met" if self.met else "**missed**"
        return f"- {self.what}: {number(self.value)} ({sign} {number(self.bound)}: {verdict})"


@dataclass
class Result:
    """The result of a part: tables of Markdown cells, targets, notes, and all numbers."""

    tables: list[list[tuple[str, ...]]] = field(default_factory=list)  # the first row of each is its head
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """Tables, targets and notes."""
        blocks = ["\n".join(_markdown_rows(rows)) for rows in self.tables]
        blocks += ["\n".join(target.line() for target in self.targets)] if self.targets else []
        blocks += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join(blocks) + "\n"


def _markdown_rows(rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Measured:
    """The result of each contender in each round. Rounds run all contenders, alternately in order and in reverse."""
    names = list(contenders)
    measured: Measured = {name: [] for name in names}
    for index in range(rounds):
        for name in names if index % 2 == 0 else reversed(names):
            measured[name].append(contenders[name]())
    return measured


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(measured: Measured, name: str, base: str) -> list[float]:
    """The ratio of a contender to the base in each round."""
    return [value / base_value for value, base_value in zip(measured[name], measured[base], strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; for one value, three times that value."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return low, middle, high


def spread(values: Sequence[float]) -> str:
    """Median and quartiles as text."""
    low, middle, high = quartiles(values)
    return f"{number(middle)} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """A number with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def host_class() -> str:
    """Processor, number of cores and device, safe as a file name."""
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    parts = (processor(), f"{os.cpu_count()}cores", platform.machine(), device)
    return re.sub(r"[^a-z0-9_]+", "-", "-".join(parts).lower()).strip("-")


def card() -> str:
    """The GPU's name, safe as a file name."""
    return (
        re.sub(r"[^a-z0-9_]+", "-", torch.cuda.get_device_name().lower()).strip("-") if DEVICE == "cuda" else "no-gpu"
    )


def run_part(
    name: str, measure: Callable[[Options], Result], options: Options, out: Path, host: str | None = None
) -> Path:
    """Measure one part and add it to the files of this host class."""
    torch.set_num_threads(options.threads)
    began, before = time.perf_counter(), os.getloadavg()
    result = measure(options)
    entry = {
        "options": asdict(options) | {"data": options.rows},
        "env": environment("auto"),
        "load_before": before,
        "load_after": os.getloadavg(),
        "took_s": time.perf_counter() - began,
        "targets": [asdict(target) | {"met": target.met} for target in result.targets],
        "numbers": result.numbers,
        "markdown": result.markdown(),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{host or host_class()}{'-quick' if options.quick else ''}.json"
    parts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    parts[name] = json.loads(json.dumps(entry))
    write_json(path, parts)
    write_bytes(path.with_suffix(".md"), page(parts).encode())
    print(f"## {name}\n\n{head(entry)}\n\n{result.markdown()}\n{path}", flush=True)
    return path


def page(parts: Mapping[str, Any]) -> str:
    """All parts of a host class as Markdown."""
    return "\n".join(f"## {name}\n\n{head(entry)}\n\n{entry['markdown']}" for name, entry in sorted(parts.items()))


def head(entry: Mapping[str, Any]) -> str:
    """One line about where and how a part was measured."""
    env, options = entry["env"], entry["options"]
    toy = "**A toy pass: its figures mean nothing.** " if options["quick"] else ""
    return (
        f"{toy}{env['device']}, {options['threads']} threads, torch {env['packages']['torch']}, "
        f"{options['rounds']} alternating rounds, medians with quartiles; load {entry['load_before'][0]:.1f} before "
        f"and {entry['load_after'][0]:.1f} after, {entry['took_s'] / 60:.1f} minutes."
    )
