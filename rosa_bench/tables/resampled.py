"""Scores of a run on resampled examples, from which the variance of any comparison over examples follows.

All runs of a task are scored on the same resamples, so their values can be averaged and subtracted resample by
resample. An archive stores them next to the records, since predictions stay in the folders of the runs.
"""

from __future__ import annotations

import math

import numpy as np

from rosa_bench.errors import UsageError
from rosa_bench.records.collect import Collection
from rosa_bench.records.predictions import read_predictions
from rosa_bench.records.record import Record
from rosa_bench.stats.bootstrap import NoStatisticError, Statistic, draws
from rosa_bench.stats.summary import Numbers
from rosa_bench.tables.against_baseline import SAME, file_split, subset_of
from rosa_bench.tables.paired_tests import task_of

RESAMPLES = 200


def resampled(statistic: Statistic, resamples: int = RESAMPLES) -> Numbers:
    """Scores [R] of the resamples that every run with this number of examples shares; 0 where one is undefined."""
    scores = [statistic.resampled(counts) for counts in draws(statistic.examples, resamples)]
    return np.nan_to_num(np.concatenate(scores))


def resampled_scores(collection: Collection, record: Record, variant: str) -> Numbers | None:
    """Primary scores of a variant on the resamples; None if neither an archive nor predictions have them.

    Raises:
        UsageError: if the predictions are damaged or do not give the score in the record; names the file.
    """
    stored = collection.resampled.get(id(record), {}).get(variant)
    if stored is not None:
        return np.asarray(stored, dtype=np.float64)
    metric, split = record.primary["metric"], record.primary.get("split", "")
    name = f"predictions-{file_split(split, record)}" + (f"-{variant}" if variant else "") + ".jsonl.gz"
    path = collection.folder(record) / name
    if not path.is_file():
        return None
    try:
        statistic = read_predictions(path, record.seed, subset_of(split, record)).statistic(
            task_of(record.config), metric
        )
    except NoStatisticError:
        return None
    if not math.isclose(statistic.score, record.scores[split][variant].get(metric, math.nan), rel_tol=SAME):
        raise UsageError(f"{path} does not give the {metric} in the record of its run")
    return resampled(statistic)
