"""Verdicts on records made by hand: what is compared, what is missing, and what can not be decided."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from simulated import World, claim

from rosa_bench.errors import UsageError
from rosa_bench.records.collect import Collection
from rosa_bench.stats.effects import Region
from rosa_bench.suite import plan
from rosa_bench.suite.claims import Claim, Comparison
from rosa_bench.tables.claims import wording
from rosa_bench.tables.claims.judge import Judge, Result, Verdict, claims_of, judge_suite, judged

FULL, LORA, DYLORA = {"method": "full"}, {"method": "lora"}, {"method": "dylora", "variant": "any"}
SUITE = plan.Suite(
    title="small",
    name="small",
    seeds=[1, 2, 3],
    cells=[
        plan.Block(run={"method": "full"}, tasks={"cola": {}, "rte": {}}),
        plan.Block(run={"method": "lora", "method.rank": [2, 4]}, tasks={"cola": {}, "rte": {}}),
        plan.Block(run={"method": "dylora", "method.rank_max": 4}, tasks={"cola": {}}),
    ],
)
WORLD = World(SUITE, [], {"full": 10}, examples=1000)


@pytest.fixture
def runs() -> Collection:
    return WORLD.collection(0)


def results(runs: Collection, comparison: Comparison) -> list[Result]:
    return Judge(runs, WORLD.planned).results(comparison)


def verdict(runs: Collection, *tests: Comparison, given: tuple[Comparison, ...] = ()) -> Verdict:
    (found,) = judged(Judge(runs, WORLD.planned), [claim("it", *tests, given=given)])
    return found


def score(record, variant: str = "") -> float:
    return record.scores["validation"][variant]["accuracy"]


def of(runs: Collection, method: str, task: str, **options) -> dict[int, float]:
    return {
        r.seed: score(r)
        for r in runs.records
        if (r.method, r.task) == (method, task) and options.items() <= r.config["method"].items()
    }


def test_scores_are_subtracted_by_seed_and_averaged_over_ranks_and_tasks(runs):
    (found,) = results(runs, Comparison(ours=FULL, theirs=LORA, above=0))
    tasks = [
        np.mean(
            [
                of(runs, "full", task)[s] - np.mean([of(runs, "lora", task, rank=r)[s] for r in (2, 4)])
                for s in (1, 2, 3)
            ]
        )
        for task in ("cola", "rte")
    ]
    assert found.effect.value == pytest.approx(np.mean(tasks)) and len(found.records) == 18
    assert [e.value for e in found.tasks.values()] == pytest.approx(tasks)


def test_models_are_compared_at_equal_ranks_on_tasks_that_both_have(runs):
    each = results(runs, Comparison(ours=DYLORA, theirs=LORA, by="rank", each=True, above=0))
    dylora = [r for r in runs.records if r.method == "dylora"]
    assert [r.rank for r in each] == [2, 4] and all([*r.tasks] == ["cola"] for r in each)
    expected = [np.mean([score(r, f"r{k}") - of(runs, "lora", "cola", rank=k)[r.seed] for r in dylora]) for k in (2, 4)]
    assert [r.effect.value for r in each] == pytest.approx(expected)
    (mean,) = results(runs, Comparison(ours=DYLORA, theirs=LORA, by="rank", above=0))
    assert mean.effect.value == pytest.approx(np.mean(expected))


def test_the_variance_over_examples_is_that_of_the_mean_difference(runs):
    (found,) = results(runs, Comparison(ours={**FULL, "task": "cola"}, theirs={**LORA, "rank": 4}, above=0))
    groups = [
        np.mean(
            [runs.resampled[id(r)][""] for r in runs.records if r.task == "cola" and r.method == m and rank(r) == k], 0
        )
        for m, k in (("full", None), ("lora", 4))
    ]
    assert found.effect.examples == pytest.approx(np.var(groups[0] - groups[1], ddof=1))


def rank(record) -> int | None:
    return record.config["method"].get("rank")


def test_times_of_a_side_are_added_up_and_divided(runs):
    (found,) = results(runs, Comparison(ours=LORA, theirs=FULL, measure="seconds", above=1))
    times = {(r.method, rank(r), r.task, r.seed): r.cost["cpu_s"] for r in runs.records}
    ratios = [
        np.log((times["lora", 2, task, s] + times["lora", 4, task, s]) / times["full", None, task, s])
        for task in ("cola", "rte")
        for s in (1, 2, 3)
    ]
    assert found.effect.value == pytest.approx(np.mean(ratios)) and found.region == Region(above=0.0)
    assert found.effect.examples == 0


def test_a_missing_run_leaves_a_claim_undecided_and_is_counted_once(runs):
    tests = (Comparison(ours=FULL, theirs=LORA, above=0), Comparison(ours=LORA, theirs=FULL, below=0))
    runs.groups = [g for g in runs.groups if (g.first.method, g.first.task, g.first.seed) != ("full", "rte", 2)]
    found = verdict(runs, *tests)
    assert (found.word, found.reason) == ("undecided", "1 of 18 runs missing")
    assert all(r.effect is None for r in found.results)


def test_a_task_without_any_run_is_left_out_and_the_title_says_so(runs):
    better = claim("it", Comparison(ours=FULL, theirs=LORA, above=0))
    suite = dataclasses.replace(SUITE, claims=[better])
    assert judge_suite(runs, suite)[0] == "small"
    cola = [group for group in runs.groups if group.first.task == "cola"]
    one_more = next(group for group in runs.groups if group.first.task == "rte")
    runs.groups = cola
    title, (found,) = judge_suite(runs, suite)
    (both,) = judged(Judge(runs, WORLD.planned), [better])
    assert title == "small, so far cola" and both.word == "undecided"
    assert found.word == "holds" and [*found.results[0].tasks] == ["cola"]
    runs.groups = [*cola, one_more]
    title, (found,) = judge_suite(runs, suite)
    assert (title, found.word, found.reason) == ("small", "undecided", "8 of 18 runs missing")


BY_SEARCH = "suite:small", "cell:12345678", "search:12345678"


def with_rate(config, lr: float, *tags: str):
    train, tracker = {**config["train"], "lr": lr}, {**config["tracker"], "tags": list(tags)}
    return {**config, "train": train, "tracker": tracker}


def test_runs_of_a_suite_at_the_rate_that_its_search_chose_are_found():
    suite = dataclasses.replace(SUITE, cells=[dataclasses.replace(SUITE.cells[1], search=[1e-3, 3e-3])])
    cells = plan.plan(suite)
    world = World(suite, [], {}, examples=100)
    assert len(world.planned) == sum(not cell.is_tuning for cell in cells) < len(cells)
    runs = world.collection(0)
    tests = [Comparison(ours={"method": "lora", "rank": 2}, theirs={"method": "lora", "rank": 4}, above=0)]

    def reason() -> str:
        return judged(Judge(runs, world.planned, "small"), [claim("it", *tests)])[0].reason

    for tags in (
        (),
        BY_SEARCH[:2],
    ):  # by hand, also as an override of the suite, at a rate that the search did not choose
        for record in runs.records:
            record.config = with_rate(record.config, 0.003, *tags)
        assert reason() == "12 of 12 runs missing"
    for record in runs.records[3:]:
        record.config = with_rate(record.config, 0.003, *BY_SEARCH)
    assert reason() == "3 of 12 runs missing"
    for record in runs.records[:3]:
        record.config = with_rate(record.config, 0.003, *BY_SEARCH)
    assert "missing" not in reason()
    runs.records[0].config = with_rate(runs.records[0].config, 0.001, *BY_SEARCH)
    assert reason() == "cola: seeds of a cell at different learning rates"


def test_costs_are_added_up_on_tasks_with_every_rank():
    more = {"method": "full", "task": "qnli"}, {"method": "lora", "method.rank": 2, "task": "qnli"}
    cells = [*SUITE.cells, *(plan.Block(run=run) for run in more)]
    world = World(dataclasses.replace(SUITE, cells=cells), [], {}, examples=100)
    judge = Judge(world.collection(0), world.planned)
    by_measure = [
        judge.results(Comparison(ours=LORA, theirs=FULL, measure=m, above=1))[0] for m in ("seconds", "latency")
    ]
    assert [[*result.tasks] for result in by_measure] == [["cola", "rte"], ["cola", "rte", "qnli"]]


def test_a_suite_without_the_cells_of_a_claim_says_so(runs):
    found = verdict(runs, Comparison(ours={"method": "rosa"}, theirs={"method": "lora", "method.rank": 4}, above=0))
    assert found.reason == "the suite has no cells for rosa and lora method.rank 4"


def test_a_claim_holds_if_all_its_comparisons_do_and_fails_with_one(runs):
    better, worse = Comparison(ours=FULL, theirs=LORA, above=0), Comparison(ours=LORA, theirs=FULL, above=0)
    assert verdict(runs, better).word == "holds" and verdict(runs, worse).word == "does not hold"
    both = verdict(runs, better, worse)
    assert both.word == "does not hold" and both.deciding.comparison == worse
    given = verdict(runs, better, given=(worse,))
    assert given.word == "undecided" and "do not show that the score of lora − full is above 0" in given.reason


def test_a_task_that_does_not_meet_a_condition_is_left_out():
    condition = Comparison(ours=FULL, theirs={"method": "head"}, above=2)
    equal = Comparison(ours=LORA, theirs=FULL, above=-2)
    cells = [plan.Block(run={"method": ["full", "head", "lora"]}, tasks={"cola": {}, "rte": {}, "qnli": {}})]
    suite = dataclasses.replace(SUITE, cells=cells)
    learns = {("full", "cola"): 20.0, ("full", "qnli"): 20.0, ("head", "cola"): -5.0, ("head", "qnli"): -5.0}

    def judge(**effects) -> tuple[Verdict, Judge]:
        world = World(suite, [], learns | effects.pop("more", {}))
        judge = Judge(world.collection(0), world.planned)
        (found,) = judged(judge, [claim("it", equal, given=(condition,))])
        return found, judge

    found, _ = judge()
    assert found.left_out == ("rte",) and [*found.results[0].tasks] == [*found.given[0].tasks] == ["cola", "qnli"]
    assert found.word == "does not hold" and wording.verdict_text(found) == "does not hold (without rte)"
    assert any("left out: rte" in line for line in wording.test_lines(found))
    found, _ = judge(more={("full", "rte"): 20.0, ("head", "rte"): -5.0})
    assert found.left_out == () and [*found.results[0].tasks] == ["cola", "rte", "qnli"]
    nothing = dict.fromkeys(learns, 0.0)
    found, _ = judge(more=nothing)  # all tasks fail: none is left out, and the condition decides
    assert found.left_out == () and "do not show that" in found.reason
    _, seen = judge()
    only = dataclasses.replace(equal, ours={"method": "lora", "task": "rte"}, theirs={"method": "full", "task": "rte"})
    (found,) = judged(seen, [claim("it", only, given=(condition,))])  # nothing else could decide
    assert found.left_out == () and [*found.results[0].tasks] == ["rte"]


def test_equal_scores_of_all_seeds_do_not_meet_a_condition(runs):
    condition = Comparison(ours=FULL, theirs=LORA, above=0)
    for record in runs.records:
        if (record.method, record.task) == ("full", "rte"):
            record.scores["validation"][""]["accuracy"] = 50.0
        elif (record.method, record.task) == ("lora", "rte"):
            record.scores["validation"][""]["accuracy"] = 40.0
    found = verdict(runs, condition, given=(condition,))
    assert found.left_out == ("rte",) and found.word == "holds"
    assert verdict(runs, condition).reason == "rte: every seed has the same score"
    runs.groups = [
        group for group in runs.groups if not {("full", "rte")} & {(r.method, r.task) for r in group.all_records}
    ]
    assert "3 of " in verdict(runs, condition, given=(condition,)).reason  # missing runs are never left out


def test_more_claims_need_more_evidence(runs):
    (found,) = results(runs, Comparison(ours=FULL, theirs=LORA, above=0))
    one = Comparison(ours=FULL, theirs=LORA, above=found.effect.value - found.effect.half_width(0.02))
    alone = judged(Judge(runs, WORLD.planned), [claim("it", one)])[0]
    among = judged(
        Judge(runs, WORLD.planned), [claim("it", one), *[claim("no", Comparison(ours=FULL, above=90))] * 19]
    )[0]
    assert (alone.p_holds, among.p_holds) == pytest.approx((0.02, 0.4), rel=1e-4)
    assert (alone.word, among.reason) == ("holds", "only without Holm's correction")


def test_runs_from_different_backbones_are_not_compared(runs):
    for record in runs.records:
        record.facts["backbone_hash"] = "one"
    comparison = Comparison(ours=FULL, theirs=LORA, above=0)
    assert verdict(runs, comparison).word == "holds"
    next(record for record in runs.records if record.task == "rte").facts["backbone_hash"] = "other"
    assert verdict(runs, comparison).reason == "rte: runs from different backbones"


def test_runs_on_different_rows_are_not_compared(runs):
    next(r for r in runs.records if r.task == "rte").data = {"sha256": {"validation": "other"}}
    assert verdict(runs, Comparison(ours=FULL, theirs=LORA, above=0)).reason == "rte: runs on different rows"


@pytest.mark.parametrize(
    ("released", "others", "holds"), [(True, 18, True), (False, 18, False), (False, 4, True)], ids=str
)
def test_of_runs_on_several_rows_those_on_the_release_count_then_the_most(released, others, holds, runs):
    """Runs of the same cells on other rows, on which LoRA is better, precede and outlast those of the suite."""
    for record in runs.records:
        record.data = {"sha256": {"train": f"the {record.task}"}, "released": {"train": released}}
    foreign = copy.deepcopy(runs.groups)[:others]
    for group, old in zip(foreign, runs.groups, strict=False):
        (record,) = group.records.values()
        record.data = {"sha256": {"train": f"own {record.task}"}, "released": {"train": False}}
        record.scores["validation"][""] = {"accuracy": 10 + record.seed + (50 if record.method == "lora" else 0)}
        runs.resampled[id(record)] = runs.resampled[id(*old.records.values())]
    runs.groups[:0] = foreign
    assert (verdict(runs, Comparison(ours=FULL, theirs=LORA, above=0)).word == "holds") == holds


def test_runs_on_the_rows_of_the_named_folder_come_first(runs):
    foreign = copy.deepcopy(runs.groups)
    for group in foreign:
        (record,) = group.records.values()
        record.data = {"sha256": {"train": "own"}}
        record.config["data"]["dir"] = "mine"
    runs.groups += foreign
    planned = [dataclasses.replace(m, config={**m.config, "data": {"dir": "mine"}}) for m in WORLD.planned]
    judge = Judge(runs, planned)
    assert {id(record) for record in judge.runs.values()} == {id(*group.records.values()) for group in foreign}


def test_a_run_that_starts_from_another_is_found_by_task_and_method_of_that_run():
    first = plan.Block(run={"method": "lora"}, tasks={"mnli": {}})
    second = plan.Block(run={"method": "lora", "start": {"task": "mnli"}}, tasks={"rte": {}})
    world = World(dataclasses.replace(SUITE, cells=[first, second]), [], {}, examples=100)
    runs = world.collection(0)
    for record in (record for record in runs.records if record.task == "rte"):
        record.facts["start"] = {"task": "mnli", "method": "lora"}
        record.config = {**record.config, "start": f"mnli-lora-s{record.seed}"}
    above = claim("it", Comparison(ours={"task": "rte"}, above=-1))
    assert judged(Judge(runs, world.planned), [above])[0].word == "holds"
    for record in runs.records:
        record.facts.clear()
        record.config = {**record.config, "start": None}
    assert judged(Judge(runs, world.planned), [above])[0].reason == "3 of 3 runs missing"


def test_runs_of_a_random_backbone_are_not_those_of_the_suite(runs):
    for record in (r for r in runs.records if r.method == "full" and r.task == "rte"):
        record.config = {**record.config, "model": {**record.config["model"], "random_init": True}}
    assert verdict(runs, Comparison(ours=FULL, theirs=LORA, above=0)).reason == "3 of 18 runs missing"


def test_times_on_different_devices_are_not_compared(runs):
    for record in (r for r in runs.records if r.method == "full"):
        record.env, record.cost = {"device": "cuda"}, {"train_s": 1.0, "method_s": 0.0, "eval_s": 1.0}
    found = verdict(runs, Comparison(ours=FULL, theirs=LORA, measure="seconds", below=1))
    assert found.reason == "cola: times on different devices"


def test_memory_with_and_without_a_gpu_is_not_compared(runs):
    for record in (r for r in runs.records if r.method == "full"):
        record.env = {"device": "cuda"}
    found = verdict(runs, Comparison(ours=FULL, theirs=LORA, measure="activations", below=1))
    assert found.reason == "cola: bytes of activations with and without a GPU"


@pytest.mark.parametrize("measure", ["score", "seconds"])
def test_only_seeds_that_every_rank_has_are_compared(measure):
    more = {"method": ["lora", "rosa"], "method.rank": 4, "seed": [1, 2, 3, 4, 5]}, {"method": "rosa", "method.rank": 2}
    cells = [plan.Block(run=run, tasks={"cola": {}}) for run in (*more, {"method": "lora", "method.rank": 2})]
    world = World(dataclasses.replace(SUITE, cells=cells), [], {}, examples=100)
    comparison = Comparison(ours=LORA, theirs={"method": "rosa"}, by="rank", measure=measure, above=0.5)
    runs = world.collection(0)
    (found,) = Judge(runs, world.planned).results(comparison)
    runs.groups = [group for group in runs.groups if group.first.seed < 4]
    common = [model for model in world.planned if model.seed < 4]
    assert found.effect == Judge(runs, common).results(comparison)[0].effect


def test_equal_scores_of_all_seeds_decide_nothing(runs):
    for record in runs.records:
        record.scores["validation"][""] = {"accuracy": 55.0}
    found = verdict(runs, Comparison(ours=FULL, theirs=LORA, above=-2))
    assert found.reason == "cola: every seed has the same score"


def test_scores_that_vary_decide_even_if_their_difference_is_the_same_for_every_seed(runs):
    for record in (record for record in runs.records if record.task == "rte"):
        better = 20.0 if record.method == "full" else 0.0
        record.scores["validation"][""] = {"accuracy": 60.0 + better + record.seed}
    found = verdict(runs, Comparison(ours=FULL, theirs=LORA, above=0))
    assert found.word == "holds" and found.results[0].tasks["rte"].value == 20.0


def test_a_model_that_says_one_thing_has_a_correlation_of_zero(runs):
    for record in runs.records:
        record.primary = {"metric": "matthews", "split": "validation"}
        record.scores["validation"] = {
            name: {"matthews": s["accuracy"]} for name, s in record.scores["validation"].items()
        }
    cut = [r for r in runs.records if r.method == "dylora"]
    for record in cut:
        del record.scores["validation"]["r2"]["matthews"], runs.resampled[id(record)]["r2"]
        record.facts["absent_metrics"] = {"matthews": "undefined: every prediction is 1 (validation r1, validation r2)"}
    (found,) = results(runs, Comparison(ours={**DYLORA, "rank": 2}, theirs=LORA, by="rank", above=0))
    lora = [r.scores["validation"][""]["matthews"] for r in runs.records if r.task == "cola" and rank(r) == 2]
    assert found.effect.value == pytest.approx(-np.mean(lora))
    cut[0].facts["absent_metrics"] = {"matthews": "undefined: every prediction is 1 (validation r1)"}
    (found,) = results(runs, Comparison(ours={**DYLORA, "rank": 2}, theirs=LORA, by="rank", above=0))
    assert found.absent == "cola: no matthews on validation r2"


def test_less_is_better_turns_the_sign(runs):
    turned = copy.deepcopy(runs)
    for record, old in zip(turned.records, runs.records, strict=True):
        record.primary["higher_is_better"] = False
        turned.resampled[id(record)] = runs.resampled[id(old)]
    one, other = (results(c, Comparison(ours=FULL, theirs=LORA, above=0))[0].effect for c in (runs, turned))
    assert other.value == pytest.approx(-one.value) and other.examples == pytest.approx(one.examples)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"above": 1, "below": 0}, "is not less than"),
        ({}, "above or below"),
        ({"above": 0, "each": True}, "each needs by"),
        ({"above": 0, "ours": {"methd": "lora"}}, "selects no runs"),
        ({"above": 0, "measure": "speed"}, "measure"),
        ({"theirs": FULL, "measure": "seconds", "below": 0}, "greater than 0"),
        ({"theirs": FULL, "measure": "memory", "above": 0}, "greater than 0"),
    ],
)
def test_a_comparison_that_means_nothing_is_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        Comparison(**{"ours": LORA} | values)


def test_claims_can_be_those_of_another_suite():
    shared, own = claims_of(plan.load("embedded")), claims_of(plan.load("claims"))
    assert shared == own and all(isinstance(c, Claim) for c in own) and len(own) == 13
    with pytest.raises(UsageError, match="must name a suite with a list"):
        claims_of(plan.Suite(title="t", name="t", cells=SUITE.cells, claims="embedded"))
