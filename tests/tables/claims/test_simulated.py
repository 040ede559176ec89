"""Verdicts on 200 simulated suites: true and false claims, at the bound and beyond it, get the right word as stated."""

from __future__ import annotations

import pytest
from scipy.stats import binom
from simulated import World, claim

from rosa_bench.stats.significance import ALPHA
from rosa_bench.suite import plan
from rosa_bench.suite.claims import Comparison

SUITES = 200
POWER = 0.8  # share of suites in which a claim that is true, or false, by the stated effect is recognized
SURE = 0.001  # chance that a rate as stated leaves its bounds
MARGIN = 5.0

FULL, LORA = {"method": "full"}, {"method": "lora"}
APART = Comparison(ours=FULL, theirs={"method": "head"}, above=2)


def beats(method: str, **more) -> Comparison:
    return Comparison(ours={"method": method}, theirs=LORA, by="rank", above=0, **more)


def matches(method: str, **more) -> Comparison:
    return Comparison(ours={"method": method}, theirs=FULL, above=-MARGIN, **more)


WORLD = World(
    plan.Suite(
        title="simulated",
        name="simulated",
        seeds=[1, 2, 3],
        cells=[
            plan.Block(
                run={"method": ["full", "head", "meft", "bitfit", "ia3"]}, tasks={"cola": {}, "rte": {}, "qnli": {}}
            ),
            plan.Block(
                run={"method": ["lora", "rosa", "relora"], "method.rank": [2, 4]},
                tasks={"cola": {}, "rte": {}, "qnli": {}},
            ),
            plan.Block(
                run={"method": "dylora", "method.rank_max": 4, "method.score_ranks": "[2,4]"},
                tasks={"cola": {}, "rte": {}, "qnli": {}},
            ),
        ],
    ),
    [
        claim("equal", beats("rosa")),
        claim("better", beats("relora")),
        claim("worse", Comparison(ours=LORA, theirs={"method": "relora"}, by="rank", above=0)),
        claim("at the margin", matches("meft"), given=(APART,)),
        claim("as good", matches("bitfit"), given=(APART,)),
        claim("far behind", matches("ia3"), given=(APART,)),
        claim(
            "one rank at the margin",
            Comparison(ours={"method": "dylora", "variant": "any"}, theirs=LORA, by="rank", each=True, above=-MARGIN),
        ),
        claim("as slow as the bound", Comparison(ours={"method": "rosa"}, measure="latency", below=1.05)),
        claim("twice as cheap", Comparison(ours=LORA, theirs={"method": "dylora"}, measure="seconds", above=1.5)),
        claim("at twice the cost", Comparison(ours=LORA, theirs={"method": "dylora"}, measure="seconds", above=2)),
        claim("without a difference to see", matches("bitfit"), given=(Comparison(ours=FULL, theirs=FULL, above=2),)),
    ],
    {
        "full": 4,
        "head": -4,
        "meft": 4 - MARGIN,
        "bitfit": 5,
        "ia3": 4 - 2.2 * MARGIN,
        "relora": 5,
        ("dylora", 2): -MARGIN,
    },
)
TRUE, FALSE = ("better", "as good", "twice as cheap"), ("worse", "far behind")
AT_THE_BOUND = ("equal", "at the margin", "one rank at the margin", "as slow as the bound", "at twice the cost")


@pytest.fixture(scope="module")
def suites() -> list[dict[str, str]]:
    return [WORLD.words(seed) for seed in range(SUITES)]


def at_most(rate: float, trials: int = SUITES) -> int:
    """The most events of a rate up to `rate` that are likely."""
    return int(binom.ppf(1 - SURE, trials, rate))


def count(suites: list[dict[str, str]], word: str, *names: str) -> int:
    """The number of suites in which any of these claims gets the word."""
    return sum(any(words[name] == word for name in names) for words in suites)


def test_a_suite_rarely_says_of_any_claim_that_it_holds_though_it_does_not(suites):
    assert count(suites, "holds", *AT_THE_BOUND, *FALSE) <= at_most(ALPHA)


def test_a_suite_rarely_says_of_any_claim_that_it_does_not_hold_though_it_does(suites):
    assert count(suites, "does not hold", *AT_THE_BOUND, *TRUE) <= at_most(ALPHA)


@pytest.mark.parametrize(("names", "word"), [(TRUE, "holds"), (FALSE, "does not hold")])
def test_planted_effects_are_found(suites, names, word):
    for name in names:
        assert count(suites, word, name) >= binom.ppf(SURE, SUITES, POWER), name


def test_runs_that_cannot_tell_good_from_bad_decide_nothing(suites):
    assert count(suites, "undecided", "without a difference to see") == SUITES


def test_a_task_on_which_nothing_is_learned_does_not_change_the_rates(with_a_blind_task):
    """On one of three tasks all methods are equal, which would make a third of each difference disappear."""
    names, words = ("at the margin", "far behind"), with_a_blind_task
    assert all(count(words, "holds", name) <= at_most(ALPHA) for name in names)
    assert count(words, "does not hold", "at the margin") <= at_most(ALPHA)
    for name, word in (("as good", "holds"), ("far behind", "does not hold")):
        assert count(words, word, name) >= binom.ppf(SURE, SUITES, POWER), name


@pytest.fixture(scope="module")
def with_a_blind_task() -> list[dict[str, str]]:
    methods = ("full", "head", "meft", "bitfit", "ia3")
    blind = {(method, "rte"): 0.0 for method in methods}
    cells = [plan.Block(run={"method": [*methods]}, tasks={"cola": {}, "rte": {}, "qnli": {}})]
    suite = plan.Suite(title="blind", name="blind", seeds=[1, 2, 3], cells=cells)
    claims = [
        claim("at the margin", matches("meft"), given=(APART,)),
        claim("as good", matches("bitfit"), given=(APART,)),
        claim("far behind", matches("ia3"), given=(APART,)),
    ]
    world = World(suite, claims, WORLD.effects | blind)
    return [world.words(seed) for seed in range(SUITES)]


@pytest.mark.parametrize("wrong", ["holds", "does not hold"])
def test_a_claim_alone_at_its_bound_is_misjudged_at_most_at_the_nominal_rate(alone, wrong):
    assert 0 < count(alone, wrong, "equal") <= at_most(ALPHA)


@pytest.fixture(scope="module")
def alone() -> list[dict[str, str]]:
    """The verdicts where the claim at its bound is the only one, on few examples and two tasks."""
    cells = [plan.Block(run={"method": ["lora", "rosa"], "method.rank": [2, 4]}, tasks={"cola": {}, "rte": {}})]
    suite = plan.Suite(title="alone", name="alone", seeds=[1, 2, 3], cells=cells)
    world = World(suite, [claim("equal", beats("rosa"))], {}, examples=200)
    return [world.words(seed) for seed in range(SUITES)]
