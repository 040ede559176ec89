"""Forward and backward pass of a micro-batch as one CUDA graph for each shape of a batch.

A step of a small model launches hundreds of kernels, and launching them takes longer than they run. A graph is
launched once. Loss and gradients come from one graph: with one for each direction, reversible layers and gradient
checkpointing would not redraw the dropout of the forward pass. Whether a batch runs as a graph follows from the
configuration and the batch, never from earlier steps, so that a resumed run repeats the uninterrupted one bit for bit.

Runs without graphs: several processes, fp16 (its loss scale is a number on the host), devices other than CUDA, and
models whose forward pass reads the device on the host or draws from a generator of the host.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from rosa_bench.models.casts import Casts

Compute = Callable[[dict[str, Any], Any], torch.Tensor]  # the loss of a batch, given the number of items in its step
MOST = 128  # graphs of a run; each takes memory and a fraction of a second to record
# By how much a replayed step may differ from the eager one, as a share of the largest gradient: sums run in another
# order. Wrong dropout or a stale weight differs by far more.
CLOSE = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 3e-2}


class RefusedError(RuntimeError):
    """A model's step cannot run as a graph; says why."""


class Backend(ABC):
    """How a device records a step and replays it."""

    @abstractmethod
    def generator(self) -> torch.Tensor:
        """The state of the generator that dropout draws from."""

    @abstractmethod
    def restore(self, state: torch.Tensor) -> None:
        """Put that generator back into a state."""

    def host_generators(self) -> Any:
        """The states of generators whose draws a recording would repeat for ever."""
        name, keys, *rest = np.random.get_state()
        return random.getstate(), name, np.asarray(keys).tobytes(), rest

    def warming(self) -> AbstractContextManager[None]:
        """Entered around the steps that run before one is recorded."""
        return nullcontext()

    def strict(self) -> AbstractContextManager[None]:
        """Inside, reading the device on the host raises RuntimeError."""
        return nullcontext()

    @abstractmethod
    def record(self, step: Callable[[], None]) -> Callable[[], Any]:
        """Record a step; returns its replay. Raises RefusedError if that fails and leaves the process intact."""


class Cuda(Backend):
    """CUDA graphs that share one memory pool, captured on a stream of their own."""

    OLDEST = (2, 10)  # the first torch that can set a generator's state within a capture
    RECOVERS = (2, 13)  # the first torch that can go on after a failed capture

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream: Any = torch.cuda.Stream(device)

    def generator(self) -> torch.Tensor:
        """Of the CUDA device."""
        return torch.cuda.get_rng_state(self.device)

    def restore(self, state: torch.Tensor) -> None:
        """On the CUDA device."""
        torch.cuda.set_rng_state(state, self.device)

    def host_generators(self) -> Any:
        """Python's, numpy's and torch's on the CPU."""
        return *super().host_generators(), torch.get_rng_state().numpy().tobytes()

    @contextlib.contextmanager
    def warming(self) -> Iterator[None]:
        """On the stream that captures, where cuBLAS makes its workspace, and as transformers acts in a capture."""
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        with as_if_capturing(), torch.cuda.stream(self.stream):
            yield
        outer.wait_stream(self.stream)

    @contextlib.contextmanager
    def strict(self) -> Iterator[None]:
        """By torch's own check of synchronising calls."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def record(self, step: Callable[[], None]) -> Callable[[], Any]:
        """Capture a CUDA graph."""
        graph, outer = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()  # no destructor may free device memory within a capture
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                step()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            torch.cuda.set_stream(outer)  # a capture that cannot end leaves its own stream set
            if torch_version() < self.RECOVERS:
                raise RuntimeError(
                    f"capturing a CUDA graph failed ({_line(error)}). torch {torch.__version__} cannot continue after "
                    "that: set train.graphs=off, or use torch 2.13 or later"
                ) from error
            raise RefusedError(f"capturing failed: {_line(error)}") from error
        finally:
            if collecting:
                gc.enable()
        return graph.replay


BACKENDS: dict[str, Callable[[torch.device], Backend]] = {"cuda": Cuda}  # by type of device


@contextlib.contextmanager
def as_if_capturing() -> Iterator[None]:
    """Inside, transformers builds an attention mask without looking at it, as it does within a capture.

    Otherwise it leaves out a mask of ones, and another attention kernel draws other dropout.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(AttributeError):  # a transformers that never looks
            stack.enter_context(mock.patch("transformers.utils.import_utils.is_cuda_stream_capturing", lambda: True))
        yield


