"""The command line: Hydra composes, every fault becomes one plain line, every run ends with a small table."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rosa_bench import config
from rosa_bench.config import untrusted
from rosa_bench.core.aliases import meant
from rosa_bench.data import hub
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UsageError, nearest
from rosa_bench.records.record import Record, read_record, seconds
from rosa_bench.records.run_key import clear_finished, config_key, finished, run_id
from rosa_bench.system.console import tell, warn
from rosa_bench.system.distributed import is_first
from rosa_bench.system.files import said_of
from rosa_bench.system.locks import held
from rosa_bench.system.signals import INTERRUPTED, as_keyboard_interrupt

_codes: list[int] = []  # exit codes of the cells of this process
_begun: list[bool] = []  # whether composing is over


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.argv = [sys.argv[0], *absolute_paths(arguments)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises and does not print
    _codes.clear()
    _begun.clear()
    try:
        if {"--help", "-h"} & set(arguments):
            tell(help_text([a for a in arguments if not a.startswith("-")]))
            return EXIT_DONE
        untrusted.check(arguments)
        with as_keyboard_interrupt():
            register()
            _compose_and_run()
    except CellEndedError as error:
        return int(error.args[0])
    except UsageError as error:
        return complain(str(error))
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            return complain(plain_os(error))
        if _begun or os.environ.get("ROSA_BENCH_TRACEBACK"):
            raise
        return complain(plain(error))
    except KeyboardInterrupt:
        warn(INTERRUPTED)
        return EXIT_INTERRUPTED
    return max(_codes, default=EXIT_DONE)


USAGE = """\
python -m rosa_bench [group=choice ...] [key=value ...]      one run
python -m rosa_bench -m method=lora,rosa method.rank=1,2,4   a sweep: one record per cell, finished cells are skipped

Also: --cfg job shows the configuration, --hydra-help Hydra's own flags. Beside it: python -m rosa_bench.doctor checks a
set-up, rosa_bench.suite runs all cells of a table, rosa_bench.decode decodes a finished run in other ways,
rosa_bench.score scores any system's outputs, rosa_bench.tables makes tables."""


def help_text(overrides: Sequence[str]) -> str:
    """Usage, every choice of every group, and every key with the value that these overrides give it."""
    cfg = composed(overrides)
    lines = [USAGE]
    for group in config.GROUPS:
        lines += ["", f"{group}:", *(f"  {name:14}{config.describe(group, name)}" for name in config.choices(group))]
    return "\n".join([*lines, "", "keys and values:", "", OmegaConf.to_yaml(cfg)])


def compose(overrides: Sequence[str]) -> config.Run:
    """The run that these command-line overrides mean, without running it. Raises UsageError like the command line."""
    return config.resolve(composed(overrides))


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration that Hydra composes of these overrides, not yet checked."""
    GlobalHydra.instance().clear()
    try:
        register()
        with hydra.initialize(version_base="1.3", config_path=None):
            return hydra.compose(config_name="run", overrides=list(overrides))
    except UsageError:
        raise
    except Exception as error:  # what Hydra's grammar and its lists of defaults stumble over has no class of its own
        raise UsageError(plain(error)) from error


def complain(line: str) -> int:
    """One plain line on standard error."""
    warn(f"rosa_bench: {' '.join(line.split())}")
    return EXIT_USAGE


def plain_os(error: OSError) -> str:
    """What a file or folder refused, as one line."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the working directory does not exist any more; go to another one"
    return f"{error.filename or 'a file'}: {error.strerror or error}"


def absolute_paths(arguments: Sequence[str]) -> list[str]:
    """Hydra takes a relative config folder from the package; a user means the working directory."""
    out = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.partition("=")
        if equals and flag in untrusted.FLAGS and Path(value).is_dir():
            argument = f"{flag}={Path(value).resolve()}"
        elif before in untrusted.FLAGS and Path(argument).is_dir():
            argument = str(Path(argument).resolve())
        out.append(argument)
    return out


def register() -> None:
    """Give Hydra every yaml of `configs/`, each filled with the defaults of its dataclass."""
    store = ConfigStore.instance()
    for group, name, node in config.group_nodes():
        store.store(group=group, name=name, node=node, provider="rosa_bench")
    top = OmegaConf.merge(OmegaConf.create(config.run_defaults()), top_config())
    store.store(name="run", node=top, provider="rosa_bench")


def top_config() -> DictConfig:
    """`configs/config.yaml` as it stands: the default choice of every group."""
    return cast(DictConfig, OmegaConf.load(config.config_dir() / "config.yaml"))


class CellEndedError(Exception):
    """A cell ended without a result; holds its exit code. Hydra's launchers raise it when all other cells are done."""


@hydra.main(version_base="1.3", config_path=None, config_name="run")
def _compose_and_run(cfg: DictConfig) -> None:
    _begun.append(True)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    code = _code_of(cfg, sweep)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code != EXIT_DONE and sweep:
        raise CellEndedError(code)
    _codes.append(code)


def _code_of(cfg: DictConfig, sweep: bool) -> int:
    """Run a cell, in a process of its own if it is one of many; returns its exit code."""
    try:
        run = config.resolve(cfg)
        if not sweep:
            return cell_code(run)
        done = told_if_done(run)
    except UsageError as error:
        return complain(str(error))
    if done is not None:
        return done
    from rosa_bench.suite.worker import run_apart

    return run_apart(run)


