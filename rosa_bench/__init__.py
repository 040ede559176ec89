"""Config-driven experiments that reproduce the benchmarks of the ROSA, DyLoRA, MEFT and LoRA papers.

    import rosa_bench

    run = rosa_bench.compose(["method=lora", "task=sst2", "train.max_steps=20"])
    record = rosa_bench.train(run)
    record.scores["validation"][""]["accuracy"]

Importing this module is light: torch is imported when a model is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rosa_bench.config import Run
    from rosa_bench.records.record import Record

__all__ = ["__version__", "attach", "compose", "load_records", "merge", "train"]
__version__ = metadata.version("rosa_bench")
_UNMERGEABLE = "_rosa_bench_unmergeable"  # attribute of a model: the attached method that cannot be merged


def compose(overrides: Sequence[str] = ()) -> Run:
    """Return the run that command-line overrides describe, checked and with every default filled in.

    Args:
        overrides: as on the command line, such as `["method=rosa", "method.rank=4", "seed=2"]`.

    Raises:
        rosa_bench.errors.UsageError: for an unknown key or choice or a wrong value; the message names the valid ones.
    """
    from rosa_bench.config.compose import compose

    return compose(overrides)


def train(config: Run | Mapping[str, Any] | Sequence[str] = ()) -> Record:
    """Train, score and record a run; return the existing record if the same run is finished.

    The random states of Python, NumPy and torch are the same after the call as before it.

    Args:
        config: what `compose` returns, a configuration as nested mappings, or overrides.

    Raises:
        rosa_bench.errors.UsageError: for a wrong configuration or missing input, or if another run is in progress in
            this process.
    """
    from rosa_bench.config import Run, resolve
    from rosa_bench.system import hub

    if not isinstance(config, Run):
        config = resolve(config) if isinstance(config, Mapping) else compose(config)
    with hub.prepared():  # `run` is offline if it needs no hub, but what the caller does next may need it
        from rosa_bench.run import run

        return run(config)


def load_records(folder: str | Path = "results/runs") -> list[Record]:
    """Return the records of all finished runs below a folder, ordered by run id; of copies, only the last to finish.

    Damaged records and records of unfinished runs are left out; `python -m rosa_bench.tables` names them.
    """
    from rosa_bench.records.collect import Collection, read_valid

    records = (record for record, _ in read_valid(Path(folder).expanduser(), Collection([], {}, [])))
    finished = sorted((r for r in records if r.status == "done"), key=lambda record: str(record.finished or ""))
    return sorted({record.key: record for record in finished}.values(), key=lambda record: record.run_id)


def attach(model: PreTrainedModel, method: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """Make a `transformers` model trainable by a method, in place, and return it.

    The backbone is frozen and the method's modules are inserted with `requires_grad` set. Methods that act between
    optimizer steps, such as `rosa` and `dylora`, do so only in `train`.

    Args:
        model: an encoder or causal decoder of a family in docs/background/methods.md.
        method: a choice of `method=`, such as `"lora"`.
        seed: new tensors are drawn from it; the global random state is untouched.
        options: fields of the method's yaml, such as `rank=8`.

    Raises:
        rosa_bench.errors.UsageError: for an unknown method or option, a model the method cannot adapt, or while `train`
            runs in another thread.
    """
    from omegaconf import OmegaConf

    from rosa_bench.config import group_nodes, target_class
    from rosa_bench.core.schema import constructed
    from rosa_bench.errors import UsageError, nearest
    from rosa_bench.system.seeds import only_thread, preserved_random_state

    nodes = {name: node for group, name, node in group_nodes() if group == "method"}
    if method not in nodes:
        raise UsageError(f"method={method} is not a choice: {nearest(method, nodes)}")
    fields: Any = OmegaConf.to_container(nodes[method])
    cls = target_class("method", fields.pop("_target_"))
    configured, faults = constructed("method.", cls, {**fields, **options})
    if faults:
        raise UsageError("; ".join(faults))
    with only_thread(), preserved_random_state():
        configured.attach(model, seed)
    if not configured.mergeable:
        model.__dict__[_UNMERGEABLE] = method
    return model


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Fold the adapters of a mergeable method into plain weights, in place, and return the model.

    `from_pretrained` loads what `save_pretrained` then writes without this package.

    Raises:
        rosa_bench.errors.UsageError: if the attached method cannot be merged.
    """
    from rosa_bench.errors import UsageError
    from rosa_bench.methods import merge

    if (method := model.__dict__.get(_UNMERGEABLE)) is not None:
        raise UsageError(f"method={method} cannot be merged: its modules are not weights; save the state_dict instead")

    return merge(model)
