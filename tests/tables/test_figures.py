"""Figures: closed-form numbers, gaps for missing values, reproducible bytes and legibility in grey."""

from __future__ import annotations

import builtins
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made import MEMORY, record

from rosa_bench.records.collect import Collection, collect
from rosa_bench.suite.rate_search import TAG
from rosa_bench.tables.convergence import reader
from rosa_bench.tables.figures import axes, figures
from rosa_bench.tables.figures.curves import curve_panels
from rosa_bench.tables.figures.series import (
    Line,
    Panel,
    Point,
    front,
    memory_panel,
    rank_panel,
    sheets,
    time_panel,
)
from rosa_bench.tables.figures.styles import DISTINCT, FIXED, look, looks


def found(folder: Path, *records, events=None) -> Collection:
    """Records written to a folder, with events by run name, and read back."""
    for made in records:
        made.key = made.run_id
        place = folder / made.run_id
        place.mkdir(parents=True)
        (place / "record.json").write_text(json.dumps(made.to_dict()), encoding="utf-8")
        if events and made.run_id in events:
            (place / "events.jsonl").write_text(events[made.run_id], encoding="utf-8")
    return collect([folder])


def groups(folder: Path, *records):
    return found(folder, *records).groups


def lines(panel: Panel) -> dict[str, list[tuple[float, tuple[float, ...]]]]:
    return {line.label: [(point.x, point.values) for point in line.points] for line in panel.lines}


FULL = {"_target_": "rosa_bench.methods.full.Full"}


def variants(last, **scores):
    """A record of one run that can be cut to several ranks."""
    own = {name: {"matthews": value} for name, value in scores.items()}
    settings = {"rank_min": 1, "rank_max": len(own)}
    return record(
        method="dylora",
        rank=None,
        last=last,
        settings=settings,
        variant_names=list(own),
        scores={"validation": own},
    )


# Numbers.


def test_a_point_has_a_mean_and_with_three_seeds_an_interval():
    point = Point(1, (50.0, 52.0, 57.0))
    assert point.mean == 53.0
    half = 4.302652729911275 * 13**0.5 / 3**0.5  # Student's factor of two degrees, sd = sqrt(13)
    assert point.bounds == pytest.approx((53 - half, 53 + half))
    assert Point(1, (50.0, 52.0)).bounds is None and Point(1, (50.0,) * 3).bounds is None


def test_rank_curves_of_runs_and_of_variants_and_levels_without_rank(tmp_path):
    panel = rank_panel(
        groups(
            tmp_path,
            record(rank=1, last=40.0),
            record(rank=4, last=44.0),
            record(rank=4, seed=2, last=46.0),
            variants(43.0, r1=41.0, r2=43.0),
            record(method="full", rank=None, last=60.0, settings=FULL),
            record(method="bitfit", rank=None, last=55.0),
            record(method="meft", rank=8, last=54.0),
        )
    )
    assert lines(panel) == {
        "lora": [(1, (40.0,)), (4, (44.0, 46.0))],
        "dylora": [(1, (41.0,)), (2, (43.0,))],
        "meft": [(8, (54.0,))],
        "full": [(0, (60.0,))],
    }
    assert {line.label for line in panel.lines if line.level} == {"full"} and figures.seeds(panel) == "n=1 to 2"


def truncated(seed, last, rank=8, **scores):
    """A run of LoRA that was also scored at lower ranks."""
    own = {name: {"matthews": value} for name, value in {**scores, f"r{rank}": last}.items()}
    more = {"variant_names": list(own), "scores": {"validation": own}, "settings": {"score_ranks": [1, 2]}}
    return record(seed=seed, last=last, rank=rank, **more)


def test_a_truncated_model_has_a_separate_line(tmp_path):
    ranks = [record(seed=s, rank=r, last=40.0 + r + s) for s in (1, 2) for r in (1, 2)]
    cut = [truncated(s, 50.0 + s, r1=30.0, r2=35.0) for s in (1, 2)]
    panel = rank_panel(groups(tmp_path, *ranks, *cut))
    assert lines(panel) == {
        "lora": [(1, (42.0, 43.0)), (2, (43.0, 44.0)), (8, (51.0, 52.0))],
        "lora truncated": [(1, (30.0, 30.0)), (2, (35.0, 35.0)), (8, (51.0, 52.0))],
    }
    assert [line.cut for line in panel.lines] == [False, True] and panel.left_out == 0


