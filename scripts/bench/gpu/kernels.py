"""MEFT's halves, compiled against eager, and ROSA's split, on the GPU against LAPACK on the host."""

from __future__ import annotations

import copy
import tempfile
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.harness import DEVICE, Options, Result, Target, alternate, number, quartiles, ratios
from bench.ours import Ours, now
from bench.shapes import folder, size_of
from rosa_bench.modules.lowrank import lowrank_sites
from rosa_bench.modules.streams import Halves, agree, halves


def streams(options: Options) -> Result:
    """Measure both halves on [32, 128, 1024] values."""
    result = Result(tables=[[("factor", "half", "eager ms", "as used ms", "how")]])
    device = torch.device(DEVICE)
    shape = (2, 8, 32) if options.quick else (32, 128, 1024)
    stream = torch.randint(-(2**40), 2**40, shape, device=device)
    added = torch.randn(shape, device=device)
    for factor in (Fraction(1, 10), Fraction(1)):
        eager, used = Halves(factor, torch.float32), halves(factor, torch.float32, device)
        same = agree(used, eager, device)
        total, remainder, _ = eager.forward(stream, added)
        works: dict[str, Any] = {}
        for name, pair in (("eager", eager), ("used", used)):
            works[f"forward {name}"] = partial(pair.forward, stream, added)
            works[f"backward {name}"] = partial(pair.backward, total, added, remainder)
        times = alternate({name: partial(_ms, work) for name, work in works.items()}, options.rounds)
        for half in ("forward", "backward"):
            row = [number(median(times[f"{half} {name}"])) for name in ("eager", "used")]
            result.tables[0].append((str(factor), half, *row, used.mode))
        result.numbers[str(factor)] = times | {"how": used.mode}
        result.targets.append(Target(f"factor {factor}: the halves are bitwise equal", float(same), 1))
    return result


def _ms(work: Any, times: int = 20) -> float:
    work()
    began = now()
    for _ in range(times):
        work()
    return 1e3 * (now() - began) / times


def split(options: Options) -> Result:
    """Factorize all attention matrices of a model: stacked on the GPU, and one by one by LAPACK on the host."""
    result = Result(tables=[[("model", "matrices", "stacked s", "LAPACK s", "LAPACK over stacked", "change of W")]])
    for size in ("base",) if options.quick else ("base", "large"):
        with folder(size_of(size, options.quick)) as model, tempfile.TemporaryDirectory(prefix="rosa_bench-") as out:
            ours = Ours(("method=rosa", "train.limit_train=8"), model, Path(out))
            ours.model.to(DEVICE)
            method: Any = ours.run.method
            sites = list(lowrank_sites(ours.model))
            host = copy.deepcopy(ours.model).cpu()
            before = [m.weight_of(s).double() + m.update_of(s) for m, s in sites]
            works = {
                "stacked": lambda method=method, sites=sites: method.split_stacked(sites, 0, 1),
                "LAPACK": lambda method=method, host=host: method.split(host, 0, 1),
            }
            times = alternate({name: partial(_seconds, work) for name, work in works.items()}, min(3, options.rounds))
            after = [m.weight_of(s).double() + m.update_of(s) for m, s in sites]
            change = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(after, before, strict=True))
        over = quartiles(ratios(times, "LAPACK", "stacked"))[1]
        cells = [number(median(values)) for values in times.values()]
        result.tables[0].append((size, str(len(sites)), *cells, number(over), number(change)))
        result.numbers[size] = times | {"matrices": len(sites), "off": change}
        result.targets.append(Target(f"{size}: relative change of W by a split", change, 1e-5, at_least=False))
    result.notes.append(f"LAPACK on {torch.get_num_threads()} threads of the host, without copies to and from the GPU.")
    return result


def _seconds(work: Any) -> float:
    began = now()
    work()
    return now() - began
