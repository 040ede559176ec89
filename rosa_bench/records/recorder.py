"""Watches a run: clocks, memory, events and status. The only place that catches failures."""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from rosa_bench.config import Run
from rosa_bench.core.task import Prediction
from rosa_bench.errors import UsageError, first_line
from rosa_bench.metrics.scores import absences
from rosa_bench.records import checkpoints
from rosa_bench.records.environment import environment
from rosa_bench.records.predictions import prediction_row
from rosa_bench.records.record import THEN, Record, Status, write_record
from rosa_bench.system import distributed, memory
from rosa_bench.system.console import tell, warn
from rosa_bench.system.files import clear_temporaries, describe_error, write_bytes, write_json_lines_gz
from rosa_bench.system.locks import Lock, LostError
from rosa_bench.system.signals import INTERRUPTED, Signals, interrupted


def now() -> str:
    """The current time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


class Recorder:
    """Writes a run's folder while it runs. Writes `record.json` atomically at every change of status.

    `lock` is held by the caller; None if another process of the same run writes.
    """

    def __init__(self, run: Run, run_id: str, key: str, lock: Lock | None) -> None:
        self.folder = Path(run.output_dir) / run_id
        self.record = Record(run_id, key, run.task.name, run.model.name, run.method.name, run.seed, run.to_dict())
        self._device, self._dtype = run.train.device, run.train.precision
        self.activations: int | None = None
        self.graphs_refused: str | None = None  # why steps could not be captured as graphs, found in training
        self.stop_asked = False
        self._clocks: dict[str, float] = {}
        self._scores: list[tuple[str, Mapping[str, float]]] = []  # with the split and variant
        self._base: dict[str, float] = {}
        self._tokens = self._cells = self._examples = 0
        self._pending = [0, 0, 0]  # examples, cells and tokens of this process that are not yet in the totals
        self._training_since: float | None = None
        self._peak_open = True
        self._earlier_peaks: dict[str, int] = {}  # of earlier processes of this run
        self._writes = distributed.is_first()
        self._lock = lock
        self._signals = Signals(self._asked_to_stop, self._last_words)

    def __enter__(self) -> Recorder:
        gc.collect()
        self._peak = memory.PeakMemory()
        self._processor = time.process_time()
        self.record.started = now()
        self.record.env = environment(self._device) | {"dtype": self._dtype}
        try:
            if self._writes:
                clear_temporaries(self.folder)
            self.write()
        except OSError as error:
            self._peak.close()
            raise UsageError(f"output_dir: {self.folder} cannot be written ({error.strerror or error})") from error
        self._signals.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.ignore()
        self.record.status = status_of(error)
        if error is not None:
            self.record.error = describe_error(error, self.folder)[:2000]
        self.record.finished = now()
        self._cost()
        try:
            self._write_last(error)
        finally:
            self._peak.close()
            self._signals.end()

    def _write_last(self, error: BaseException | None) -> None:
        """Write the final record. On a full disk, delete incomplete checkpoints to make room for it."""
        if isinstance(error, LostError):
            return
        try:
            self.write()
        except OSError as unwritten:
            if self._writes:
                folders = checkpoints.checkpoints(self.folder)
                checkpoints.remove(path for path in folders if not (path / checkpoints.MARK).is_file())
            try:
                self.write()
            except OSError:
                if error is None:
                    raise
                warn(f"rosa_bench: cannot write the record of {self.folder.name}: {unwritten.strerror}")

    def _asked_to_stop(self) -> bool:
        """Ask the training loop to stop after this step with a checkpoint; False if it cannot or was asked before."""
        if self.stop_asked or self._training_since is None:
            return False
        self.stop_asked = True
        return True

    def _last_words(self) -> None:
        self.record.status, self.record.finished = status_of(KeyboardInterrupt()), now()
        self.record.error = "KeyboardInterrupt: the run did not stop in time"
        warn(INTERRUPTED)
        self.write()

    def write(self) -> None:
        """Write `record.json` atomically. Raises LostError if another process has taken over the folder."""
        if self._writes:
            self.check()
            write_record(self.folder, self.record)

    def check(self) -> None:
        """Raise LostError if another process has taken over the folder."""
        if self._lock is not None:
            self._lock.check()

    def show(self, line: str) -> None:
        """Print a line of progress with the seconds since training began."""
        if not self._writes:
            return
        since = "" if self._training_since is None else f"{time.perf_counter() - self._training_since:6.1f} s  "
        tell(f"  {since}{line}")

    # Clocks. `train_s` runs from the first step to the last, excluding `method_s` and `eval_s`.

    @contextlib.contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the seconds spent in the context to the clock `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._clocks[name] = self._clocks.get(name, 0.0) + time.perf_counter() - start

    @contextlib.contextmanager
    def optional(self, name: str) -> Iterator[None]:
        """Take an optional measurement: if it fails, print a line and leave the value `name` absent."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self.show(f"{name} is absent ({type(error).__name__}: {first_line(error)})")

    def clocks(self) -> dict[str, float]:
        """All clocks and the counters behind the rates, for checkpoints."""
        values = dict(self._clocks) | {"tokens": self._tokens, "cells": self._cells, "examples": self._examples}
        if self._training_since is not None:
            inside = sum(self._clocks.get(name, 0.0) - self._base.get(name, 0.0) for name in ("method_s", "eval_s"))
            values["train_s"] = self._base.get("train_s", 0.0) + time.perf_counter() - self._training_since - inside
        if self._peak_open:
            values["cpu_s"] = self._base.get("cpu_s", 0.0) + time.process_time() - self._processor
        return values

    def measured(self) -> dict[str, Any]:
        """Parameters and memory as measured in the first steps, and peaks so far, for checkpoints."""
        return {
            "device": self.record.env["device"],
            "params": self.record.params,
            "memory": dict(self.record.cost.get("memory", {})),
            "activations": self.activations,
            "graphs_refused": self.graphs_refused,
            "peaks": self._peaks(),
        }

    def continue_from(self, clocks: Mapping[str, float], measured: Mapping[str, Any]) -> None:
        """Continue with the clocks and measurements of a checkpoint, and list the devices on which they were taken."""
        device = self.record.env["device"]
        before = measured.get("device", device)
        self.record.env["device"] = before if before.split(THEN)[-1] == device else f"{before}{THEN}{device}"
        self.record.params, self.record.cost["memory"] = dict(measured["params"]), dict(measured["memory"])
        self.activations = measured["activations"]
        self.graphs_refused = measured.get("graphs_refused")
        self._earlier_peaks = dict(measured.get("peaks", {}))  # absent in checkpoints of earlier versions
        self._base = dict(clocks)
        self._clocks |= {name: value for name, value in clocks.items() if name.endswith("_s")}
        self._tokens, self._cells = int(clocks["tokens"]), int(clocks["cells"])
        self._examples = int(clocks["examples"])

    def training_begins(self, model: torch.nn.Module) -> None:
        """Start the training clock and record parameter counts and memory."""
        total = sum(p.numel() for p in model.parameters())
        trainable = [p for p in model.parameters() if p.requires_grad]
        count = sum(p.numel() for p in trainable)
        self.record.params |= {"total": total, "trainable": count, "trainable_percent": 100 * count / total}
        weights = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        gradients = sum(p.numel() * p.element_size() for p in trainable)
        self.record.cost.setdefault("memory", {}).update(weights=weights, gradients=gradients)
        self.write()
        self._base |= {name: self._clocks.get(name, 0.0) for name in ("method_s", "eval_s")}
        self._training_since = time.perf_counter()

    def training_ends(self) -> None:
        self._clocks["train_s"] = self.clocks()["train_s"]
        self._training_since = None
        self._signals.orderly_end_over()

    def optimizer_ready(self, optimizer: Any) -> None:
        """Measure the size of the optimizer's state, once it exists."""
        tensors = [
            t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor) and t.dim()
        ]
        self.record.params["optimizer_elements"] = sum(t.numel() for t in tensors)
        self.record.cost["memory"]["optimizer"] = sum(t.numel() * t.element_size() for t in tensors)

    def count_batch(self, examples: int, cells: int, tokens: int) -> None:
        """Count a micro-batch of this process: examples, and tokens with (`cells`) and without padding."""
        for index, count in enumerate((examples, cells, tokens)):
            self._pending[index] += count

    def sum_counts(self) -> None:
        """Add the counts of all processes since the last call to the totals. Collective: every process must call it."""
        examples, cells, tokens = distributed.total(self._pending)
        self._examples += examples
        self._cells += cells
        self._tokens += tokens
        self._pending = [0, 0, 0]

    def _cost(self) -> None:
        if distributed.world_size() == 1:  # after a failure, other processes may not take part in the sum
            self.sum_counts()
        cost = self.record.cost
        cost |= {name: value for name, value in self.clocks().items() if name.endswith("_s")}
        if self._examples and (rates := self._rates()):
            cost |= rates | {"padding_fraction": 1 - self._tokens / self._cells}
        if self.activations is not None and "memory" in cost:
            cost["memory"]["activations"] = self.activations
        if self._peak_open:
            self.peak_ends()

    def peak_ends(self) -> None:
        """Record peak memory and CPU time so far; what follows is neither training nor scoring."""
        self._clocks["cpu_s"] = self.clocks()["cpu_s"]  # of all threads; other work affects it less than elapsed time
        self.record.cost |= self._peaks()
        self._peak_open = False

    def _peaks(self) -> dict[str, int]:
        """Peak memory so far, over this process and the earlier processes of the run."""
        own, earlier = self._peak.read(), self._earlier_peaks
        return {name: max(own.get(name, 0), earlier.get(name, 0)) for name in earlier | own}

    # Other files.

    def event(self, **values: Any) -> None:
        """Append a line to the training curve."""
        if not self._writes:
            return
        values |= self._rates()
        line = json.dumps(values, allow_nan=False)
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def _rates(self) -> dict[str, float]:
        busy = self._busy()
        return {"examples_per_s": self._examples / busy, "tokens_per_s": self._tokens / busy} if busy > 0 else {}

    def _busy(self) -> float:
        """Seconds of training so far, with the method's own work."""
        values = self.clocks()
        return values.get("train_s", 0.0) + values.get("method_s", 0.0)

    def examples_per_s(self) -> float | None:
        """Training speed so far, extrapolated to all processes between sums of counts; None before the first step."""
        examples, busy = self._examples + self._pending[0] * distributed.world_size(), self._busy()
        return examples / busy if examples and busy > 0 else None

    def peak_bytes(self) -> int:
        """Peak memory so far, of the device if there is one, else of the process."""
        peak = self._peaks()
        return peak.get("peak_device_bytes", peak["peak_rss_bytes"])

    def rewind_events(self, step: int, scored: bool = True) -> None:
        """Drop lines after `step`, which a resumed run writes again, and any incomplete line.

        With `scored=False` the scores at `step` are dropped too, because the evaluation there was interrupted.
        """
        if not self._writes:
            return
        path = self.folder / "events.jsonl"
        lines = []
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    event = json.loads(line)
                    if event["step"] < step or (event["step"] == step and (scored or "scores" not in event)):
                        lines.append(line + "\n")
        write_bytes(path, "".join(lines).encode())

    def predictions(self, split: str, variant: str, predictions: Sequence[Prediction]) -> None:
        """Write the predictions of a split, in the order of the split."""
        name = f"predictions-{split}" + (f"-{variant}" if variant else "") + ".jsonl.gz"
        write_json_lines_gz(self.folder / name, map(prediction_row, predictions))

    def scores(self, split: str, variant: str, scores: Mapping[str, float]) -> None:
        """Record the scores of a split and variant, and the reason for each metric without a value.

        `facts.absent_metrics` maps a metric to its reasons; a reason that depends on the rows names the splits.
        """
        self._scores.append((f"{split} {variant}".strip(), scores))
        if absent := absences(self._scores):
            self.record.facts["absent_metrics"] = absent
        self.record.scores.setdefault(split, {}).setdefault(variant, {}).update(scores)


# Wording of torch and CUDA's libraries when they raise a plain RuntimeError.
OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def status_of(error: BaseException | None) -> Status:
    if error is None:
        return "done"
    if isinstance(error, SystemExit) or interrupted(error):
        return "interrupted"
    memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        text in str(error) for text in OUT_OF_MEMORY
    )
    return "oom" if memory else "failed"
