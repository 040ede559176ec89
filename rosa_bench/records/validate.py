"""Validates records read from files, so that tables can rely on them: names are names and numbers are numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rosa_bench.config import LONGEST_NAME
from rosa_bench.errors import UsageError
from rosa_bench.records.record import Record
from rosa_bench.records.run_key import method_class
from rosa_bench.system.strict_json import is_number, short

NAMES = ("run_id", "key", "task", "model", "method", "status")
GROUPS = ("model", "method", "task", "train", "data")
MAPPINGS = ("data", "scores", "primary", "params", "cost", "facts", "env")
LONGEST = LONGEST_NAME  # characters of a name, which becomes part of a file name
LARGEST = 1e12  # absolute value of a score in any unit
INFERENCE = ("size", "pairs", "model_ms", "backbone_ms", "model_per_s", "backbone_per_s", "ratio")
MOST = 1e18  # seconds, bytes or other cost of a run


def checked(record: Record, path: Path) -> Record:
    """The record itself. Raises UsageError that names the file and the first fault."""
    for fault in _faults(record):
        raise UsageError(f"{path} is not a valid record ({fault})")
    return record


def _faults(record: Record) -> Iterator[str]:
    """Faults in order. Take only the first: later checks rely on earlier ones."""
    for name in NAMES:
        if not is_name(getattr(record, name)):
            yield f"{name} is {short(getattr(record, name))}"
    if not isinstance(record.seed, int) or isinstance(record.seed, bool):
        yield f"seed is {short(record.seed)}"
    if not isinstance(record.variant_names, list) or not all(is_name(name, 0) for name in record.variant_names):
        yield "variant_names is not a list of names"
    if record.error is not None and not isinstance(record.error, str):
        yield "error is not a string"
    for name in ("config", *MAPPINGS):
        if not isinstance(getattr(record, name), dict):
            yield f"{name} is not a mapping"
    yield from _config(record)
    if record.status == "done":
        yield from _scores(record)
        yield from _primary(record)
        yield from _provenance(record)


def is_name(value: Any, shortest: int = 1) -> bool:
    """Whether a value is a single-line string that can serve as a name."""
    return isinstance(value, str) and shortest <= len(value) <= LONGEST and value.isprintable()


def _config(record: Record) -> Iterator[str]:
    config = record.config
    for name in GROUPS:
        if not isinstance(config.get(name), dict):
            yield f"config.{name} is not a mapping"
    if config.get("seed", record.seed) != record.seed:
        yield f"seed is {record.seed}, but config.seed is {short(config['seed'])}"
    choices = config.get("choices") or {}
    if not isinstance(choices, dict) or not all(map(is_name, (*choices, *choices.values()))):
        yield "config.choices is not a mapping of names"
    tracker = config.get("tracker", {})
    if not isinstance(tracker, dict) or not isinstance(tracker.get("tags") or [], list):
        yield "config.tracker has no list of tags"
    if not isinstance(config["task"].get("scoring", ""), str):
        yield "config.task.scoring is not a string"
    try:
        method_class(config["method"]).size_label(config["method"])
    except KeyError as error:
        yield f"config.method.{error.args[0]} is missing"


def _scores(record: Record) -> Iterator[str]:
    for split, by_variant in record.scores.items():
        if not isinstance(by_variant, dict) or not all(isinstance(metrics, dict) for metrics in by_variant.values()):
            yield f"scores of {short(split)} are not mappings"
        for variant, metrics in by_variant.items():
            for metric, value in metrics.items():
                if not (is_name(split) and is_name(variant, 0) and is_name(metric) and _is_score(value)):
                    yield f"the score {short(metric)} of {short(split)} is {short(value)}"


def _primary(record: Record) -> Iterator[str]:
    primary = record.primary
    if not is_name(primary.get("metric")) or not is_name(primary.get("split", "")):
        yield "primary has no metric and split"
    if not isinstance(primary.get("higher_is_better", True), bool):
        yield "primary.higher_is_better is neither true nor false"
    for name in ("last", "best"):
        if name in primary and not _is_score(primary[name]):
            yield f"primary.{name} is {short(primary[name])}"
    best = primary.get("best_scores", {})
    if not isinstance(best, dict) or not all(
        isinstance(scores, dict) and all(map(_is_score, scores.values())) for scores in best.values()
    ):
        yield "primary.best_scores is not a mapping of scores by split"
    main = record.variant_names[-1] if record.variant_names else ""
    score = record.scores.get(primary.get("split", ""), {}).get(main, {}).get(primary["metric"])
    if score is not None and primary.get("last", score) != score:
        yield f"primary.last is {primary['last']}, but the score is {score}"


def _is_score(value: Any) -> bool:
    return is_number(value) and abs(value) <= LARGEST


def _provenance(record: Record) -> Iterator[str]:
    data, params = record.data, record.params
    if not is_name(data.get("source")) or not isinstance(data.get("sha256"), dict):
        yield "data has no source and sha256"
    rows = data.get("rows", {})
    if not isinstance(rows, dict) or not all(isinstance(count, int) for count in rows.values()):
        yield "data.rows is not a mapping of integers"
    trainable = params.get("trainable")
    if not isinstance(trainable, int) or isinstance(trainable, bool) or not 0 <= trainable < 2**63:
        yield f"params.trainable is {short(trainable)}"
    if not isinstance(record.facts.get("backbone_hash", ""), str):
        yield "facts.backbone_hash is not a string"
    if not isinstance(record.cost.get("memory", {}), dict):
        yield "cost.memory is not a mapping"
    for name, value in record.cost.items():
        if name not in ("memory", "inference") and not (is_number(value) and 0 <= value <= MOST):
            yield f"the cost {short(name)} is {short(value)}"
    if "inference" in record.cost:
        yield from _inference(record.cost["inference"])


def _inference(inference: Any) -> Iterator[str]:
    if not isinstance(inference, dict) or not isinstance(inference.get("merged"), bool):
        yield "cost.inference is not a mapping with merged"
    for batch in ("batch_1", "batch_eval"):
        measured = inference.get(batch)
        if not isinstance(measured, dict):
            yield f"cost.inference.{batch} is not a mapping"
        quartiles = measured.get("ratio_quartiles")
        if not isinstance(quartiles, list) or len(quartiles) != 2:
            yield f"cost.inference.{batch}.ratio_quartiles is {short(quartiles)}"
        numbers = [(name, measured.get(name)) for name in INFERENCE] + [("ratio_quartiles", q) for q in quartiles]
        for name, value in numbers:
            if not (is_number(value) and 0 < value <= MOST):
                yield f"cost.inference.{batch}.{name} is {short(value)}"
