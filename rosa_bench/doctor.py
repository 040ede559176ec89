"""`python -m rosa_bench.doctor [overrides]`: check everything a run needs, without training.

`python -m rosa_bench.doctor suite=NAME [overrides]` lists the model and data set revisions of a suite. Both end with a
verdict (ready, ready with limits, not ready), its reasons and the next command to run. The exit code is 2 if not ready.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rosa_bench.errors import EXIT_DONE, EXIT_USAGE, UsageError, not_installed
from rosa_bench.system.console import complain, counted, tell

try:
    from rosa_bench import config
    from rosa_bench.config.compose import compose
    from rosa_bench.core.task import Upstream
    from rosa_bench.data import upstream
    from rosa_bench.data.source import fingerprint
    from rosa_bench.models.identity import source_of, weight_files
    from rosa_bench.records.display import in_words
    from rosa_bench.system import hub, progress
    from rosa_bench.system.files import unwritable
    from rosa_bench.system.signals import command
    from rosa_bench.tracking.tracker import mode as tracking_mode
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    sys.exit(complain(not_installed(error)))

Finding = tuple[bool | None, str]  # passed (None: runs work, but something is missing), and a one-line message
MARKS = {True: "ok", None: "note", False: "WRONG"}
ENOUGH_BYTES = 500_000_000
INSTALL = re.compile(r"pip install (?:'[^']+'|[\w.\[\]=-]+)|wandb login")  # a command that corrects a fault
HELP = "python -m rosa_bench --help"
ABSENT = "cannot be loaded: "  # in the line of a model whose package is missing or damaged


def _reported(check: Callable[..., Iterator[Finding]]) -> Callable[..., Iterator[Finding]]:
    """Wrap a check so that a UsageError or a missing package becomes its last finding."""

    @functools.wraps(check)
    def reporting(*args: Any) -> Iterator[Finding]:
        try:
            yield from check(*args)
        except UsageError as error:
            yield False, str(error)
        except ModuleNotFoundError as error:
            yield False, not_installed(error)

    return reporting


def data(run: config.Run) -> Iterator[Finding]:
    """Every split of the run is readable to the last row."""
    for split in run.task.splits:
        yield from _rows(run, split)


@_reported
def _rows(run: config.Run, split: str) -> Iterator[Finding]:
    from rosa_bench.data.source import load_split

    loaded = load_split(run.task, run.data, split)
    line = f"{run.task.name}/{split}: {loaded.rows} rows, sha256 {loaded.sha256[:12]}"
    differs = loaded.released is False
    yield None if differs else True, line + (", different from the public release" if differs else "")


@_reported
def model(run: config.Run) -> Iterator[Finding]:
    """The backbone loads with the task's head, encodes every row, and has the weights that the method adapts."""
    from rosa_bench.evaluation.predict import attaching
    from rosa_bench.models.load import load, loading_facts
    from rosa_bench.models.roles import task_head
    from rosa_bench.records.start import attach_method
    from rosa_bench.run import refuse_rates
    from rosa_bench.system.seeds import seeds

    run.method.check(run.task)
    backbone, tokenizer = load(run.model, run.task, seeds(run.seed).init)
    yield from ((True, f"{name.replace('_', ' ')}: {value}") for name, value in loading_facts(backbone).items())
    _read_rows(run, backbone, tokenizer)
    head = task_head(backbone)
    _, loader = attach_method(run, backbone, seeds(run.seed).method, attaching(backbone, run.method))
    refuse_rates(run, backbone, [parameter for parameter in head if parameter.requires_grad])
    trainable = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    total = sum(p.numel() for p in backbone.parameters())
    name = f"{type(backbone).__name__} {run.model.name}"
    yield True, f"{name}: {total:,} parameters, {trainable:,} trainable; {len(tokenizer):,} tokens"
    if loader is not None:
        yield True, loader.describe()


def _read_rows(run: config.Run, backbone: Any, tokenizer: Any) -> None:
    """Encode the rows of the run. Raises UsageError for a special token that cannot be encoded as plain text."""
    from rosa_bench.data.encode import encode_split
    from rosa_bench.data.source import load_split
    from rosa_bench.evaluation.scorer import Scorer
    from rosa_bench.models.traits import max_length

    length = max_length(backbone, run.train.max_length, run.method.extra_tokens)
    try:
        splits = {split: load_split(run.task, run.data, split) for split in run.task.splits}
    except UsageError:  # reported by the data check
        return
    encode_split(run.task, tokenizer, splits["train"], length)
    Scorer(run, backbone, tokenizer, splits, length).encode_all()


