"""A run in words, and records as a short table, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rosa_bench.config import Run, choice_defaults, node_dict
from rosa_bench.records.labels import option_text
from rosa_bench.records.record import Record, seconds


def in_words(run: Run) -> str:
    """What a run will do, in one sentence."""
    train, chance = run.train, run.model.random_init
    model = f"Training {run.model.name} from random weights" if chance else f"Fine-tuning {run.model.name}"
    start = "" if run.start is None else f", starting from {run.start}"
    steps = (
        f"{train.epochs} epoch{'s' * (train.epochs != 1)}" if train.max_steps is None else f"{train.max_steps} steps"
    )
    return (
        f"{model} on {run.task.name} ({run.data.source} rows) with method {_method_in_words(run)}{start}: "
        f"{steps}, batch size {train.batch_size}, learning rate {train.lr:g}, seed {run.seed}"
    )


def _method_in_words(run: Run) -> str:
    """The method's name with its size and the options that differ from its choice."""
    options = node_dict(run.method)
    usual = choice_defaults("method", run.choices.get("method", ""), type(run.method))
    size = type(run.method).size_label
    changed = [name for name, value in options.items() if name in usual and value != usual[name]]
    parts = [] if (label := size(options)) is None else [label.replace("r=", "rank ")]
    parts += [option_text(name, options[name]) for name in changed if size(options | {name: usual[name]}) == label]
    return run.method.name + (f" ({', '.join(parts)})" if parts else "")


def result_table(records: Sequence[Record], folders: Sequence[Path]) -> str:
    """A table of scores with metric and split, trainable parameters, time and peak memory, and the record paths."""
    head = ("task", "model", "method", "seed", "score", "trainable", "time", "peak memory")
    rows = [head, *map(_result_row, records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    more = [line for record in records for line in _all_scores(record)]
    where = [
        line
        for record, folder in zip(records, folders, strict=True)
        for line in (*_saved(record, folder), f"record: {folder / 'record.json'}")
    ]
    return "\n".join(["", *lines, *more, "", *where])


def _saved(record: Record, folder: Path) -> list[str]:
    """The folder and epoch of the trained weights; empty if none were saved."""
    saved = record.facts.get("saved", {})
    if "epoch" not in saved:
        return []
    best = f"; the best was epoch {saved['best_epoch']:g}" if "best_epoch" in saved else ""
    return [f"saved: {folder / saved['as']} (epoch {saved['epoch']:g}, the last{best})"]


def _all_scores(record: Record) -> list[str]:
    """One line per split with every metric of the main variant; empty if that is only the primary score."""
    main = record.variant_names[-1] if record.variant_names else ""
    scores = {split: by_variant[main] for split, by_variant in record.scores.items() if main in by_variant}
    absent = record.facts.get("absent_metrics", {})
    if sum(map(len, scores.values())) < 2 and not absent:
        return []
    lines = [
        f"{split}: " + "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        for split, metrics in scores.items()
        if metrics
    ]
    return ["", *lines, *(f"{name} is absent: {reason}" for name, reason in absent.items())]


def _result_row(record: Record) -> tuple[str, ...]:
    params, cost = record.params, record.cost
    trainable = f"{params['trainable_percent']:.2f} % ({params['trainable']:,})" if params else "–"
    memory = f"{cost['peak_rss_bytes'] / 1e6:,.0f} MB" if "peak_rss_bytes" in cost else "–"
    names = (record.task, record.model, record.method, str(record.seed))
    return (*names, score_text(record), trainable, f"{seconds(record):.0f} s", memory)


def score_text(record: Record) -> str:
    """The primary score of the last epoch and, if it differs, of the best epoch."""
    primary = record.primary
    if "last" not in primary and "best" not in primary:
        return "–"
    last = f"{primary['last']:.2f}" if "last" in primary else "–"
    text = f"{primary['metric']} {last} ({primary['split']})"
    if "best" in primary and primary["best"] != primary.get("last"):
        text += f", best epoch {primary['best']:.2f}"
    return text
