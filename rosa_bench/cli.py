"""Command line: Hydra composes, every error becomes one plain line, every run ends with a small table."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rosa_bench import config
from rosa_bench.config import untrusted
from rosa_bench.config.arguments import split
from rosa_bench.config.compose import composed, plain, refuse_lists, register, with_choices
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, UsageError, not_installed
from rosa_bench.suite import optuna_sweep
from rosa_bench.suite.worker import cell_code, report_if_done, run_apart
from rosa_bench.system.console import complain, plain_os, tell, warn
from rosa_bench.system.signals import INTERRUPTED, as_keyboard_interrupt

# Choices of the user's own folder are registered with their defaults; Hydra finds the files as well and merges the two.
SCHEMA_WARNING = r"\n'[\w/]+' is validated against ConfigStore schema with the same name"

_codes: list[int] = []  # exit codes of the cells run by this process
_trials: list[optuna_sweep.Trial] = []  # Optuna trials run by this process
_begun: list[bool] = []  # non-empty once composition has finished


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing
    _codes.clear()
    _trials.clear()
    _begun.clear()
    overrides: list[str] = []
    try:
        overrides, flags = split(arguments)
        if (folder := untrusted.own_folder(flags)) is not None:
            config.use_folder(folder)
            warnings.filterwarnings("ignore", SCHEMA_WARNING)
        refuse_lists(overrides)
        overrides = optuna_sweep.completed(overrides, flags)
        if {"--help", "-h"} & set(flags):
            tell(help_text(overrides))
            return EXIT_DONE
        untrusted.check(flags)
        sys.argv = [sys.argv[0], *overrides, *flags]
        with as_keyboard_interrupt():
            register()
            (_optimize if optuna_sweep.is_requested(overrides) else _compose_and_run)()
    except CellEndedError as error:
        return int(error.args[0])
    except UsageError as error:
        return complain(str(error))
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            return complain(plain_os(error))
        if isinstance(error, ModuleNotFoundError) and not os.environ.get("ROSA_BENCH_TRACEBACK"):
            return complain(not_installed(error))
        if _begun or os.environ.get("ROSA_BENCH_TRACEBACK"):
            raise
        return complain(plain(error, overrides))
    except KeyboardInterrupt:
        warn(INTERRUPTED)
        return EXIT_INTERRUPTED
    return max(_codes, default=EXIT_DONE)


def _optimize() -> None:
    """Run the Optuna trials and print the best. Trials without a score count as a failure only if no trial has one."""
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    try:
        _compose_and_run()
    except ValueError as error:
        if "No trials are completed" not in str(error):
            raise
    best = optuna_sweep.best(_trials)
    if best is not None:
        tell(f"\n{best}")
        _codes.clear()
    elif _trials:  # otherwise a launcher ran them in other processes
        warn("rosa_bench: no trial has a score")
        _codes.append(EXIT_FAILED)


USAGE = """\
python -m rosa_bench [group=choice ...] [key=value ...]      one run
python -m rosa_bench -m method=lora,rosa method.rank=1,2,4   a sweep: one record per cell, finished cells are skipped

--cfg job shows the configuration, --hydra-help Hydra's own flags. Other commands: python -m rosa_bench.doctor checks a
setup, rosa_bench.suite runs all cells of a table, rosa_bench.decode decodes with a finished run and other options,
rosa_bench.score scores the outputs of any system, rosa_bench.tables makes tables."""


def help_text(overrides: Sequence[str]) -> str:
    """Usage, every choice of every group, and every key with its value under these overrides."""
    cfg = composed(overrides)
    lines = [USAGE]
    for group in config.GROUPS:
        lines += ["", f"{group}:", *(f"  {name:14}{config.describe(group, name)}" for name in config.choices(group))]
    return "\n".join([*lines, "", "keys and values:", "", OmegaConf.to_yaml(cfg)])


class CellEndedError(Exception):
    """A cell ended without a result; holds its exit code. Hydra's launchers raise it after all other cells have run."""


@hydra.main(version_base="1.3", config_path=None, config_name="run")
def _compose_and_run(cfg: DictConfig) -> float | None:
    """Run a cell; return its primary score to a sweeper that optimizes it."""
    _begun.append(True)
    cfg = with_choices(cfg, HydraConfig.get().runtime.choices)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    overrides = cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))
    code = _code_of(cfg, overrides, sweep)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if sweep and HydraConfig.get().runtime.choices["hydra/sweeper"] == "optuna":
        _codes.append(code)
        _trials.append(optuna_sweep.Trial(overrides, code, cfg))
        return _trials[-1].score
    if code != EXIT_DONE and sweep:
        raise CellEndedError(code)
    _codes.append(code)
    return None


def _code_of(cfg: DictConfig, overrides: Sequence[str], sweep: bool) -> int:
    """Run a cell, in a new process if it belongs to a sweep; return its exit code."""
    try:
        refuse_lists(overrides)
        run = config.resolve(cfg, overrides)
        if not sweep:
            return cell_code(run)
        if HydraConfig.get().runtime.choices["hydra/launcher"] != "basic":
            run = replace(run, progress="off")  # cells that share a terminal would write over each other's line
        done = report_if_done(run)
    except UsageError as error:
        return complain(str(error))
    if done is not None:
        return done
    return run_apart(run)