def test_ranks_whose_learning_rate_a_search_chose_share_a_curve(tmp_path):
    runs = [record(rank=rank, last=40.0 + rank) for rank in (1, 4)]
    for rate, run in zip((0.1, 0.2), runs, strict=True):
        run.config["train"]["lr"] = rate
    assert rank_panel(groups(tmp_path / "untuned", *runs)) is None
    for run in runs:
        run.config["tracker"] = {"tags": [f"{TAG}abc"]}
    assert lines(rank_panel(groups(tmp_path / "tuned", *runs))) == {"lora": [(1, (41.0,)), (4, (44.0,))]}
    other = [record(rank=4, last=49.0), record(rank=4, last=50.0, seed=2)]  # a rate that another search chose
    for run in other:
        run.config |= {"train": run.config["train"] | {"lr": 0.3}, "tracker": {"tags": [f"{TAG}def"]}}
        run.run_id += "-other"
    panel = rank_panel(groups(tmp_path / "twice", *runs, *other))
    assert lines(panel) == {"lora": [(1, (41.0,)), (4, (49.0, 50.0))]} and panel.left_out == 1


def test_runs_of_a_search_are_left_out_of_figures(tmp_path):
    run = record()
    run.config["task"]["tune_share"] = 0.1
    assert sheets(found(tmp_path, run)) == []


def test_the_spread_is_one_standard_deviation_on_both_sides():
    assert Point(1, (50.0, 52.0, 57.0)).spread == pytest.approx((53 - 13**0.5, 53 + 13**0.5))
    assert Point(1, (50.0,)).spread is None


def test_a_single_rank_makes_no_rank_curve(tmp_path):
    assert rank_panel(groups(tmp_path, record(rank=8), record(method="full", rank=None))) is None


def test_a_single_rank_is_a_point_beside_the_curves_of_other_methods(tmp_path):
    ranks = [record(method="rosa", rank=r, last=40.0 + r) for r in (1, 8)]
    panel = rank_panel(groups(tmp_path, *ranks, record(rank=8, last=50.0)))
    assert lines(panel) == {"rosa": [(1, (41.0,)), (8, (48.0,))], "lora": [(8, (50.0,))]} and panel.left_out == 0


def test_other_settings_are_not_mixed_into_a_curve(tmp_path):
    other = record(rank=2, last=90.0, run_id="other")
    other.config["train"]["lr"] = 0.2
    panel = rank_panel(groups(tmp_path, record(rank=1, last=40.0), record(rank=4, last=44.0), other))
    assert lines(panel) == {"lora": [(1, (40.0,)), (4, (44.0,))]} and panel.left_out == 1


def test_a_seed_without_a_score_leaves_those_of_the_others(tmp_path):
    unscored = record(seed=1, scores={"validation": {"": {}}}, primary={"metric": "matthews", "split": "validation"})
    (sheet,) = sheets(found(tmp_path, unscored, record(seed=2, last=52.0)))
    assert lines(memory_panel(sheet.tasks["cola"])) == {"lora r=8": [(10e6, (52.0,))]}


def test_an_unscored_variant_has_no_point(tmp_path):
    made = variants(43.0, r1=41.0, r2=43.0)
    made.variant_names.append("r3")
    assert [x for x, _ in lines(rank_panel(groups(tmp_path, made)))["dylora"]] == [1, 2]


