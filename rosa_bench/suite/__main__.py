"""`python -m rosa_bench.suite NAME`: run every unfinished cell of configs/suite/NAME.yaml, each in its own process.

A cell is a run. Its state is always read from its record and its lock, so you can kill and restart a suite, and several
suite processes can share the work. submitit starts the processes, on this machine or on a Slurm cluster.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rosa_bench import config
from rosa_bench.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, UsageError
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record, seconds
from rosa_bench.records.run_key import run_name
from rosa_bench.suite.clusters import Share, Worker, make_executor, options_of
from rosa_bench.suite.plan import Cell, Suite, estimate, load, plan
from rosa_bench.suite.rate_search import SETTLED
from rosa_bench.suite.scheduler import Board, Fleet, failed_so_far
from rosa_bench.system import hub
from rosa_bench.system.console import complain, counted, plain_os, tell, warn
from rosa_bench.system.signals import as_keyboard_interrupt, command


def with_input(cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
    """The cells whose rows and weights are available, and one line for each other cell.

    Raises UsageError if no cell is left.
    """
    available, lines = [], []
    last: UsageError | None = None
    for cell in cells:
        try:
            cell.plain_key  # noqa: B018 - reads what identifies rows and weights
            if cell.source is not None:
                cell.source.plain_key  # noqa: B018
        except UsageError as error:
            last = error
            lines.append(f"  {'no input':12}{run_name(cell.run)}: {error}")
        else:
            available.append(cell)
    if last is not None and not available:
        raise last
    return available, lines


def summary(cells: Sequence[Cell], reasons: Mapping[str, str], without_input: Sequence[str] = ()) -> str:
    """Seconds per method, and each unfinished cell with its reason, from its record or else from `reasons`."""
    spent: dict[str, list[float]] = {}
    failed = []
    for cell in cells:
        state = cell.state
        if state == "skipped":
            continue
        record = None if state == "waiting" else cell.record
        if record is not None and record.status == "done":
            spent.setdefault(record.method, []).append(seconds(record))
            continue
        if state == "waiting":
            status, error = "cannot run", blocked_by(cell)
        else:
            status, error = ("not run", "") if record is None else (record.status, record.error or "")
        error = error or reasons.get(cell.id, "")
        failed.append(f"  {status:12}{cell.name}: {' '.join(error.split())[:200]}".rstrip(": "))
    failed += without_input
    lines = [f"  {method:8}{len(times):4} done  {sum(times):9.1f} s" for method, times in sorted(spent.items())]
    return "\n".join([*lines, *([f"{len(failed)} not done:", *failed] if failed else [])])


def blocked_by(cell: Cell) -> str:
    """What a waiting cell waits for, as a phrase."""
    if cell.source is not None and cell.source.state != "done":
        outcome = "failed" if cell.source.state == "failed" else "is not done"
        return f"starts from {cell.source.name}, which {outcome}"
    if unsettled := cell.unsettled:
        return f"its learning-rate search has {counted(len(unsettled), 'unfinished run')}"
    return "its learning-rate search has no score"


def matches(cell: Cell, pattern: str) -> bool:
    """Whether a cell's overrides or its run id match a pattern."""
    if fnmatch.fnmatch(" ".join(cell.overrides), pattern):
        return True
    try:
        return fnmatch.fnmatch(cell.folder.name, pattern)
    except UsageError:  # no id: its rows are unavailable, or the cell it starts from is not done
        return False


