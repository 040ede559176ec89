"""What CUDA graphs need from torch: setting a generator's state within a capture, and recovery from a failed one."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bench.harness import DEVICE, Options, Result, Target
from rosa_bench.training.graphs import Cuda, RefusedError, torch_version


def measure(options: Options) -> Result:
    """Check both, in this order, since the second may end the process. Skipped without a GPU."""
    result = Result(numbers={"torch": torch.__version__})
    if DEVICE != "cuda":
        result.notes.append("No GPU.")
        result.targets.append(Target("checks that failed", 0, 0, at_least=False))
        return result
    device = torch.device(DEVICE)
    backend, x, out = Cuda(device), torch.ones(1000, device=device), torch.zeros(2, 1000, device=device)

    def twice() -> None:
        state = torch.cuda.get_rng_state()
        out[0].copy_(F.dropout(x, 0.5))
        torch.cuda.set_rng_state(state)
        out[1].copy_(F.dropout(x, 0.5))

    def broken() -> None:
        float(x.sum())

    before = backend.generator()
    twice()
    eager = out.clone()
    backend.restore(before)
    replay = backend.record(twice)
    backend.restore(before)
    replay()
    redrawn, same = bool(torch.equal(out[0], out[1])), bool(torch.equal(out, eager))
    result.numbers |= {"redrawn": redrawn, "as_eager": same}
    result.targets.append(Target("a mask is redrawn within a graph", float(redrawn), 1))
    result.targets.append(Target("the redrawn mask equals the eager one", float(same), 1))
    if torch_version() >= Cuda.RECOVERS:
        try:
            backend.record(broken)
        except RefusedError as error:
            result.notes.append(f"Message of a failed capture: {error}")
        alive = float((x * 2).sum()) == 2000
        result.targets.append(Target("a step after a failed capture is correct", float(alive), 1))
    return result