def cell_code(run: config.Run) -> int:
    """Run one cell, saying what went wrong; returns its exit code."""
    try:
        with as_keyboard_interrupt():
            return run_cell(run)
    except UsageError as error:
        return complain(str(error))
    except OSError as error:
        return complain(plain_os(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def told_if_done(run: config.Run) -> int | None:
    """Say so and return the exit code if a run is done already; None if it is not."""
    key = config_key(run)
    folder = Path(run.output_dir) / run_id(run, key)
    if (record := finished(run, folder, key)) is None:
        return None
    if is_first() and not held(folder):
        clear_finished(folder, bool(record.config["train"].get("keep_checkpoints")))
    tell(f"done already, nothing to do ({record.finished}); force=true runs it again")
    tell(result_table([record], [folder]))
    return EXIT_DONE


def run_cell(run: config.Run) -> int:
    """Run one cell, or say that it is done already; returns its exit code."""
    if (code := told_if_done(run)) is not None:
        return code
    folder = Path(run.output_dir) / run_id(run, config_key(run))
    if is_first():
        tell(f"{folder.name}: {run.method!r}")
    hub.prepare(run)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from rosa_bench.run import run as run_experiment

    try:
        record: Record | None = run_experiment(run)
    except UsageError:
        raise
    except Exception as error:
        recorded = _failed(folder)
        said = said_of(error, folder) if recorded is None else str(recorded.error)
        warn(f"rosa_bench: failed: {' '.join(said.split())[:400]}")
        if recorded is not None:
            warn(f"rosa_bench: the record says more: {folder / 'record.json'}")
        if os.environ.get("ROSA_BENCH_TRACEBACK"):
            raise
        return EXIT_FAILED
    if record is not None and is_first():
        tell(result_table([record], [folder]))
    return EXIT_DONE


def _failed(folder: Path) -> Record | None:
    """The record of a run that failed, if it says so; on a full disk it may not have been written."""
    try:
        record = read_record(folder / "record.json")
    except UsageError:
        return None
    return record if record.status in ("failed", "oom") else None


def plain(error: Exception) -> str:
    """Hydra's or OmegaConf's error as one line with the nearest valid names."""
    text = f"{error}\n{error.__cause__ or ''!s}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group or 'config'}={name} is not a choice: {nearest(name, error.options or [])}"
    if (match := re.search(r"Could not override '([^']+)'", text)) is not None:
        return unknown_key(match.group(1))
    if (match := re.search(r"Key '[^']*' is not in struct\s+full_key: (\S+)", text)) is not None:
        return unknown_key(match.group(1))
    if isinstance(error, RecursionError):
        return "a value is nested too deep to be read"
    if (match := re.search(r"LexerNoViableAltException: (.{1,200})", text)) is not None:
        key, _, value = match.group(1).strip().partition("=")
        return f"{key}={value} cannot be read; quote what is more than letters, digits and a path: \"{key}='VALUE'\""
    said = str(error).split("\nSee https")[0].split("\nEnvironment")[0][:400]
    return said if said.strip() else f"the command line cannot be read ({type(error).__name__})"


def unknown_key(key: str) -> str:
    """What to say of a key that no configuration has."""
    group = key.rpartition(".")[0]
    usual = next((entry[group] for entry in top_config().defaults if group and group in entry), "")
    given = (argument.partition("=")[2] for argument in reversed(sys.argv) if argument.startswith(f"{group}="))
    chosen = next(given, usual).split(",")
    nodes = list(config.group_nodes())
    top = {*config.GROUPS, *config.run_defaults()}
    others = top | {f"{g}.{k!s}" for g, _, node in nodes if g != group for k in node if k != "_target_"}
    if group and group not in config.GROUPS:
        return f"{key} is not a key: {meant(key, config.GROUPS, others)}"
    known = {f"{g}.{k!s}" for g, name, node in nodes if g == group and name in chosen for k in node if k != "_target_"}
    return f"{key} is not a key of this choice: {meant(key, known or top, others)}"


def result_table(records: Sequence[Record], folders: Sequence[Path]) -> str:
    """A few lines: scores with metric and split, trainable share, time, peak memory, and where the record is."""
    head = ("task", "model", "method", "seed", "score", "trainable", "time", "peak memory")
    rows = [head, *map(_result_row, records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    more = [line for record in records for line in _all_scores(record)]
    return "\n".join(["", *lines, *more, "", *(f"record: {folder / 'record.json'}" for folder in folders)])


def _all_scores(record: Record) -> list[str]:
    """A line per split of every metric of the main variant, where there is more to tell than the primary score."""
    main = record.variant_names[-1] if record.variant_names else ""
    scores = {split: by_variant[main] for split, by_variant in record.scores.items() if main in by_variant}
    if sum(map(len, scores.values())) < 2:
        return []
    told = [
        f"{split}: " + "  ".join(f"{name} {value:.4g}" for name, value in found.items())
        for split, found in scores.items()
    ]
    absent = record.facts.get("absent_metrics", {})
    return ["", *told, *(f"{name} is absent: {reason}" for name, reason in absent.items())]


def _result_row(record: Record) -> tuple[str, ...]:
    params, cost = record.params, record.cost
    trainable = f"{params['trainable_percent']:.2f} % ({params['trainable']:,})" if params else "–"
    memory = f"{cost['peak_rss_bytes'] / 1e6:,.0f} MB" if "peak_rss_bytes" in cost else "–"
    names = (record.task, record.model, record.method, str(record.seed))
    return (*names, score_text(record), trainable, f"{seconds(record):.0f} s", memory)


def score_text(record: Record) -> str:
    """The primary score at the last and, where known, the best epoch."""
    primary = record.primary
    if "last" not in primary:
        return "–"
    text = f"{primary['metric']} {primary['last']:.2f} ({primary['split']})"
    if "best" in primary and primary["best"] != primary["last"]:
        text += f", best epoch {primary['best']:.2f}"
    return text
