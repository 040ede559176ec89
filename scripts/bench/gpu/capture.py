"""What CUDA graphs need of torch: a generator's state set within a capture, and life after a capture that fails."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bench.harness import DEVICE, Found, Options, Target
from rosa_bench.training.graphs import Cuda, RefusedError, torch_version


def measure(options: Options) -> Found:
    """Both, in this order: the second may end the process. Nothing to see without a GPU."""
    found = Found(numbers={"torch": torch.__version__})
    if DEVICE != "cuda":
        found.notes.append("There is no GPU here.")
        found.targets.append(Target("checks that failed", 0, 0, at_least=False))
        return found
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
    found.numbers |= {"redrawn": redrawn, "as_eager": same}
    found.targets.append(Target("a mask is redrawn within a graph", float(redrawn), 1))
    found.targets.append(Target("and is the eager one", float(same), 1))
    if torch_version() >= Cuda.RECOVERS:
        try:
            backend.record(broken)
        except RefusedError as error:
            found.notes.append(f"A failed capture says: {error}")
        alive = float((x * 2).sum()) == 2000
        found.targets.append(Target("a step after a failed capture is right", float(alive), 1))
    return found