def missing_hub(cells: Sequence[Cell]) -> str | None:
    """A message if cells need a hub that does not answer, else None."""
    if not any(cell.run.needs_hub for cell in cells) or (reason := hub.unreachable()) is None:
        return None
    return f"{reason}: only cached files can be used; otherwise set model.path=FOLDER, data=local data.dir=FOLDER"


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.suite", description=__doc__)
    parser.add_argument("name", help="one of: " + ", ".join(config.choices("suite")))
    parser.add_argument("overrides", nargs="*", help="key=value for every cell, e.g. output_dir=DIR")
    parser.add_argument("--jobs", type=positive, metavar="N", help="cells at a time (default 1; unlimited with --gpus)")
    parser.add_argument("--gpus", type=cards, metavar="all|0,1", help="GPUs to use; each cell gets one of them")
    parser.add_argument(
        "--per-gpu", type=per_gpu, default="auto", metavar="auto|N", help="cells per GPU; auto: as many as fit"
    )
    parser.add_argument("--cluster", choices=["local", "slurm"], default="local", help="where to run the cells")
    parser.add_argument("--workers", type=positive, metavar="N", help="Slurm jobs that run cells until none is left")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a submitit parameter")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and the estimated cost, run nothing")
    parser.add_argument("--only", metavar="PATTERN", help="run only cells whose id or overrides match, e.g. '*rosa*'")
    parser.add_argument(
        "--published-code", action="store_true", help="run blocks where the authors' code differs, with its settings"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again")
    args = parser.parse_intermixed_args(argv)
    if args.per_gpu != "auto" and args.gpus is None:
        parser.error("--per-gpu needs --gpus, such as --gpus all")
    if args.workers and args.cluster != "slurm":
        parser.error("--workers needs --cluster slurm; on this machine use --jobs or --gpus")
    if args.gpus and args.cluster == "slurm" and not args.workers:
        parser.error("--gpus selects cards of one machine; remove it or add --workers N")
    return args


def positive(text: str) -> int:
    """Parse a number of jobs. Raises ValueError or ArgumentTypeError for other strings, as argparse expects."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def per_gpu(text: str) -> int | Literal["auto"]:
    """Parse a number of jobs per card, or auto."""
    return "auto" if text == "auto" else positive(text)


def cards(text: str) -> str:
    """Parse card positions, or all. Raises ArgumentTypeError for other strings."""
    if not re.fullmatch(r"all|[0-9]+(,[0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"expected all or card numbers such as 0,1 instead of {text}")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run a suite; return the exit code: 1 if any cell failed."""
    args = parsed(argv)
    try:
        with as_keyboard_interrupt():
            return run_suite(args)
    except UsageError as error:
        return complain(str(error))
    except OSError as error:
        warn(f"rosa_bench: {plain_os(error)}; finished cells are kept; rerun the same command to resume")
        return EXIT_FAILED
    except KeyboardInterrupt:
        warn("rosa_bench: interrupted; rerun the same command to resume")
        return EXIT_INTERRUPTED


def planned(suite: Suite, args: argparse.Namespace) -> list[Cell]:
    """Cells selected by the command line. Raises UsageError if there are none."""
    cells = plan(suite, args.overrides, args.published_code)
    if not cells:
        where = " on tasks of this kind" if any(text.startswith("task=") for text in args.overrides) else ""
        raise UsageError(f"no settings of suite {args.name}{where} differ between the paper and the published code")
    if args.only:
        selected = {cell.id for cell in cells if matches(cell, args.only)}
        if not selected:
            raise UsageError(f"--only {args.only} matches no cell of {args.name}")
        chains = [link for cell in cells if cell.id in selected for link in (cell, *cell.sources)]
        needed = [other for link in chains for other in (link, *link.candidates)]
        selected |= {other.id for other in needed if other.state != "done"}
        cells = [cell for cell in cells if cell.id in selected]
    return cells


def board_for(args: argparse.Namespace, cells: Sequence[Cell], output: Path, known: Sequence[Record]) -> Board:
    """The board that runs the cells, locally or on a cluster. Raises UsageError if it cannot."""
    folder = output / ".suite" / args.name
    share = Share(args.jobs, args.gpus, None if args.per_gpu == "auto" else args.per_gpu)
    placement = share.placement(cells) if args.cluster == "local" else None
    executor = make_executor(args.cluster, folder, args.name, options_of(args.set), cells)
    again = failed_so_far(cells) if args.retry_failed else {}
    if args.workers:
        worker = Worker(tuple(cells), args.name, folder.absolute(), share, again)
        return Fleet(cells, executor, worker, args.workers, again=again, known=known)
    if args.cluster == "slurm":
        return Board(cells, executor, args.jobs or 1, again=again, known=known)
    return share.board(cells, executor, placement, again=again, known=known)


def run_suite(args: argparse.Namespace) -> int:
    suite = load(args.name)
    cells, without_input = with_input(planned(suite, args))
    output = Path(cells[0].run.output_dir)
    states = [cell.state for cell in cells]
    counts = "  ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    missing = f"  {len(without_input)} without input" if without_input else ""
    tell(f"{suite.title}: {counted(len(cells) + len(without_input), 'cell')}: {counts}{missing}")
    settled = [state for state in SETTLED if state != "failed" or not args.retry_failed]
    pending = [cell for cell, state in zip(cells, states, strict=True) if state not in settled]
    folders = list(dict.fromkeys(Path(cell.run.output_dir) for cell in cells))
    known = collect(folders).records if pending else []
    if pending:
        tell(str(estimate(pending, known)))
        if (line := missing_hub(pending)) is not None:
            tell(line)
    if args.dry_run:
        listed = (f"  {state:10}{cell.name}{cell.origin}" for cell, state in zip(cells, states, strict=True))
        tell("\n".join([*listed, *without_input]))
        return EXIT_DONE
    reasons: dict[str, str] = {}
    if pending:
        board = board_for(args, cells, output, known)
        board.run()
        reasons = board.reasons
    tell(summary(cells, reasons, without_input))
    finished = not without_input and all(cell.state in ("done", "skipped") for cell in cells)
    return EXIT_DONE if finished else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(command(main))
