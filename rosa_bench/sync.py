"""`python -m rosa_bench.sync`: sends the runs that were mirrored offline to wandb, each once."""

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
from rosa_bench.system.console import complain, tell
from rosa_bench.system.signals import command
from rosa_bench.system.strict_json import loads

SERVER = "https://api.wandb.ai"
PATIENCE_S = 15  # for one run, and as long again for each megabyte of it
QUESTION = b'{"query": "{ __typename }"}'
TIMEOUT_S = 8.0  # for an answer
LARGEST = 2**24  # bytes of an answer


def waiting(root: Path) -> list[Path]:
    """Folders of offline runs below a folder of records that were not sent yet, by name."""
    return sorted(folder for folder in root.glob("*/wandb/offline-run-*") if unsent(folder))


def unsent(folder: Path) -> bool:
    """Whether wandb has not marked the run of a folder as sent."""
    return any(not path.with_name(path.name + ".synced").exists() for path in folder.glob("*.wandb"))


def send(folder: Path) -> str | None:
    """Send one run; why it could not be sent, or None."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", str(folder)]
    limit = PATIENCE_S * (1 + sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6)
    quiet = {**os.environ, "WANDB_ERROR_REPORTING": "false"}  # errors are told here, and to nobody else
    try:
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=limit, stdin=DEVNULL)
    except subprocess.TimeoutExpired:
        return f"not done within {limit:.0f} s"
    if done.returncode == 0 and not unsent(folder):
        return None
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1].strip()[:300] if said else f"wandb ended with {done.returncode}"


def answers(endpoint: str) -> bool:
    """Whether anything at the address speaks HTTP within `TIMEOUT_S` seconds; a refusal is an answer too."""
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, HTTPException):
        return False


def speaks(address: str, asked: bytes | None = None) -> bool:
    """Whether what answers at an address speaks JSON; `asked` is posted as such. A refusal is an answer too."""
    request = urllib.request.Request(address, data=asked, headers={"Content-Type": "application/json"})
    ends = time.monotonic() + TIMEOUT_S
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            told = b""
            while part := reply.read1(LARGEST):
                told += part
                if time.monotonic() > ends or len(told) > LARGEST:
                    return False
            loads(told)
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, HTTPException):
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Send every offline run below --runs that was not sent; exit code 1 if one could not be."""
    parser = argparse.ArgumentParser(prog="python -m rosa_bench.sync", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("results/runs"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="list them, send nothing")
    args = parser.parse_args(argv)
    found = waiting(args.runs)
    tell(f"{len(found)} offline runs below {args.runs} were not sent yet")
    if args.dry_run or not found:
        tell("\n".join(f"  {folder.parent.parent.name}" for folder in found))
        return EXIT_DONE
    server = os.environ.get("WANDB_BASE_URL", SERVER)
    if not answers(server):
        return complain(f"{server} cannot be reached; the runs stay where they are, try again later")
    if not speaks(f"{server.rstrip('/')}/graphql", QUESTION):
        return complain(f"{server} does not answer as wandb does; the runs stay where they are")
    failed = 0
    for folder in found:
        reason = send(folder)
        failed += reason is not None
        tell(f"  {folder.parent.parent.name}: {'sent' if reason is None else f'not sent: {reason}'}")
    return EXIT_FAILED if failed else EXIT_DONE


if __name__ == "__main__":
    sys.exit(command(main))
