"""The note of a suite's table about its learning-rate searches."""

from __future__ import annotations

import pytest
from made import record

from rosa_bench.errors import UsageError
from rosa_bench.tables.rate_searches import search_notes


def tuned(method, lr, last, suite="small", **more):
    """A finished run of a search that took 8 s."""
    made = record(method=method, **more)
    made.config |= {
        "train": {"lr": lr},
        "task": {"name": made.task, "tune_share": 0.1},
        "tracker": {"tags": [f"suite:{suite}", f"search:{method}"]},
    }
    made.data, made.scores = {"rows": {"train": 90, "tune": 10}, "sha256": {}}, {"tune": {}}
    made.primary = made.primary | {"last": last}
    return made


def test_the_note_names_the_rates_the_best_one_and_the_cost():
    lora = [tuned("lora", rate, score) for rate, score in [(1e-4, 10.0), (1e-3, 30.0), (1e-2, 20.0)]]
    full = [tuned("full", rate, score, rank=None) for rate, score in [(1e-4, 10.0), (1e-3, 30.0)]]
    searched = [*lora, *full, tuned("rosa", 0.5, 90.0, suite="another")]
    (note,) = search_notes(searched, "small", "last", finals=[lora[1], full[1]])
    assert note == (
        "Learning rates searched on 10% of the training rows of cola: full 0.001 (edge) of 0.0001, 0.001; "
        "lora r=8 0.001 of 0.0001, 0.001, 0.01 (5 runs, 40 s)."
    )


def test_a_search_without_final_runs_may_be_unfinished():
    searched = [tuned("lora", 1e-4, 10.0), tuned("lora", 1e-3, 30.0)]
    (note,) = search_notes(searched, "small", "last")
    assert "lora r=8 0.001 so far of 0.0001, 0.001 (" in note


def test_searches_on_other_rows_or_from_another_backbone_are_apart():
    own, other, random = (tuned("lora", 1e-3, score) for score in (30.0, 50.0, 10.0))
    other.data["sha256"] = {"train": "other"}
    random.config["model"] = {"random_init": True}
    notes = search_notes([own, other, random], "small", "last", finals=[own])
    assert len(notes) == 3 and all("of cola (" in note and "(1 run," in note for note in notes)


def test_a_search_without_scores_is_reported():
    (note,) = search_notes([tuned("lora", 1e-3, None), tuned("lora", 1e-2, None)], "small", "last")
    assert "lora r=8 none has a score of 0.001, 0.01" in note


def test_a_run_without_a_tracker_belongs_to_no_suite():
    made = tuned("lora", 1e-3, 30.0)
    del made.config["tracker"]
    assert search_notes([made], "small", "last") == []


def test_a_run_that_read_the_evaluation_split_is_refused():
    leaked = tuned("lora", 1e-3, 90.0)
    leaked.data["rows"]["validation"] = 100
    with pytest.raises(UsageError, match="has read the split validation"):
        search_notes([leaked], "small", "last")