def torch_version() -> tuple[int, int]:
    """Major and minor version of torch."""
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def reason_against(mode: str, device: torch.device, precision: str, processes: int, shapes: int) -> str | None:
    """Why a run does without graphs, as far as that is known before it trains; None if nothing is against them.

    `shapes` is the number of different shapes of batches times the phases of the method.
    """
    if mode == "off":
        return "train.graphs=off"
    if device.type not in BACKENDS:
        return f"the device is {device.type}, not cuda"
    if processes > 1:
        return f"{processes} processes share the run"
    if precision == "fp16":
        return "train.precision=fp16 scales its loss by a number on the host"
    if device.type == "cuda" and torch_version() < Cuda.OLDEST:
        return f"torch {torch.__version__} is older than 2.10"
    if shapes > MOST:
        return f"{shapes} graphs would be needed, more than {MOST}"
    return None


@dataclass
class _Recording:
    """A recorded step: the tensors it reads, how it is replayed, and which parameters it gives a gradient to."""

    inputs: dict[str, torch.Tensor]
    items: Any
    replay: Callable[[], Any]
    reached: list[bool]


class Graphs:
    """Training steps of a model as graphs, one for each shape of a batch and phase of the method.

    `compute` gives the loss of a batch. `single` says that every optimiser step has one micro-batch: its gradients are
    then handed over as they are. `tolerance` is a value of `CLOSE`. Once a step could not be recorded, `refused` says
    why, and from then on, also in a run resumed from there, every step is eager.
    """

    def __init__(
        self,
        model: nn.Module,
        compute: Compute,
        backend: Backend,
        casts: Casts,
        *,
        single: bool,
        tolerance: float,
        refused: str | None = None,
    ) -> None:
        self.model, self.compute, self.backend, self.casts = model, compute, backend, casts
        self.single, self.tolerance, self.refused = single, tolerance, refused
        self.recorded, self.seconds = 0, 0.0
        self._begin()

    def _begin(self) -> None:
        """Set up for the parameters that the model has now."""
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.leaves = [self.casts.leaf(p) for p in self.parameters]
        self.shared = [torch.empty_like(p, requires_grad=False) for p in self.parameters]
        self.loss = torch.zeros((), device=self.parameters[0].device)
        self._places = [(m._parameters, name) for m in self.model.modules() for name in m._parameters]
        self._seen = self._addresses()
        self._recordings: dict[Hashable, _Recording] = {}

    def _addresses(self) -> list[tuple[Any, ...]]:
        """Which parameters there are, where their values lie, and whether they train."""
        found = (parameters[name] for parameters, name in self._places)
        return [(id(p), p.data_ptr(), p.requires_grad) for p in found if p is not None]

    def step(
        self,
        inputs: Mapping[str, torch.Tensor],
        items: Any,
        phase: Hashable,
        watch: AbstractContextManager[Any] | None = None,
    ) -> torch.Tensor | None:
        """The loss of a batch, its gradients added to those of the parameters; None if it has to be eager.

        If the step is recorded now, `watch` is entered around its first pass. The next step overwrites the loss.
        """
        if self.refused is not None:
            return None
        if self._addresses() != self._seen:  # graphs would go on reading what was replaced
            self.casts.make()
            self._begin()
        shapes = tuple((name, tuple(t.shape), t.dtype) for name, t in sorted(inputs.items()))
        key = shapes, phase, None if isinstance(items, torch.Tensor) else items
        if key not in self._recordings:
            began = time.perf_counter()
            try:
                self._recordings[key] = self._record(inputs, items, watch)
            except RefusedError as error:
                self.refused = str(error)
                self._recordings.clear()
                return None
            self.recorded += 1
            self.seconds += time.perf_counter() - began
        recording = self._recordings[key]
        torch._foreach_copy_(list(recording.inputs.values()), [inputs[name] for name in recording.inputs])
        if isinstance(items, torch.Tensor):
            recording.items.copy_(items)
        recording.replay()
        self._hand_over(recording.reached)
        return self.loss

    def _record(
        self, inputs: Mapping[str, torch.Tensor], items: Any, watch: AbstractContextManager[Any] | None
    ) -> _Recording:
        """Run a step twice, record it, and compare a replay with it. The generator ends where it began."""
        static = {name: tensor.clone() for name, tensor in inputs.items()}
        static_items = items.clone() if isinstance(items, torch.Tensor) else items
        reached = [False] * len(self.leaves)

        def step() -> None:
            self.casts.refresh()
            with self.casts.in_place(changing=True):
                value = self.compute(dict(static), static_items)
                found = torch.autograd.grad(value, self.leaves, allow_unused=True)
            reached[:] = [gradient is not None for gradient in found]
            pairs = [(to, gradient) for to, gradient in zip(self.shared, found, strict=True) if gradient is not None]
            torch._foreach_copy_([to for to, _ in pairs], [gradient for _, gradient in pairs])
            self.loss.copy_(value.detach())

        before, host = self.backend.generator(), self.backend.host_generators()
        try:
            with self.backend.warming():
                with watch or nullcontext():
                    step()
                self.backend.restore(before)
                self._strictly(step)
            if self.backend.host_generators() != host:
                raise RefusedError("a step draws random numbers on the host")
            outputs = [self.loss, *(to for to, reaches in zip(self.shared, reached, strict=True) if reaches)]
            expected = [tensor.clone() for tensor in outputs]
            self.backend.restore(before)
            replay = self.backend.record(step)
            self.backend.restore(before)
            replay()
        finally:
            self.backend.restore(before)
        if not close(outputs, expected, self.tolerance):
            raise RefusedError("a replayed step differs from the eager one")
        return _Recording(static, static_items, replay, reached)

    def _strictly(self, step: Callable[[], None]) -> None:
        """A step that may not read the device. Raises RefusedError, before a capture that could not be undone."""
        try:
            with self.backend.strict():
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RefusedError(f"a step reads the device on the host: {_line(error)}") from error

    def _hand_over(self, reached: Sequence[bool]) -> None:
        """Give the parameters their gradients as autograd does: set where there is none yet, added elsewhere."""
        pairs = [(p, g) for p, g, reaches in zip(self.parameters, self.shared, reached, strict=True) if reaches]
        if self.single:
            for p, gradient in pairs:
                assert p.grad is None
                p.grad = gradient
            return
        new = [(p, gradient) for p, gradient in pairs if p.grad is None]
        old = [(p.grad, gradient) for p, gradient in pairs if p.grad is not None]
        if old:
            torch._foreach_add_([total for total, _ in old], [gradient for _, gradient in old])
        if new:
            copies = torch._foreach_mul([gradient for _, gradient in new], 1.0)
            for (p, _), copy in zip(new, copies, strict=True):
                p.grad = copy

    def summary(self) -> dict[str, Any]:
        """For the record: the number of graphs and the seconds that recording them took, or why there are none."""
        if self.refused is not None:
            return {"none": self.refused}
        return {"recorded": self.recorded, "recording_s": self.seconds}


def close(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float) -> bool:
    """Whether a loss and gradients are those expected, within a share of the loss and of the largest gradient."""
    loss, *gradients = (float(t.detach().abs().nan_to_num(0.0).max()) if t.numel() else 0.0 for t in expected)
    bounds = [loss, *[max(gradients, default=0.0)] * len(gradients)]
    return all(
        torch.allclose(a, b, rtol=0.0, atol=tolerance * bound, equal_nan=True)
        for a, b, bound in zip(found, expected, bounds, strict=True)
    )


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
