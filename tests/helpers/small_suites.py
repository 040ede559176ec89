"""Suites of a few cells, and an executor that runs them in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rosa_bench.suite import __main__ as suite_command
from rosa_bench.suite import plan

STARTED = {"method": "lora", "task": ["rte", "mrpc"], "start": {"task": "mnli"}}
TWO_STAGES = [STARTED, {"method": "lora", "task": "mnli"}]  # the second stage first: order does not matter


def small_suite(*cells: dict[str, Any], **common: Any) -> plan.Suite:
    """A suite with one block per set of overrides."""
    return plan.Suite(title="small", common=common, cells=[plan.Block(run=cell) for cell in cells])


class Pretend:
    """An executor that runs cells immediately in this process and counts them."""

    cluster = "local"

    def __init__(self) -> None:
        self.submitted: list[str] = []

    def submit(self, cell: Any) -> Any:
        self.submitted.append(cell.key)
        code = cell()
        paths = type("Paths", (), {"folder": Path("nowhere"), "stderr": "log"})
        return type("Job", (), {"done": lambda _: True, "job_id": "0", "paths": paths, "result": lambda _: code})()


def two_stages() -> None:
    """`python -m rosa_bench.suite` with a suite of two stages."""
    suite_command.load = lambda _: small_suite(*TWO_STAGES)
    sys.exit(suite_command.main(sys.argv[1:]))
