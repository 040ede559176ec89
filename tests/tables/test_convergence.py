"""A cell whose last epoch gained more than the spread over its seeds is marked, unless the evidence is missing."""

from __future__ import annotations

import csv
import statistics

import pytest
from made import COLA, MSE, grid, place, record

from rosa_bench.tables.convergence import gain, with_gains
from rosa_bench.tables.formats import long_csv, markdown
from rosa_bench.tables.grid import Column
from rosa_bench.tables.latex import latex


def curves(values, metric="matthews", split="validation"):
    """A reader of events with the scores of each seed's epochs."""

    def read(made):
        scores = [{"step": 10 * i, "scores": {split: {metric: v}}} for i, v in enumerate(values[made.seed - 1], 1)]
        return [{"step": 5, "loss": 1.0}, *scores]

    return read


def test_gain_is_the_mean_over_seeds_and_spread_is_taken_from_the_last_score():
    made = gain(place(52.0, 55.0), COLA, curves([[30.0, 50.0, 52.0], [31.0, 51.0, 55.0]]))
    assert made.gain == 3.0 and made.sd == pytest.approx(statistics.stdev([52.0, 55.0])) and made.improving


def test_a_gain_within_the_spread_is_not_marked():
    assert not gain(place(52.0, 58.0), COLA, curves([[50.0, 52.0], [56.0, 58.0]])).improving


def test_a_decrease_is_a_gain_where_lower_is_better():
    falls, rises = [[3.0, 1.0], [3.1, 1.1]], [[1.0, 3.0], [1.1, 3.1]]
    assert gain(place(1.0, 1.1), MSE, curves(falls, "mse", "train")).gain == pytest.approx(2.0)
    assert not gain(place(3.0, 3.1), MSE, curves(rises, "mse", "train")).improving


@pytest.mark.parametrize("values", [[[50.0], [51.0]], [[40.0, 50.0], [51.0]], [[], []]])
def test_one_evaluation_or_one_seed_is_not_judged(values):
    assert gain(place(50.0, 51.0), COLA, curves(values)) is None
    assert gain(place(50.0), COLA, curves([[1.0, 50.0]])) is None


def test_an_undefined_score_at_the_last_two_epochs_leaves_a_seed_out():
    whole, collapsed, gap = [[30.0, 40.0, 42.0], [31.0, 41.0, 43.0]], [10.0, 40.0, None], [40.0, None, 42.0]
    assert gain(place(1.0, 1.0, 1.0, 1.0), COLA, curves([*whole, collapsed, gap])).gain == 2.0
    assert gain(place(1.0, 1.0, 1.0), COLA, curves([whole[0], collapsed, gap])) is None


def test_the_selecting_metric_is_judged_where_epochs_are_scored_otherwise():
    bleu = Column("e2e", "bleu", "test")
    primary = {"metric": "bleu", "split": "test", "higher_is_better": True, "selected_by": "loss on validation"}
    runs = tuple(record("e2e", seed=seed, primary=primary) for seed in (1, 2))
    made = gain(place(20.0, 21.0, records=runs), bleu, curves([[2.0, 1.5], [2.1, 1.7]], "loss"))
    assert (made.metric, made.split) == ("loss", "validation") and made.gain == pytest.approx(0.45) and made.improving


def test_a_variant_other_than_the_main_one_has_no_curve():
    runs = tuple(record(seed=seed, variant_names=["r1", "r2"]) for seed in (1, 2))
    read = curves([[1.0, 9.0], [1.0, 9.1]])
    assert gain(place(9.0, 9.1, records=runs, variant="r1"), COLA, read) is None
    assert gain(place(9.0, 9.1, records=runs, variant="r2"), COLA, read).improving


def test_every_format_shows_and_explains_the_mark():
    def read(made):
        return curves([[40.0, 50.0], [41.0, 51.0]])(made) if made.seed < 3 else []

    alone = place(50.0, records=(record(seed=3),))
    table = with_gains(grid(("rising", place(50.0, 51.0)), ("unknown", alone)), read)
    text = markdown(table)
    assert "50.50 ± 0.71 ↗ |" in text and text.count("↗ |") == 1
    assert "↗ still improving: the last epoch gained more than the standard deviation over seeds (1 of 1 cell)." in text
    assert "1 cell cannot be judged" in text
    assert r"50.50 $\pm$ 0.71 $\nearrow$" in latex(table) and "still improving" in latex(table)
    lines = [line for line in csv.DictReader(long_csv(table).splitlines()) if line["epoch"] == "last"]
    assert [(line["last_gain"], line["still_improving"]) for line in lines] == [("10.0", "true"), ("", "")]


def test_no_note_without_evidence():
    table = with_gains(grid(("a", place(50.0, 51.0))), lambda made: [])
    assert "improving" not in markdown(table) + latex(table)
