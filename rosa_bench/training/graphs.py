"""Forward and backward pass of a micro-batch as one CUDA graph per batch shape.

A step of a small model launches hundreds of kernels, which takes longer than running them; a graph is launched once.
Loss and gradients come from the same graph: with separate graphs, reversible layers and gradient checkpointing would
not redraw the dropout of the forward pass. Whether a batch runs as a graph depends on the configuration and the batch,
never on earlier steps, so a resumed run repeats the uninterrupted one bit for bit.

Not supported: several processes, fp16 (its loss scale is a number on the host), devices other than CUDA, and models
whose forward pass reads device tensors on the host or draws from a host generator.
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

from rosa_bench.errors import first_line
from rosa_bench.models.casts import Casts

Compute = Callable[[dict[str, Any], Any], torch.Tensor]  # the loss of a batch, given the number of items in its step
MOST = 128  # graphs per run; each takes memory and a fraction of a second to capture
# Tolerance between a replayed and an eager step, as a fraction of the largest gradient: sums run in another order.
# Wrong dropout or a stale weight differs by far more.
CLOSE = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 3e-2}


class RefusedError(RuntimeError):
    """A model's step cannot run as a graph. The message gives the reason."""


class Backend(ABC):
    """Captures and replays steps on a device."""

    @abstractmethod
    def generator(self) -> torch.Tensor:
        """The state of the generator that dropout draws from."""

    @abstractmethod
    def restore(self, state: torch.Tensor) -> None:
        """Restore that generator's state."""

    def host_generators(self) -> Any:
        """The states of host generators, whose draws a graph would repeat forever."""
        name, keys, *rest = np.random.get_state()
        return random.getstate(), name, np.asarray(keys).tobytes(), rest

    def warming(self) -> AbstractContextManager[None]:
        """A context for the steps that run before a capture."""
        return nullcontext()

    def strict(self) -> AbstractContextManager[None]:
        """A context in which reading device tensors on the host raises RuntimeError."""
        return nullcontext()

    @abstractmethod
    def record(self, step: Callable[[], None]) -> Callable[[], Any]:
        """Capture a step and return its replay. Raises RefusedError if that fails without harm to the process."""


class Cuda(Backend):
    """CUDA graphs with a shared memory pool, captured on a separate stream."""

    OLDEST = (2, 10)  # the first torch version that can set a generator's state within a capture
    RECOVERS = (2, 13)  # the first torch version that can continue after a failed capture

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream: Any = torch.cuda.Stream(device)

    def generator(self) -> torch.Tensor:
        return torch.cuda.get_rng_state(self.device)

    def restore(self, state: torch.Tensor) -> None:
        torch.cuda.set_rng_state(state, self.device)

    def host_generators(self) -> Any:
        """The states of Python's, numpy's and torch's CPU generators."""
        return *super().host_generators(), torch.get_rng_state().numpy().tobytes()

    @contextlib.contextmanager
    def warming(self) -> Iterator[None]:
        """Use the capture stream, so that cuBLAS allocates its workspace there, and build masks as within a capture."""
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        with as_if_capturing(), torch.cuda.stream(self.stream):
            yield
        outer.wait_stream(self.stream)

    @contextlib.contextmanager
    def strict(self) -> Iterator[None]:
        """Use torch's debug mode for synchronizing calls."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def record(self, step: Callable[[], None]) -> Callable[[], Any]:
        graph, outer = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()  # destructors must not free device memory within a capture
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                step()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            torch.cuda.set_stream(outer)  # a failed capture leaves its own stream set
            if torch_version() < self.RECOVERS:
                raise RuntimeError(
                    f"capturing a CUDA graph failed ({first_line(error)}). torch {torch.__version__} cannot continue "
                    "after that; set train.graphs=off, or use torch 2.13 or later"
                ) from error
            raise RefusedError(f"capturing failed: {first_line(error)}") from error
        finally:
            if collecting:
                gc.enable()
        return graph.replay


BACKENDS: dict[str, Callable[[torch.device], Backend]] = {"cuda": Cuda}  # by device type


@contextlib.contextmanager
def as_if_capturing() -> Iterator[None]:
    """Make transformers build attention masks without inspecting them, as within a capture.

    Otherwise it omits a mask of ones, which selects another attention kernel with different dropout.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(AttributeError):  # this version of transformers never inspects masks
            stack.enter_context(mock.patch("transformers.utils.import_utils.is_cuda_stream_capturing", lambda: True))
        yield