def events(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def test_learning_curves_are_means_at_the_steps_that_all_seeds_have(tmp_path):
    first, second = record(seed=1), record(seed=2)
    own = {
        first.run_id: events(
            {"step": 5, "loss": 1.0},
            {"step": 10, "loss": 0.5},
            {"step": 10, "scores": {"validation": {"matthews": 30.0, "loss": 0.1}}},
        ),
        second.run_id: events({"step": 10, "loss": 0.7}, {"step": 10, "scores": {"validation": {"matthews": 32.0}}})
        + '{"step": 15, "lo',
    }
    collection = found(tmp_path, first, second, events=own)
    score, loss = curve_panels(collection.groups, reader(collection))
    assert lines(score) == {"lora r=8": [(10, (30.0, 32.0))]} and score.axis == "matthews, validation"
    assert lines(loss) == {"lora r=8": [(10, (0.5, 0.7))]} and loss.lines[0].points[0].mean == pytest.approx(0.6)


def test_the_loss_is_plotted_where_texts_are_scored_only_at_the_end(tmp_path):
    own = {record().run_id: events({"step": 3, "scores": {"validation": {"loss": 2.5}}})}
    collection = found(tmp_path, record(), events=own)
    score, loss = curve_panels(collection.groups, reader(collection))
    assert lines(score) == {"lora r=8": [(3, (2.5,))]} and score.axis == "loss, validation" and loss is None


@pytest.mark.parametrize("text", [None, "", "[1]\nnot json\n", '{"step": "x", "loss": 1}\n{"step": 1, "loss": null}\n'])
def test_without_events_there_is_no_curve(tmp_path, text):
    collection = found(tmp_path, record(), events=None if text is None else {record().run_id: text})
    assert curve_panels(collection.groups, reader(collection)) == (None, None)


def test_memory_is_the_sum_of_the_measured_parts(tmp_path):
    method = record(method="rosa", cost={"memory": MEMORY | {"method": 500_000}})
    panel = memory_panel(groups(tmp_path, record(last=50.0), record(seed=2, last=54.0), method))
    assert lines(panel) == {"lora r=8": [(10e6, (50.0, 54.0))], "rosa r=8": [(10.5e6, (50.0,))]}


@pytest.mark.parametrize("part", MEMORY)
def test_memory_with_a_missing_part_is_not_shown(tmp_path, part):
    cost = {"memory": {name: size for name, size in MEMORY.items() if name != part}}
    assert memory_panel(groups(tmp_path, record(cost=cost))) is None


def test_the_front_holds_undominated_points():
    points = [(3.0, 70.0), (1.0, 50.0), (2.0, 50.0), (2.5, 60.0), (4.0, 65.0), (1.0, 40.0)]
    assert [points[i] for i in front(points)] == [(1.0, 50.0), (2.5, 60.0), (3.0, 70.0)]
    assert [points[i] for i in front(points, higher_is_better=False)] == [(1.0, 40.0)]


def test_processor_and_clock_seconds_are_never_in_one_panel(tmp_path):
    gpu = record(method="rosa", env={"device": "A100"})
    runs = groups(tmp_path, record(seed=1), record(seed=2), gpu)
    cpu, clock = time_panel(runs, gpu=False), time_panel(runs, gpu=True)
    assert lines(cpu) == {"lora r=8": [(0, (11.0, 12.0))]} and cpu.devices == {"cpu (made)"}
    assert lines(clock) == {"rosa r=8": [(0, (8.0,))]} and clock.devices == {"A100"}


def test_an_unmeasured_time_is_left_out(tmp_path):
    old = record(cost={"train_s": 5.0, "method_s": 1.0, "eval_s": 2.0})
    part = record(method="rosa", env={"device": "A100"}, cost={"train_s": 5.0, "cpu_s": 3.0})
    unknown = record(method="full", env={})
    runs = groups(tmp_path, old, part, unknown)
    assert time_panel(runs, gpu=False) is None and time_panel(runs, gpu=True) is None


def test_the_setting_with_the_most_seeds_is_shown(tmp_path):
    few = record(seed=1, last=90.0, run_id="a")
    few.config["train"]["lr"] = 0.2
    panel = memory_panel(groups(tmp_path, few, record(seed=1, last=50.0), record(seed=2, last=52.0)))
    assert lines(panel) == {"lora r=8": [(10e6, (50.0, 52.0))]} and panel.left_out == 1


def test_backbones_sources_and_random_weights_have_separate_figures(tmp_path):
    random = record(run_id="random")
    random.config["model"]["random_init"] = True
    other = record(run_id="local", data={"source": "local", "sha256": {}})
    made = sheets(found(tmp_path, record(), record(seed=2), random, other))
    assert [(s.model, s.source) for s in made] == [("m", "embedded v1"), ("m", "local"), ("m (random)", "embedded v1")]


# Looks.

CLAIMED = {f"claims {number}": number for number in range(FIXED)}


def test_every_method_is_distinguishable_in_grey():
    every = [look(number) for number in range(DISTINCT)]
    assert len({(one.marker, one.dash) for one in every}) == DISTINCT
    assert len({one.marker for one in every[:FIXED]}) == FIXED
    many = looks(CLAIMED | {f"method{i}": None for i in range(DISTINCT - FIXED)})
    assert len({(one.marker, one.dash) for one in many.values()}) == DISTINCT


def test_a_method_looks_the_same_in_any_company():
    assert looks({"rosa": 2, "lora": 1})["lora"] == looks({"lora": 1, "new": None, "full": 0})["lora"]
    assert looks({"new": None})["new"] == looks({"lora": 1, "new": None, "full": 0})["new"]
    assert len(looks({f"m{i}": None for i in range(200)})) == 200


# Drawings.


def test_overlapping_names_are_moved_apart():
    assert axes.apart([0.1, 0.5, 0.9], gap=0.1) == [0.1, 0.5, 0.9]
    moved = axes.apart([0.5, 0.5, 0.55, 0.99, 1.0], gap=0.1)
    assert moved[-1] == 1.0 and all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(moved))
    assert axes.apart([]) == []


