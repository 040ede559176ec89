"""What a claim measures on a finished run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rosa_bench.records.record import Record
from rosa_bench.system.strict_json import is_number
from rosa_bench.tables import costs

NO_LATENCY = "no inference latency"
Events = Sequence[Mapping[str, Any]]


class UnmeasuredError(Exception):
    """A run has no value of a measure; the message says why."""


@dataclass(frozen=True)
class Measure:
    """A value of a run, and how values are combined.

    `read(record, variant, events)` returns the value or raises `UnmeasuredError`. An `exact` measure is deterministic,
    so all seeds may well have equal values. Several runs on one side of a comparison are added up if `additive`, else
    averaged.
    """

    read: Callable[[Record, str, Events], float]
    name: str
    unit: Literal["points", "times", ""]
    exact: bool = False
    additive: bool = False


def score(record: Record, variant: str, events: Events = ()) -> float:
    """The primary score at the last epoch, signed so that more is better.

    The correlation is undefined if all predictions are the same. Here it counts as 0, as in scikit-learn and in GLUE's
    own program for CoLA, so that the claim can be judged: a model with such predictions knows nothing.
    """
    metric, split = record.primary["metric"], record.primary.get("split", "")
    value = record.scores.get(split, {}).get(variant, {}).get(metric)
    if value is None and constant(record, variant):
        return 0.0
    if value is None:
        raise UnmeasuredError(f"no {metric} on {split} {variant}".rstrip())
    return float(value if record.primary.get("higher_is_better", True) else -value)


def constant(record: Record, variant: str) -> bool:
    """Whether the primary score is undefined because all predictions of a variant are the same."""
    reasons = str(record.facts.get("absent_metrics", {}).get(record.primary["metric"], ""))
    place = f"{record.primary.get('split', '')} {variant}".strip()
    found = re.findall(r"undefined: every prediction is [^(;]*\(([^)]*)\)", reasons)
    return any(place in places.split(", ") for places in found)


def loss(record: Record, variant: str, events: Events) -> float:
    """Area under the curve of the training loss, per step: the mean loss over all steps."""
    area, steps = 0.0, 0
    for event in events:
        if is_number(event.get("loss")) and isinstance(step := event.get("step"), int) and step > steps:
            area += event["loss"] * (step - steps)
            steps = step
    if not steps:
        raise UnmeasuredError("no training curve")
    return area / steps


def of_run(read: Callable[[Record], float | None], absent: str) -> Callable[[Record, str, Events], float]:
    """Make a `read` for a value that the variants of a run share; `absent` is the error message for runs without it."""

    def value(record: Record, variant: str, events: Events) -> float:
        measured = read(record)
        if measured is None:
            raise UnmeasuredError(absent)
        return measured

    return value


def update_rank(record: Record) -> float | None:
    """Rank of the whole update over the method's rank, for the adapted weight where it is lowest."""
    ranks, rank = record.facts.get("update_rank"), record.config["method"].get("rank")
    if not isinstance(ranks, dict) or not ranks or not is_number(rank) or rank < 1:
        return None
    return float(min(ranks.values()) / rank)


def activations(record: Record) -> float | None:
    """Bytes that autograd keeps between forward and backward pass."""
    return costs.number(record.cost.get("memory", {}).get("activations"))


def start_cosine(record: Record) -> float | None:
    """Mean cosine similarity between the final hidden states before training and the backbone's."""
    return costs.number(record.facts.get("start_cosine"))


MEASURES: Mapping[str, Measure] = {
    "score": Measure(score, "score", "points"),
    "loss": Measure(loss, "mean training loss", "times"),
    "seconds": Measure(of_run(costs.seconds, "no time"), "seconds of a run", "times", additive=True),
    "memory": Measure(of_run(costs.memory, "no memory of training"), "memory of training", "times", exact=True),
    "activations": Measure(of_run(activations, "no bytes of activations"), "bytes of activations", "times", exact=True),
    "update_rank": Measure(
        of_run(update_rank, "no rank of the update"), "rank of the update over the method's rank", "times", exact=True
    ),
    "start_cosine": Measure(
        of_run(start_cosine, "no start_cosine"), "cosine with the backbone's hidden states", "", exact=True
    ),
    "latency": Measure(of_run(costs.latency, NO_LATENCY), "latency over the backbone's, one input", "times"),
    "batch_latency": Measure(of_run(costs.batch_latency, NO_LATENCY), "latency over the backbone's, a batch", "times"),
}


def last_step(events: Events) -> int:
    """The last optimizer step of a training curve; 0 without one."""
    return max((event["step"] for event in events if isinstance(event.get("step"), int)), default=0)


def ratio_of(ours: float, theirs: float) -> float:
    """The logarithm of a quotient of positive values."""
    if ours <= 0 or theirs <= 0:
        raise UnmeasuredError("a value that is not positive has no ratio")
    return math.log(ours / theirs)