def disk(run: config.Run) -> Iterator[Finding]:
    """The output folder is writable and has free space."""
    folder = Path(run.output_dir).absolute()
    blocked = unwritable(folder)
    yield (
        blocked is None,
        f"{folder} " + (f"cannot be written: {blocked}; set output_dir=FOLDER" if blocked else "is writable"),
    )
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    yield free > ENOUGH_BYTES, f"{free / 1e9:.1f} GB free"


@_reported
def device(run: config.Run) -> Iterator[Finding]:
    """A GPU is available if the run requires one."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    required = run.train.device == "cuda"
    yield not required or torch.cuda.is_available(), f"GPU: {name}; {torch.get_num_threads()} CPU threads"


def tracker(run: config.Run) -> Iterator[Finding]:
    """The tracker's package is installed and, in online mode, an account is set up."""
    mode = tracking_mode(run.tracker)
    if mode == "disabled":
        yield True, "no tracker"
        return
    if find_spec("wandb") is None:  # an offline run works without its mirror
        missing = "wandb is not installed: pip install wandb, or use tracker=none"
        yield False if mode == "online" else None, missing
        return
    yield True, f"wandb, mode {mode}"
    if mode == "online":
        has_account = bool(os.environ.get("WANDB_API_KEY")) or _has_netrc()
        hint = "" if has_account else ": not found; run wandb login, or use tracker.mode=offline"
        yield has_account, f"wandb account{hint}"


def _has_netrc() -> bool:
    """Whether wandb finds a netrc file. Without HOME and an entry in the user database, there is no home folder."""
    try:
        return (Path.home() / ".netrc").is_file()
    except RuntimeError:
        return False


@_reported
def optimizer(run: config.Run) -> Iterator[Finding]:
    """The optimizer exists in the installed `transformers`, its package is installed, and it accepts the options."""
    from rosa_bench.training.trainer import check_training

    check_training(run)
    yield True, run.train.optimizer


@_reported
def options(run: config.Run) -> Iterator[Finding]:
    """The machine and the method support the options of training and saving."""
    from rosa_bench.run import refuse_options

    refuse_options(run)
    yield True, "supported by this machine and the method"


def metrics(run: config.Run) -> Iterator[Finding]:
    """Extra packages and files that the task's metrics need; without them these metrics are absent from the record."""
    missing = run.task.missing_metrics()
    yield from ((None, f"{name} will be absent: {reason}") for name, reason in missing.items())
    if not missing:
        yield True, f"all metrics of task={run.task.name} are available"


def revisions(suite: str, overrides: Sequence[str]) -> Iterator[str]:
    """Models and data sets of a suite's cells, each with its revision and whether it is already downloaded.

    Raises UsageError if the suite or an override is invalid.
    """
    from rosa_bench.suite.plan import load, plan

    runs = [cell.run for cell in plan(load(suite), overrides)]
    hub.prepare(any(run.needs_hub for run in runs))
    yield f"suite {suite}: {counted(len(runs), 'cell')}"
    models = {(run.model.name, run.model.path, run.model.hub, run.model.revision): run.model for run in runs}
    yield from (f"model {name[0]}: {_model_revision(model)}" for name, model in sorted(models.items(), key=str))
    sets = {(run.task.name, run.data.source, run.data.dir): run for run in runs}
    yield from (f"data  {name[0]}: {_data_revision(run)}" for name, run in sorted(sets.items(), key=str))


def _model_revision(model: config.Model) -> str:
    if model.path is not None:
        return f"folder {model.path}"
    if model.package is not None and model.hub is None:
        try:
            return f"folder {source_of(model)}"
        except UsageError as error:
            return f"{ABSENT}{error}"
    if model.hub is None:
        return "embedded in the package"
    if model.revision is None or not hub.COMMIT.fullmatch(model.revision):
        return f"{model.hub} at {model.revision or 'main'}, not pinned to a commit"
    folder = hub.cached("model", model.hub, model.revision, ["config.json"])
    return f"{model.hub} at {model.revision}, {_downloaded(folder is not None and _has_weights(folder))}"