def panel_of(*names):
    return Panel("t", "score", tuple(Line(name, name, (Point(1, (1.0,)), Point(2, (2.0,)))) for name in names))


def test_few_lines_are_named_at_their_ends_and_many_in_a_legend_by_group():
    kind = figures.kinds(None)["rank"]
    few, many = panel_of("a", "b"), panel_of(*(f"m{i}" for i in range(figures.DIRECT + 1)))
    assert figures.named_directly(kind, [few]) and not figures.named_directly(kind, [few, many])
    groups = {line.method: "other" for line in many.lines} | {"m0": "paper", "m1": "baseline"}
    columns = figures.legend_columns([many], groups)
    assert [column[0] for column in columns] == [
        ("", "Methods of the papers"), ("", "Baselines"), ("", "Other methods"), ("", "")
    ]  # fmt: skip
    assert [name for column in columns for name, _ in column if name] == [line.method for line in many.lines]
    assert max(map(len, columns)) <= figures.LEGEND + 1
    axis = Recorded()
    axes.name_lines(axis, many, {}, False)
    assert not axis.calls


class Recorded:
    """Replaces matplotlib's axes and records the calls."""

    xaxis = yaxis = property(lambda self: self)

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **options):
            self.calls.append((name, args, options))
            return self

        return call

    def all(self, name):
        return [(args, options) for called, args, options in self.calls if called == name]


def test_lines_of_a_panel_differ_in_marker_and_dash():
    panel = Panel("t", "score", tuple(Line(m, m, (Point(1, (1.0,)), Point(2, (2.0,)))) for m in CLAIMED))
    axis = Recorded()
    axes.ranks(axis, panel, looks(CLAIMED))
    drawn = [options for _, options in axis.all("plot")]
    assert len({options["marker"] for options in drawn}) == FIXED
    assert len({(options["marker"], options["linestyle"]) for options in drawn}) == FIXED
    assert axis.all("set_xscale") == [(("log",), {"base": 2})]


@pytest.mark.parametrize(
    ("known", "shown"), [([1, 2, 3, 4, 5, 8], [1, 2, 4, 8]), ([1, 4, 6], [1, 4, 6]), ([3, 6], [3, 6]), ([8], [8])]
)
def test_ranks_are_named_at_powers_of_two(known, shown):
    assert axes.named(known) == shown


def test_the_ratio_to_a_baseline_is_the_ratio_of_means():
    panel = Panel(
        "t", "s", (Line("lora", "lora r=8", (Point(0, (10.0, 14.0)),)), Line("full", "full", (Point(0, (18.0,)),)))
    )
    axis = Recorded()
    axes.times("lora")(axis, panel, looks({"lora": 1, "full": 0}))
    assert [args[2] for args, _ in axis.all("text")] == ["×1", "×1.50"]
    alone = Recorded()
    axes.times(None)(alone, panel, looks({"lora": 1, "full": 0}))
    assert not alone.all("text")


