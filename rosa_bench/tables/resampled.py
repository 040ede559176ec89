"""Scores of a run on resampled examples, which give the variance over examples of any comparison.

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
from rosa_bench.stats.bootstrap import NoStatisticError, draws
from rosa_bench.stats.summary import Numbers
from rosa_bench.tables.against_baseline import SAME, predictions_file, subset_of
from rosa_bench.tables.paired_tests import task_of

RESAMPLES = 200


def resampled_scores(collection: Collection, record: Record, variant: str) -> Numbers | None:
    """Primary scores [R] of a variant on the resamples that all runs with this number of examples share.

    None if neither an archive nor predictions have them; 0 where a score is undefined.

    Raises:
        UsageError: if the predictions are damaged or do not give the score in the record; names the file.
    """
    stored = collection.resampled.get(id(record), {}).get(variant)
    if stored is not None:
        return np.asarray(stored, dtype=np.float64)
    metric, split = record.primary["metric"], record.primary.get("split", "")
    path = predictions_file(collection, record, split, variant)
    if not path.is_file():
        return None
    predictions = read_predictions(path, record.seed, subset_of(split, record))
    try:
        statistic = predictions.statistic(task_of(record.config), metric)
    except NoStatisticError:
        return None
    if not math.isclose(statistic.score, record.scores[split][variant].get(metric, math.nan), rel_tol=SAME):
        raise UsageError(f"{path} does not give the {metric} in the record of its run")
    scores = [statistic.resampled(counts) for counts in draws(statistic.examples, RESAMPLES)]
    return np.nan_to_num(np.concatenate(scores))
