"""The GPUs of this machine and their assignment to the jobs of a suite.

All values come from the driver; the scheduling process creates no CUDA context.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from rosa_bench.errors import UsageError
from rosa_bench.system.console import counted

QUERY = [
    "nvidia-smi",
    "--query-gpu=index,uuid,memory.total,memory.used,utilization.gpu",
    "--format=csv,noheader,nounits",
]
REFRESH_S = 5.0  # interval between readings of memory and utilization
CONTEXT_BYTES = 2**30  # memory of a process on a card besides its tensors: CUDA context and kernels
MARGIN = 1.1  # headroom over the peak of similar finished runs


@dataclass(frozen=True)
class Reading:
    """State of a card as reported by the driver."""

    index: str
    uuid: str
    total_bytes: int
    used_bytes: int
    busy_percent: int | None  # None if the driver does not report it


@dataclass
class Card:
    """A card that runs jobs."""

    name: str  # its entry in CUDA_VISIBLE_DEVICES
    position: int  # among the visible cards, as in --gpus
    reading: Reading | None = None  # None if the driver does not report the card
    most_jobs: int | None = None  # None: limited only by memory
    jobs: dict[str, int | None] = field(default_factory=dict)  # bytes each job needs, by cell; None: unknown


def read_driver() -> list[Reading]:
    """All cards of the machine; empty if nvidia-smi is missing or fails."""
    try:
        output = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [[entry.strip() for entry in line.split(",")] for line in output.splitlines() if line.strip()]
        return [
            Reading(index, uuid, int(total) * 2**20, int(used) * 2**20, int(busy) if busy.isdigit() else None)
            for index, uuid, total, used, busy in rows
        ]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def visible_cards(chosen: str = "all") -> list[Card]:
    """Cards visible under CUDA_VISIBLE_DEVICES, or those at the positions in `chosen` ("0,2").

    Raises:
        UsageError: if there are cards, but none at a given position.
    """
    count = torch.cuda.device_count()
    readings = read_driver()
    listed = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    names = listed[:count] or [reading.uuid for reading in readings[:count]] or [str(index) for index in range(count)]
    cards = [Card(name, position, _matching(name, readings)) for position, name in enumerate(names[:count])]
    if chosen == "all" or not cards:
        return cards
    positions = [int(position) for position in chosen.split(",")]
    if absent := [position for position in positions if position >= len(cards)]:
        raise UsageError(f"--gpus {chosen}: there is no card {absent[0]}; this machine has 0 to {len(cards) - 1}")
    return [cards[position] for position in dict.fromkeys(positions)]


def _matching(name: str, readings: Sequence[Reading]) -> Reading | None:
    return next((r for r in readings if name == r.index or (len(name) > 4 and r.uuid.startswith(name))), None)


class Placement:
    """Assigns jobs to cards.

    `per_gpu` jobs share a card. If it is None, as many jobs as fit in its memory share a card, judging by the peaks of
    similar finished runs, and a job of unknown size gets its own card. At most `most_jobs` (e.g. the CPU cores) run.
    """

    def __init__(self, cards: Sequence[Card], per_gpu: int | None, most_jobs: int) -> None:
        self.cards, self.most_jobs, self._by_count = list(cards), most_jobs, per_gpu is not None
        self._read_at = time.monotonic()
        for card in self.cards:
            card.most_jobs = per_gpu if per_gpu is not None or card.reading is not None else 1

    def at_most(self, cells: int) -> int:
        """Maximum number of jobs that run at a time, for this number of cells."""
        places = [cells if card.most_jobs is None else card.most_jobs for card in self.cards]
        return max(1, min(cells, self.most_jobs, sum(places)))

    @property
    def full(self) -> bool:
        """Whether no card accepts another job of any size."""
        running = sum(len(card.jobs) for card in self.cards)
        return running >= self.most_jobs or not any(self._has_place(card) for card in self.cards)

    def place(self, cell: str, peak_bytes: int | None, alone: bool = False) -> Card | None:
        """Assign a cell to the card with the fewest jobs and then the most free memory; None if it must wait.

        `peak_bytes` is the cell's peak allocation, None if unknown; `alone` gives it a card to itself.
        """
        if self.full:
            return None
        self._refresh()
        need = None if peak_bytes is None or alone else int(peak_bytes * MARGIN) + CONTEXT_BYTES
        by_count = self._by_count and not alone
        able = [card for card in self.cards if self._has_place(card) and (by_count or self._fits(card, need))]
        if not able:
            return None
        card = min(able, key=lambda card: (len(card.jobs), card.reading.used_bytes if card.reading else 0))
        card.jobs[cell] = 0 if by_count else need
        return card

    def release(self, cell: str, out_of_memory: bool = False) -> None:
        """Release a finished cell's card. After an out-of-memory error on a shared card, fewer jobs share that card."""
        for card in self.cards:
            if cell in card.jobs:
                if out_of_memory and len(card.jobs) > 1:
                    card.most_jobs = len(card.jobs) - 1
                del card.jobs[cell]

    def __str__(self) -> str:
        self._refresh()
        return "  ".join(map(_line, self.cards))

    def _has_place(self, card: Card) -> bool:
        alone = any(need is None for need in card.jobs.values())
        return not alone and (card.most_jobs is None or len(card.jobs) < card.most_jobs)

    def _fits(self, card: Card, need: int | None) -> bool:
        """Whether a job fits next to those on a card; an empty card always accepts one."""
        if not card.jobs:
            return True
        if need is None or card.reading is None:
            return False
        planned = sum(other or 0 for other in card.jobs.values())
        free = card.reading.total_bytes - card.reading.used_bytes
        return planned + need <= card.reading.total_bytes and need <= free

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < REFRESH_S:
            return
        readings = read_driver()
        for card in self.cards:
            card.reading = (_matching(card.reading.uuid, readings) if card.reading else None) or card.reading
        self._read_at = time.monotonic()


def _line(card: Card) -> str:
    """A card as the board displays it."""
    jobs = f"card {card.position}: {counted(len(card.jobs), 'job')}"
    if card.reading is None:
        return jobs
    busy = "" if card.reading.busy_percent is None else f", {card.reading.busy_percent} % busy"
    return f"{jobs}{busy}, {card.reading.used_bytes / 1e9:.1f} of {card.reading.total_bytes / 1e9:.1f} GB"