def many(folder):
    made = [
        record(task, m, s, 50.0 + s, r)
        for task in ("cola", "sst2")
        for m in ("lora", "new$_m")
        for s in (1, 2, 3)
        for r in (1, 4)
    ]
    made += [variants(43.0, r1=41.0, r2=43.0), record(method="full", rank=None, settings=FULL)]
    text = events({"step": 5, "loss": 1.0}, {"step": 5, "scores": {"validation": {"matthews": 30.0}}})
    return found(folder, *made, events={one.run_id: text for one in made})


def test_all_figures_are_drawn_with_captions_and_labels(tmp_path):
    pytest.importorskip("matplotlib")
    drawn, left = figures.draw(many(tmp_path / "runs"), tmp_path / "out", "lora")
    assert left == []
    kinds = ["rank", "learning", "loss", "memory", "time_cpu"]
    assert [plot.png.name for plot in drawn] == [f"{kind}-m-embedded_v1.png" for kind in kinds]
    for plot in drawn:
        assert plot.png.read_bytes().startswith(b"\x89PNG")
        assert plot.png.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert plot.caption and plot.alt
    assert "full 50" in drawn[0].alt and "new$_m 52 at 1 to 52 at 4" in drawn[0].alt
    assert "Run on cpu (made)." in drawn[-1].caption
    assert len(list((tmp_path / "out").iterdir())) == 10


def test_the_same_records_give_the_same_bytes_in_another_process(tmp_path):
    pytest.importorskip("matplotlib")
    many(tmp_path / "runs")
    code = (
        "import sys; from pathlib import Path;"
        "from rosa_bench.records import collect; from rosa_bench.tables.figures import figures;"
        "figures.draw(collect.collect([Path(sys.argv[1])]), Path(sys.argv[2]), 'lora')"
    )
    for name in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": name, "PYTHONPATH": os.pathsep.join(sys.path)}
        arguments = [sys.executable, "-c", code, str(tmp_path / "runs"), str(tmp_path / name)]
        subprocess.run(arguments, check=True, timeout=300, env=environment)
    first = {path.name: path.read_bytes() for path in (tmp_path / "1").iterdir()}
    assert len(first) == 10 and first == {path.name: path.read_bytes() for path in (tmp_path / "2").iterdir()}


def test_without_matplotlib_one_line_explains_how_to_install_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    drawn, (line,) = figures.draw(found(tmp_path, record()), tmp_path / "out")
    assert drawn == [] and "pip install" in line and "\n" not in line


def test_the_caption_explains_a_factor_only_where_there_is_one(tmp_path):
    pytest.importorskip("matplotlib")
    made = record(), record(method="full", model="other")
    drawn, _ = figures.draw(found(tmp_path / "runs", *made), tmp_path / "out", "lora")
    captions = {plot.png.name: plot.caption for plot in drawn}
    assert "seeds; the factor on the right is the ratio to lora (×1)." in captions["time_cpu-m-embedded_v1.png"]
    assert "factor" not in captions["time_cpu-other-embedded_v1.png"]


def test_similar_names_of_models_do_not_share_a_file(tmp_path):
    pytest.importorskip("matplotlib")
    made = [record(model=model, run_id=model) for model in ("a-b", "a_b", "a b")]
    for run in made:
        run.config["model"]["name"] = run.model
    drawn, _ = figures.draw(found(tmp_path / "runs", *made), tmp_path / "out")
    names = [plot.png.name for plot in drawn]
    assert len(drawn) == 6 == len(set(names)) and "memory-a_b-embedded_v1.png" in names


def test_figures_beyond_the_caps_are_named(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(figures, "PANELS", 1)
    monkeypatch.setattr(figures, "LINES", 1)
    monkeypatch.setattr(figures, "ALL", 1)
    other = record(run_id="local", data={"source": "local", "sha256": {}})
    made = record(), record(seed=2), record("sst2"), record(method="rosa"), other
    drawn, left = figures.draw(found(tmp_path / "runs", *made), tmp_path / "out")
    assert [plot.png.name for plot in drawn] == ["memory-m-embedded_v1.png", "time_cpu-m-embedded_v1.png"]
    assert "Not shown: sst2." in drawn[0].caption and "Settings not shown: 1." in drawn[0].caption
    assert left == ["not drawn, since others have more runs: m on local"]


def test_no_record_gives_no_figure(tmp_path):
    assert figures.draw(found(tmp_path / "runs"), tmp_path / "out") == ([], [])
