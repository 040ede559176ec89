"""Compare this checkout with an earlier commit, byte for byte, on small cells of every kind of method and task.

    python scripts/golden.py [--commit REV] [--only TEXT] [--jobs N]

Both trees train the same cells from the command line; one run is killed and resumed, two adapters are decoded again,
and the records become tables. Scores, losses, predictions, decoded texts and tables must be equal. Run ids may differ,
since they hold the key: a changed key is a note, not a difference. REV is HEAD~1 by default, HEAD if the checkout has
uncommitted changes. Exit code 1 for a difference or a failed command.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 300  # of one command
SHOWN = 4  # artifacts of a cell whose differences are printed
WIDTH = 150  # characters of a printed line
SMALL = [
    "tracker=none",
    "train.limit_train=32",
    "train.limit_eval=12",
    "train.batch_size=8",
    "train.max_steps=4",
    "train.max_length=64",
    "train.log_steps=1",
]
KILLED = ["train.max_steps=40", "train.checkpoint_steps=1"]
TABLES = (".md", ".csv", ".tex")
MEASURED = ("inference", "peak_rss_bytes")  # costs that differ each time, besides seconds and rates
RUN_ID = re.compile(r"(-s\d+)-[0-9a-f]{8}\b")
Results = dict[str, str]  # the text of each artifact of a cell, by its name


@dataclass(frozen=True)
class Cell:
    """A run and what to do with it after training."""

    name: str
    overrides: str
    decode: str = ""  # arguments of `rosa_bench.decode`
    killed: bool = False  # end the process after its first checkpoint and start it again


CELLS = (
    Cell("full-stsb", "method=full task=stsb"),
    Cell("lora-e2e", "method=lora task=e2e save=adapter", decode="task.num_beams=3 task.no_repeat_ngram=2"),
    Cell("dylora-dart", "method=dylora method.rank_max=3 task=dart train.limit_eval=4"),
    Cell("dylora-mnli", "method=dylora method.rank_max=3 task=mnli save=adapter", decode="--variant r2"),
    Cell("rosa-cola", "method=rosa method.every_steps=7 task=cola train.max_steps=40"),
    Cell("rosa-cola-killed", "method=rosa method.every_steps=7 task=cola", killed=True),
    Cell("rosa-synthetic", "method=rosa task=synthetic"),
    Cell("meft-sciq", "method=meft task=sciq"),
    Cell("meft-rte", "method=meft task=rte"),
    Cell("adapter-mrpc", "method=adapter task=mrpc"),
    Cell("bitfit-piqa", "method=bitfit task=piqa"),
    Cell("head-sst2", "method=head task=sst2"),
    Cell("top_layers-webnlg", "method=top_layers task=webnlg train.limit_eval=4"),
    Cell("adalora-qnli", "method=adalora task=qnli"),
    Cell("prefix_tuning-arc_easy", "method=prefix_tuning task=arc_easy"),
)


class FailedError(Exception):
    """A command failed; the message is the last line that it printed."""


@dataclass(frozen=True)
class Tree:
    """A version of the code in `folder`; its output goes below `out`."""

    folder: Path
    out: Path

    def command(self, *arguments: str) -> list[str]:
        """`python -m rosa_bench...` of this version: Python imports from the working directory first."""
        return [sys.executable, "-m", *arguments]

    def environment(self) -> dict[str, str]:
        """One CPU thread, no network, and its own token cache."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ROSA_BENCH_"))}
        own = {"ROSA_BENCH_CACHE": str(self.out / "cache"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return {**inherited, **own, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def call(self, *arguments: str) -> str:
        """Run a command and return its output. Raises FailedError."""
        return self._call(self.command(*arguments))

    def imported(self) -> Path:
        """The folder from which `import rosa_bench` loads the package."""
        code = "import rosa_bench; print(rosa_bench.__path__[0])"
        return Path(self._call([sys.executable, "-c", code]).strip()).parent

    def _call(self, command: Sequence[str]) -> str:
        try:
            process = subprocess.run(
                command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=LIMIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise FailedError(f"took more than {LIMIT_S} s") from error
        if process.returncode:
            lines = (process.stderr.strip() or process.stdout.strip()).splitlines()
            raise FailedError(f"exit code {process.returncode}: {lines[-1] if lines else 'no output'}")
        return process.stdout

    def results(self, cell: Cell) -> Results:
        """Run a cell and collect its artifacts; a failed cell has only one, `error`."""
        try:
            folder = self._run(cell)
            results = read_run(folder)
            if cell.decode:
                results["decoded"] = self._decode(folder, cell)
            remove_times(folder / "record.json")
        except FailedError as error:
            return {"error": str(error)}
        return results

    def _run(self, cell: Cell) -> Path:
        """Train a cell and return the folder of its run."""
        output = self.out / "runs" / cell.name
        arguments = ["rosa_bench", *SMALL, *cell.overrides.split(), f"output_dir={output}"]
        if cell.killed:
            arguments += KILLED
            self._kill(arguments, output)
            arguments.append("resume=must")
        self.call(*arguments)
        folders = [path.parent for path in output.glob("*/record.json")]
        if len(folders) != 1:
            raise FailedError(f"{len(folders)} records instead of one")
        return folders[0]

    def _kill(self, arguments: Sequence[str], output: Path) -> None:
        """Start a run and kill it when it writes its second checkpoint, so that the first one is complete."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < deadline and len(list(output.glob("*/checkpoint-*"))) < 2:
            time.sleep(0.01)
        ended = process.poll() is not None
        process.kill()
        process.wait()
        if ended:
            raise FailedError("the run ended before it could be killed")

    def _decode(self, folder: Path, cell: Cell) -> str:
        """The output of `rosa_bench.decode` for a trained cell, without the path of the run."""
        texts = self.out / "decoded" / cell.name
        texts.mkdir(parents=True)
        arguments = [*cell.decode.split(), "--out", str(texts / "texts.jsonl"), "--json"]
        printed = json.loads(self.call("rosa_bench.decode", str(folder), *arguments))
        printed.pop("run", None)
        files = [f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in sorted(texts.iterdir())]
        return "\n".join([json.dumps(printed, indent=1, sort_keys=True), *files])

    def tables(self, name: str, sources: Sequence[Path]) -> Results:
        """Render records as tables; run ids are masked."""
        out = self.out / "tables" / name
        runs = [argument for source in sources for argument in ("--runs", str(source))]
        try:
            self.call("rosa_bench.tables", *runs, "--out", str(out), "--no-plots")
        except FailedError as error:
            return {"error": str(error)}
        written = sorted(path for path in out.iterdir() if path.suffix in TABLES)
        return {path.name: RUN_ID.sub(r"\1", path.read_text(encoding="utf-8")) for path in written}

    def shipped(self) -> list[Path]:
        """The records that are part of the repository: one file, or a folder."""
        places = [self.folder / "results" / name for name in ("embedded.jsonl.gz", "embedded")]
        return [place for place in places if place.exists()][:1]


def read_run(folder: Path) -> Results:
    """Scores, losses and predictions of a finished run, and its key. Raises FailedError if it is not done."""
    record = json.loads((folder / "record.json").read_bytes())
    if record["status"] != "done":
        raise FailedError(f"status {record['status']}: {record.get('error')}")
    scores = {name: record[name] for name in ("scores", "primary")}
    events = map(json.loads, (folder / "events.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [
        f"step {event['step']}  loss {event['loss']!r}  lr {event['lr']!r}" for event in events if "loss" in event
    ]
    results = {
        "key": record["key"],
        "scores": json.dumps(scores, indent=1, sort_keys=True),
        "losses": "\n".join(losses),
    }
    for path in sorted(folder.glob("predictions-*.jsonl.gz")):
        results[path.name.removesuffix(".jsonl.gz")] = gzip.decompress(path.read_bytes()).decode()
    return results


def remove_times(path: Path) -> None:
    """Remove from a record the costs that differ each time, and with them the checksum; tables show the rest."""
    record = json.loads(path.read_bytes())
    record.pop("checksum", None)
    measured = [name for name in record.get("cost", {}) if name.endswith("_s") or name in MEASURED]
    for name in measured:
        del record["cost"][name]
    path.write_text(json.dumps(record), encoding="utf-8")


def differences(before: Results, now: Results) -> list[str]:
    """A few lines about artifacts that differ, are missing or failed; empty if all are equal."""
    names = sorted(name for name in {*before, *now} - {"key"} if before.get(name) != now.get(name) or name == "error")
    lines = [line for name in names[:SHOWN] for line in difference(name, before.get(name), now.get(name))]
    if names[SHOWN:]:
        lines.append(f"  {', '.join(names[SHOWN:])} differ too")
    return lines if {*before, *now} - {"key"} else ["  nothing to compare"]


def difference(name: str, old: str | None, new: str | None) -> list[str]:
    """The number of lines that differ in one artifact, and the first of them before and now."""
    if name == "error":
        return [f"  failed: before: {old or 'no error'}; now: {new or 'no error'}"]
    if old is None or new is None:
        return [f"  {name} exists only {'now' if old is None else 'before'}"]
    changed = [pair for pair in zip_longest(old.splitlines(), new.splitlines()) if pair[0] != pair[1]]
    first = (
        [("no line" if line is None else line.strip())[:WIDTH] for line in changed[0]] if changed else ["line ends"] * 2
    )
    return [
        f"  {name}: {len(changed)} lines differ, the first of them",
        f"    before  {first[0]}",
        f"    now     {first[1]}",
    ]


def git(*arguments: str) -> bytes:
    """Output of a git command in this checkout. Raises FailedError."""
    process = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if process.returncode:
        raise FailedError(f"git {arguments[0]}: {process.stderr.decode(errors='replace').strip()}")
    return process.stdout


def extract(commit: str, folder: Path) -> None:
    """Write the files of a commit to a folder."""
    with zipfile.ZipFile(io.BytesIO(git("archive", "--format=zip", commit))) as archive:
        archive.extractall(folder)


def compare(before: Tree, now: Tree, cells: Sequence[Cell], jobs: int) -> Iterator[tuple[str, Results, Results]]:
    """Yield the name of every cell and table set with its artifacts in both trees, as they become available."""
    trees, results = (before, now), {}
    with ThreadPoolExecutor(jobs) as pool:
        runs = {cell.name: [pool.submit(tree.results, cell) for tree in trees] for cell in cells}
        shipped = [pool.submit(tree.tables, "shipped", tree.shipped()) for tree in trees]
        for name, (old, new) in runs.items():
            results[name] = new.result()
            yield name, old.result(), results[name]
        if {"rosa-cola", "rosa-cola-killed"} <= results.keys():
            yield "killed and resumed = uninterrupted", results["rosa-cola"], results["rosa-cola-killed"]
        small = [pool.submit(tree.tables, "cells", [tree.out / "runs" / cell.name for cell in cells]) for tree in trees]
        for name, (old, new) in {"tables of these cells": small, "tables of the shipped records": shipped}.items():
            yield name, old.result(), new.result()


def report(compared: Iterable[tuple[str, Results, Results]]) -> bool:
    """Print a line and the differences for each comparison; return whether all are equal."""
    equal, keys = True, []
    for name, before, now in compared:
        lines = differences(before, now)
        equal &= not lines
        print("\n".join([f"{'DIFFERS' if lines else 'equal':8} {name}", *lines]), flush=True)
        keys += [name] if before.get("key") != now.get("key") else []
    if keys:
        print(f"note: the run key changed, so finished runs will run again: {', '.join(keys)}")
    return equal


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", metavar="REV", help="the commit to compare with")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cells whose name contains TEXT")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="commands at a time (default: 2)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the trees; return the exit code."""
    args = parsed(argv)
    cells = [cell for cell in CELLS if args.only in cell.name]
    try:
        if not cells:
            raise FailedError(f"--only {args.only} matches no cell; cells: {', '.join(cell.name for cell in CELLS)}")
        revision = args.commit or ("HEAD" if git("status", "--porcelain", "--untracked-files=no") else "HEAD~1")
        commit, subject = git("log", "-1", "--format=%H%n%h %s", revision, "--").decode().splitlines()
        with tempfile.TemporaryDirectory(prefix="golden-") as work:
            before = Tree(Path(work, "code").resolve(), Path(work, "before"))
            now = Tree(ROOT, Path(work, "now"))
            extract(commit, before.folder)
            for tree in (before, now):
                if (folder := tree.imported()) != tree.folder:
                    raise FailedError(f"in {tree.folder} Python imports rosa_bench from {folder}")
            print(f"{len(cells)} cells, compared with {subject}", flush=True)
            began = time.monotonic()
            equal = report(compare(before, now, cells, args.jobs))
    except FailedError as error:
        print(f"golden: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("golden: interrupted", file=sys.stderr)
        return 130
    print(f"{'no difference' if equal else 'results differ'} ({time.monotonic() - began:.0f} s)")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
