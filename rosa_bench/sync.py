"""`python -m rosa_bench.sync`: upload offline runs to wandb, each once.

The command calls `wandb sync`, which by itself waits forever for a server that does not respond, and exits with 0 if
the server accepts nothing. Here, both are errors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from subprocess import DEVNULL

from rosa_bench.errors import EXIT_DONE, EXIT_FAILED
from rosa_bench.system.console import complain, counted, tell
from rosa_bench.system.files import typed_path
from rosa_bench.system.signals import command
from rosa_bench.system.strict_json import loads

SERVER = "https://api.wandb.ai"
PATIENCE_S = 15  # time limit per run, plus the same for each of its megabytes
QUESTION = b'{"query": "{ __typename }"}'
TIMEOUT_S = 8.0  # of a response
LARGEST = 2**24  # bytes of a response


def waiting(root: Path) -> list[Path]:
    """Folders of offline runs below `root` that have not been uploaded, sorted by name."""
    return sorted(folder for folder in root.glob("*/wandb/offline-run-*") if unsent(folder))


def unsent(folder: Path) -> bool:
    """Whether wandb has not yet marked the run in a folder as synced."""
    return any(not path.with_name(path.name + ".synced").exists() for path in folder.glob("*.wandb"))


def send(folder: Path) -> str | None:
    """Upload a run. Returns the reason if it failed, else None."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", str(folder)]
    limit = PATIENCE_S * (1 + sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6)
    quiet = {**os.environ, "WANDB_ERROR_REPORTING": "false"}  # report errors here only
    try:
        process = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=limit, stdin=DEVNULL)
    except subprocess.TimeoutExpired:
        return f"timed out after {limit:.0f} s"
    if process.returncode == 0 and not unsent(folder):
        return None
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else f"wandb exited with code {process.returncode}"


def refusal(server: str) -> str | None:
    """Why a server cannot take runs, in one line; None if it answers a query like wandb or with a client error."""
    headers = {"Content-Type": "application/json"}
    deadline = time.monotonic() + TIMEOUT_S
    try:
        request = urllib.request.Request(f"{server.rstrip('/')}/graphql", data=QUESTION, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            content = b""
            while (chunk := reply.read1(LARGEST)) and len(content) <= LARGEST and time.monotonic() < deadline:
                content += chunk
        loads(content)
        return None
    except urllib.error.URLError as error:
        if not isinstance(error, urllib.error.HTTPError):
            return f"{server} cannot be reached; nothing was uploaded, try again later"
        if error.code < 500:
            return None
    except (OSError, ValueError, HTTPException):
        pass
    return f"{server} does not respond like a wandb server; nothing was uploaded, check WANDB_BASE_URL"


def main(argv: Sequence[str] | None = None) -> int:
    """Upload every offline run below --runs. The exit code is 1 if an upload failed."""
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.sync", description=__doc__)
    parser.add_argument(
        "--runs", type=typed_path, default=Path("results/runs"), metavar="DIR", help="folder of the runs"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs without uploading them")
    args = parser.parse_args(argv)
    folders = waiting(args.runs)
    tell(f"{counted(len(folders), 'offline run')} to upload below {args.runs}")
    if args.dry_run or not folders:
        tell("\n".join(f"  {folder.parent.parent.name}" for folder in folders))
        return EXIT_DONE
    server = os.environ.get("WANDB_BASE_URL") or SERVER
    if (reason := refusal(server)) is not None:
        return complain(reason)
    failed = 0
    for folder in folders:
        fault = send(folder)
        failed += fault is not None
        tell(f"  {folder.parent.parent.name}: {'uploaded' if fault is None else f'not uploaded: {fault}'}")
    return EXIT_FAILED if failed else EXIT_DONE


if __name__ == "__main__":
    sys.exit(command(main))
