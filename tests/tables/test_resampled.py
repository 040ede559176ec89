"""Scores on resampled examples are the same from predictions and from an archive."""

from __future__ import annotations

import numpy as np
import pytest
import recorded
from keep_records import DECIMALS, all_resampled

from rosa_bench.core.task import Prediction
from rosa_bench.errors import UsageError
from rosa_bench.records.archive import read_archive, write_archive
from rosa_bench.records.collect import collect
from rosa_bench.records.predictions import prediction_row
from rosa_bench.system.files import write_json_lines_gz
from rosa_bench.tables.resampled import RESAMPLES, resampled_scores

EXAMPLES = 50


@pytest.fixture
def run(tmp_path):
    """The folder of one run of RTE, and which of its predictions are right."""
    right = np.random.default_rng(0).random(EXAMPLES) < 0.7
    score = 100 * float(right.mean())
    path = recorded.record(tmp_path / "runs", "task=rte", "method=lora", last=score)
    rows = [prediction_row(Prediction(str(i), int(ok), 1)) for i, ok in enumerate(right)]
    write_json_lines_gz(path.parent / "predictions-validation.jsonl.gz", rows)
    return path, right


def test_all_runs_share_the_resamples(run):
    path, right = run
    collection = collect([path.parent.parent])
    scores = resampled_scores(collection, collection.records[0], "")
    assert scores.shape == (RESAMPLES,) and abs(scores.mean() - 100 * right.mean()) < 2
    assert scores.std() == pytest.approx(100 * np.sqrt(right.mean() * (1 - right.mean()) / EXAMPLES), rel=0.15)
    assert (resampled_scores(collection, collection.records[0], "") == scores).all()


def test_an_archive_matches_the_predictions(run, tmp_path):
    path, _ = run
    live = collect([path.parent.parent])
    place = tmp_path / "small.jsonl.gz"
    write_archive(place, live.records, {}, {}, all_resampled(live, live.records))
    kept = collect([place])
    scores = [resampled_scores(c, c.records[0], "") for c in (live, kept)]
    assert scores[1] == pytest.approx(scores[0], abs=10**-DECIMALS)
    assert read_archive(place).resampled.keys() == {live.records[0].run_id}


def test_runs_without_predictions_cannot_be_resampled(run):
    path, _ = run
    (path.parent / "predictions-validation.jsonl.gz").unlink()
    collection = collect([path.parent.parent])
    assert resampled_scores(collection, collection.records[0], "") is None
    assert all_resampled(collection, collection.records) == {}


def test_predictions_that_contradict_the_score_are_refused(run):
    path, _ = run
    recorded.changed(
        path, scores={"validation": {"": {"accuracy": 12.0}}}, primary={"metric": "accuracy", "split": "validation"}
    )
    collection = collect([path.parent.parent])
    with pytest.raises(UsageError, match="does not give the accuracy"):
        resampled_scores(collection, collection.records[0], "")


def test_an_archive_with_non_numeric_scores_is_damaged(run, tmp_path):
    live = collect([run[0].parent.parent])
    place = tmp_path / "small.jsonl.gz"
    write_archive(place, live.records, {}, {}, {live.records[0].run_id: {"": ["1"]}})
    with pytest.raises(UsageError, match="resampled is not a list of numbers"):
        read_archive(place)


def test_a_copy_of_an_archived_run_needs_no_predictions_while_its_scores_are_the_same(run, tmp_path):
    path, _ = run
    live, place = collect([path.parent.parent]), tmp_path / "small.jsonl.gz"
    write_archive(place, live.records, {}, {}, all_resampled(live, live.records))
    (path.parent / "predictions-validation.jsonl.gz").unlink()
    both = collect([path.parent.parent, place])
    assert both.folder(both.records[0]) == path.parent and len(resampled_scores(both, both.records[0], "")) == RESAMPLES
    recorded.changed(
        path, scores={"validation": {"": {"accuracy": 12.0}}}, primary={"metric": "accuracy", "split": "validation"}
    )
    both = collect([path.parent.parent, place])
    assert resampled_scores(both, both.records[0], "") is None
    assert not both.resampled  # another record may get the id of the archived one