def torch_version() -> tuple[int, int]:
    """Major and minor version of torch."""
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def reason_against(mode: str, device: torch.device, precision: str, processes: int, shapes: int) -> str | None:
    """Why a run cannot use graphs, as far as known before training; None if it may.

    `shapes` is the number of different batch shapes times the number of the method's phases.
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
    """A captured step: its input tensors, its replay, and which parameters get a gradient from it."""

    inputs: dict[str, torch.Tensor]
    items: Any
    replay: Callable[[], Any]
    reached: list[bool]


class Graphs:
    """Training steps of a model as graphs, one per batch shape and phase of the method.

    `compute` returns the loss of a batch. With `single`, every optimizer step has one micro-batch, and gradients are
    assigned without copying. `tolerance` is a value of `CLOSE`. If a step cannot be captured, `refused` gives the
    reason, and all steps run eagerly from then on, also after a resume.
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
    ) -> None:
        self.model, self.compute, self.backend, self.casts = model, compute, backend, casts
        self.single, self.tolerance = single, tolerance
        self.refused: str | None = None
        self.recorded, self.seconds = 0, 0.0
        self._begin()

    def _begin(self) -> None:
        """Set up for the model's current parameters."""
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.leaves = [self.casts.leaf(p) for p in self.parameters]
        self.shared = [torch.empty_like(p, requires_grad=False) for p in self.parameters]
        self.loss = torch.zeros((), device=self.parameters[0].device)
        self._places = [(m._parameters, name) for m in self.model.modules() for name in m._parameters]
        self._seen = self._addresses()
        self._recordings: dict[Hashable, _Recording] = {}

    def _addresses(self) -> list[tuple[Any, ...]]:
        """Identity, address and `requires_grad` of every parameter, to notice replaced ones."""
        weights = (parameters[name] for parameters, name in self._places)
        return [(id(p), p.data_ptr(), p.requires_grad) for p in weights if p is not None]

    def step(
        self,
        inputs: Mapping[str, torch.Tensor],
        items: Any,
        phase: Hashable,
        watch: AbstractContextManager[Any] | None = None,
    ) -> torch.Tensor | None:
        """Run a batch, accumulate its gradients and return its loss; None if it must run eagerly.

        If this captures the step, `watch` is entered around its first pass. The next step overwrites the loss.
        """
        if self.refused is not None:
            return None
        if self._addresses() != self._seen:  # graphs would still read the replaced parameters
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
        """Run a step twice, capture it, and compare a replay with it. Restores the generator's state."""
        static = {name: tensor.clone() for name, tensor in inputs.items()}
        static_items = items.clone() if isinstance(items, torch.Tensor) else items
        reached = [False] * len(self.leaves)

        def step() -> None:
            self.casts.refresh()
            with self.casts.in_place(changing=True):
                value = self.compute(dict(static), static_items)
                gradients = torch.autograd.grad(value, self.leaves, allow_unused=True)
            reached[:] = [gradient is not None for gradient in gradients]
            buffers = [buffer for buffer, reaches in zip(self.shared, reached, strict=True) if reaches]
            torch._foreach_copy_(buffers, [gradient for gradient in gradients if gradient is not None])
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
            outputs = [self.loss, *(buffer for buffer, reaches in zip(self.shared, reached, strict=True) if reaches)]
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
        """Run a step. Raises RefusedError if it reads the device, since a failed capture cannot be undone."""
        try:
            with self.backend.strict():
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise RefusedError(f"a step reads the device on the host: {first_line(error)}") from error

    def _hand_over(self, reached: Sequence[bool]) -> None:
        """Set or accumulate the parameters' gradients as autograd does."""
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
        """For the record: number of graphs and seconds spent on capturing, or why there are none."""
        if self.refused is not None:
            return {"none": self.refused}
        return {"recorded": self.recorded, "recording_s": self.seconds}


def close(actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float) -> bool:
    """Whether loss and gradients are as expected, within a fraction of the loss and of the largest gradient."""
    loss, *gradients = (float(t.detach().abs().nan_to_num(0.0).max()) if t.numel() else 0.0 for t in expected)
    bounds = [loss, *[max(gradients, default=0.0)] * len(gradients)]
    return all(
        torch.allclose(a, b, rtol=0.0, atol=tolerance * bound, equal_nan=True)
        for a, b, bound in zip(actual, expected, bounds, strict=True)
    )
