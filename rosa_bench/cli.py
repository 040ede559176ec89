"""Command line: Hydra composes, every error becomes one plain line, every run ends with a small table."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rosa_bench import config
from rosa_bench.config import untrusted
from rosa_bench.config.arguments import split
from rosa_bench.config.compose import composed, plain, register, with_choices
from rosa_bench.errors import EXIT_DONE, EXIT_INTERRUPTED, UsageError
from rosa_bench.suite.worker import cell_code, report_if_done, run_apart
from rosa_bench.system.console import complain, plain_os, tell, warn
from rosa_bench.system.signals import INTERRUPTED, as_keyboard_interrupt

# Choices of the user's own folder are registered with their defaults; Hydra finds the files as well and merges the two.
SCHEMA_WARNING = r"\n'[\w/]+' is validated against ConfigStore schema with the same name"

_codes: list[int] = []  # exit codes of the cells run by this process
_begun: list[bool] = []  # non-empty once composition has finished


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing
    _codes.clear()
    _begun.clear()
    overrides: list[str] = []
    try:
        overrides, flags = split(arguments)
        if (folder := untrusted.own_folder(flags)) is not None:
            config.use_folder(folder)
            warnings.filterwarnings("ignore", SCHEMA_WARNING)
        if {"--help", "-h"} & set(flags):
            tell(help_text(overrides))
            return EXIT_DONE
        untrusted.check(flags)
        sys.argv = [sys.argv[0], *overrides, *flags]
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
        return complain(plain(error, overrides))
    except KeyboardInterrupt:
        warn(INTERRUPTED)
        return EXIT_INTERRUPTED
    return max(_codes, default=EXIT_DONE)


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
def _compose_and_run(cfg: DictConfig) -> None:
    _begun.append(True)
    cfg = with_choices(cfg, HydraConfig.get().runtime.choices)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    overrides = cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))
    code = _code_of(cfg, overrides, sweep)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code != EXIT_DONE and sweep:
        raise CellEndedError(code)
    _codes.append(code)


def _code_of(cfg: DictConfig, overrides: Sequence[str], sweep: bool) -> int:
    """Run a cell, in a new process if it belongs to a sweep; return its exit code."""
    try:
        run = config.resolve(cfg, overrides)
        if not sweep:
            return cell_code(run)
        done = report_if_done(run)
    except UsageError as error:
        return complain(str(error))
    if done is not None:
        return done
    return run_apart(run)
