"""Stand-ins for CUDA graphs that work on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from rosa_bench.training.graphs import Backend, as_if_capturing


class Again(Backend):
    """Runs the step again instead of replaying it, to test everything around a recording."""

    def __init__(self, device: torch.device) -> None:
        pass

    def generator(self) -> torch.Tensor:
        return torch.get_rng_state()

    def restore(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)

    def warming(self) -> AbstractContextManager[None]:
        return as_if_capturing()

    def record(self, step: Callable[[], None]) -> Callable[[], Any]:
        return step


class Frozen(Again):
    """Records the operations of a step and replays them like a CUDA graph, with all decisions of Python frozen.

    It cannot record setting a generator's state, which reversible layers do.
    """

    def record(self, step: Callable[[], None]) -> Callable[[], Any]:
        def traced() -> tuple[()]:
            step()
            return ()

        recorded = make_fx(traced)()

        def replay() -> None:
            with torch.no_grad():
                recorded()

        return replay