def _data_revision(run: config.Run) -> str:
    if run.data.source == "embedded":
        return fingerprint(run.task, run.data)["source"]
    if run.data.source == "local":
        return f"folder {run.data.dir}/{run.task.folder}"
    source = run.task.hub
    if isinstance(source, Upstream):
        return f"github.com/{source.repository} at {source.revision}, {_downloaded(upstream.is_cached(source))}"
    patterns = [source.files.replace("{split}", split) for split in run.task.splits]
    folder = hub.cached("dataset", source.repository, source.revision, patterns)
    line = f"{source.repository} at {source.revision}, {_downloaded(folder is not None)}"
    fallback = source.upstream
    return line if fallback is None else f"{line}; else github.com/{fallback.repository} at {fallback.revision}"


def _has_weights(folder: Path) -> bool:
    """Whether a folder has all files of a model's weights."""
    try:
        return bool(weight_files(folder))
    except UsageError:
        return False


def _downloaded(cached: bool) -> str:
    return "in the cache" if cached else "not downloaded"


CHECKS = {check.__name__: check for check in (data, model, optimizer, options, metrics, disk, device, tracker)}


def main(argv: Sequence[str] | None = None) -> int:
    """Check a run's configuration and requirements, or list those of a suite; return exit code 0 or 2."""
    overrides = list(sys.argv[1:] if argv is None else argv)
    if {"--help", "-h"} & set(overrides):
        tell(str(__doc__).strip())
        return EXIT_DONE
    suites = [override.partition("=")[2] for override in overrides if override.startswith("suite=")]
    others = [override for override in overrides if not override.startswith("suite=")]
    try:
        findings = [suite_finding(name, others) for name in suites] if suites else checked(overrides)
    except UsageError as error:
        code = complain(str(error))
        tell(f"\nnot ready: {'the suite' if suites else 'the configuration'} is not valid\nnext: {HELP}")
        return code
    start = [["python", "-m", "rosa_bench.suite", name, *others] for name in suites]
    lines, code = verdict(findings, start or [["python", "-m", "rosa_bench", *overrides]], overrides)
    tell("\n".join(["", *lines]))
    return code


def checked(overrides: Sequence[str]) -> list[Finding]:
    """Check everything a run needs, and print and return what was found. Raises UsageError for an invalid run."""
    run = compose(overrides)
    hub.prepare(run.needs_hub)
    tell(f"ok    config    {in_words(run)}")
    findings = []
    with progress.showing(run.progress):
        for name, check in CHECKS.items():
            for good, line in check(run):
                findings.append((good, f"{name}: {line}"))
                tell(f"{MARKS[good]:5} {name:9} {line}")
    return findings


def suite_finding(name: str, overrides: Sequence[str]) -> Finding:
    """Print a suite's models and data; check if missing ones can be downloaded. Raises UsageError if invalid."""
    lines = list(revisions(name, overrides))
    tell("\n".join(lines))
    if unusable := [line for line in lines if ABSENT in line]:
        return False, f"suite {name}: {unusable[0].partition(ABSENT)[2]}"
    absent = [line for line in lines if "not downloaded" in line]
    if not absent:
        return True, f"suite {name}"
    needs = f"suite {name} has to download {len(absent)} of its {len(lines) - 1} models and data sets"
    from_hub = any(": github.com" not in line for line in absent)
    reason = hub.unreachable() if from_hub else None
    return (None, needs) if reason is None else (False, f"{needs}, but {reason}")


def verdict(
    findings: Sequence[Finding], start: Sequence[Sequence[str]], overrides: Sequence[str]
) -> tuple[list[str], int]:
    """The lines of the verdict, and the exit code.

    Args:
        start: the commands that the checks were for, to run next if no check failed.
        overrides: the doctor's own, for the command that repeats the checks once the faults are corrected.
    """
    wrong, limits = ([line for good, line in findings if good is value] for value in (False, None))
    if wrong:
        install = next((match.group() for line in wrong if (match := INSTALL.search(line))), None)
        again = shlex.join(["python", "-m", "rosa_bench.doctor", *overrides])
        following = f"next: {install}" if install else f"next: correct this, then {again}"
        return ["not ready:", *(f"- {line}" for line in wrong), following], EXIT_USAGE
    head = ["ready with limits:", *(f"- {line}" for line in limits)] if limits else ["ready: every check passed"]
    return [*head, *(f"next: {shlex.join(command)}" for command in start)], EXIT_DONE


if __name__ == "__main__":
    sys.exit(command(main))
