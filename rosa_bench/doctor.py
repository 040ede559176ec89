"""`python -m rosa_bench.doctor [overrides]`: looks at everything a run needs without training; says how to get it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from rosa_bench import config
from rosa_bench.config.compose import compose
from rosa_bench.data import hub
from rosa_bench.errors import EXIT_DONE, EXIT_USAGE, UsageError
from rosa_bench.system.console import complain, tell
from rosa_bench.system.files import unwritable
from rosa_bench.system.signals import command

Finding = tuple[bool | None, str]  # whether it is well (None: a run works, but lacks something), and one plain line
MARKS = {True: "ok", None: "note", False: "WRONG"}
ENOUGH_BYTES = 500_000_000


def data(run: config.Run) -> Iterator[Finding]:
    """Every split the run reads can be read, to the last row."""
    from rosa_bench.data.source import load_split

    for split in run.task.splits:
        with _told() as finding:
            found = load_split(run.task, run.data, split)
            finding.append((True, f"{run.task.name}/{split}: {found.rows} rows, sha256 {found.sha256[:12]}"))
        yield from finding


def model(run: config.Run) -> Iterator[Finding]:
    """The backbone loads with the head of the task, and has the weights the method adapts."""
    with _told() as finding:
        from rosa_bench.models.load import load

        run.method.check(run.task)
        backbone, tokenizer = load(run.model, run.task, run.seed)
        run.method.attach(backbone, run.seed)
        trainable = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
        total = sum(p.numel() for p in backbone.parameters())
        name = f"{type(backbone).__name__} {run.model.name}"
        finding.append((True, f"{name}: {total:,} parameters, {trainable:,} train; {len(tokenizer):,} tokens"))
    yield from finding


def disk(run: config.Run) -> Iterator[Finding]:
    """The output folder can be written and has room."""
    folder = Path(run.output_dir).absolute()
    blocked = unwritable(folder)
    yield (
        blocked is None,
        f"{folder} " + (f"cannot be written: {blocked}; set output_dir=FOLDER" if blocked else "can be written"),
    )
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    yield free > ENOUGH_BYTES, f"{free / 1e9:.1f} GB free on its disk"


def device(run: config.Run) -> Iterator[Finding]:
    """Where tensors will live."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    wanted = run.train.device == "cuda"
    yield not wanted or torch.cuda.is_available(), f"GPU: {name}; {torch.get_num_threads()} CPU threads"


def tracker(run: config.Run) -> Iterator[Finding]:
    """The mirror's package, and its account where it is to go online."""
    if run.tracker.name == "none":
        yield True, "no tracker"
        return
    yield find_spec("wandb") is not None, f"wandb, mode {run.tracker.mode}"
    if run.tracker.mode == "online":
        known = bool(os.environ.get("WANDB_API_KEY")) or _has_netrc()
        yield known, "wandb account" + ("" if known else ": none; run wandb login, or use tracker.mode=offline")


def _has_netrc() -> bool:
    """Whether wandb finds a file of accounts; without HOME and an entry in the user database there is none."""
    try:
        return (Path.home() / ".netrc").is_file()
    except RuntimeError:
        return False


def metrics(run: config.Run) -> Iterator[Finding]:
    """What the task's metrics need beside the package; without it they are absent from the record."""
    missing = run.task.missing_metrics()
    yield from ((None, f"{name} will be absent: {reason}") for name, reason in missing.items())
    if not missing:
        yield True, f"all of task={run.task.name}"


CHECKS: dict[str, Callable[[config.Run], Iterator[Finding]]] = {
    "data": data, "model": model, "metrics": metrics, "disk": disk, "device": device, "tracker": tracker
}  # fmt: skip


@contextlib.contextmanager
def _told() -> Iterator[list[Finding]]:
    findings: list[Finding] = []
    try:
        yield findings
    except UsageError as error:
        findings.append((False, str(error)))


def main(argv: Sequence[str] | None = None) -> int:
    """Check a run's configuration and everything it needs; exit code 0 or 2."""
    overrides = list(sys.argv[1:] if argv is None else argv)
    try:
        run = compose(overrides)
        hub.prepare(run)
    except UsageError as error:
        return complain(str(error))
    well = True
    tell(f"ok    config   {run.task.name} · {run.model.name} · {run.method!r}")
    for name, check in CHECKS.items():
        for good, line in check(run):
            well &= good is not False
            tell(f"{MARKS[good]:5} {name:8} {line}")
    return EXIT_DONE if well else EXIT_USAGE


if __name__ == "__main__":
    sys.exit(command(main))
