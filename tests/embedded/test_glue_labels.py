"""Labels of the embedded pair tasks are correct: claims are evaluated in small worlds, events by their content."""

from __future__ import annotations

from random import Random

import pytest

from rosa_bench.embedded import causes, events, inference
from rosa_bench.embedded.grammar import Grammar

World = list[tuple[int, bool, list[tuple[int, bool, bool, bool]]]]


def draw_world(rng: Random) -> World:
    """Draw beings: how specific a noun fits each, whether the adjective fits, and what each did."""
    return [
        (
            rng.choice((0, 0, 0, 1, 2)),
            rng.random() < 0.6,
            [
                (rng.choice((0, 0, 1, 2)), rng.random() < 0.6, rng.random() < 0.6, rng.random() < 0.6)
                for _ in range(rng.choice((0, 1, 1, 2)))
            ],
        )
        for _ in range(rng.choice((1, 1, 2)))
    ]


def holds(world: World, quantifier: str, levels: inference.Levels) -> bool:
    """Whether a claim is true in a world; *every* may quantify over none, *the* refers to the first."""
    noun, plain, thing, thing_plain, placeless, mannerless = levels

    def fits(one: tuple) -> bool:
        return one[0] <= noun and (bool(plain) or one[1])

    def did(one: tuple) -> bool:
        return any(
            t <= thing and (thing_plain or a) and (placeless or p) and (mannerless or m) for t, a, p, m in one[2]
        )

    meant = [did(one) for one in world if fits(one)]
    if quantifier.startswith("the"):
        return fits(world[0]) and did(world[0]) == (quantifier == "the")
    return {
        "some": any(meant),
        "no": not any(meant),
        "every": all(meant),
        "some_not": bool(meant) and not all(meant),
    }[quantifier]


@pytest.mark.parametrize("label", [inference.ENTAILED, inference.NEUTRAL, inference.CONTRADICTED])
def test_claims_follow_as_labeled(label: int) -> None:
    g, rng = Grammar(f"labels-{label}"), Random(f"worlds-{label}")
    worlds = [draw_world(rng) for _ in range(2500)]
    for _ in range(80):
        claim = inference.draw_hypothesis(g)
        premise = inference.find_premise(g, claim, label)
        output = [holds(w, claim[1], claim[2]) for w in worlds if holds(w, *premise)]
        assert output, (premise, claim)
        seen = {inference.ENTAILED: {True}, inference.NEUTRAL: {True, False}, inference.CONTRADICTED: {False}}[label]
        assert set(output) == seen, (premise, claim)


def test_hypothesis_is_drawn_before_the_label() -> None:
    hypotheses = []
    for label in range(3):
        g = Grammar("same")
        claim = inference.draw_hypothesis(g)
        inference.draw_premise(g, claim, label)
        hypotheses.append(claim)
    assert hypotheses[0] == hypotheses[1] == hypotheses[2]


def test_rewording_preserves_the_meaning_and_change_does_not() -> None:
    g = Grammar("events")
    for _ in range(2000):
        e = events.draw_event(g, 3)
        same = events.reword(g, e)
        assert same.verb == e.verb or same.verb in events.VERB_SYNONYMS[e.verb.base]
        assert (same.neg, same.place, same.agent.pl, same.patient.pl) == (e.neg, e.place, e.agent.pl, e.patient.pl)
        other, kind = events.change(g, e)
        assert other != e
        if kind == "verb":
            assert other.verb not in events.VERB_SYNONYMS.get(e.verb.base, [])
        if kind == "swap":
            assert other.agent in (e.patient, e.to)


def test_every_style_mentions_every_part() -> None:
    g = Grammar("styles")
    for _ in range(500):
        e = events.draw_event(g, 3)
        for style in events.STYLES:
            output = events.tell(e, style)
            for part in (e.agent.text(), e.patient.text(), e.place, e.time, e.manner):
                assert part in output, (output, part)


def test_a_cause_names_the_referent_of_the_pronoun() -> None:
    g = Grammar("causes")
    for _ in range(500):
        c = causes.draw_cause(g)
        assert c.first != c.second
        assert c.resolved() == f"{c.first if c.means_first else c.second} {c.state}"
        assert c.told().endswith(f"because {c.pronoun} {c.state}")
    for _, first, second in causes.PEOPLE_CAUSES:
        assert not set(first) & set(second)
