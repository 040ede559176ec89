"""The pair tasks: each draws two texts whose label follows from the events or claims that they tell.

A scored pair needs two reserved texts, a train pair two unreserved ones. The first text is drawn once; the second is
drawn again and again in other words (see ``_fit``), which keeps the number of draws small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rosa_bench.embedded import causes, events, inference
from rosa_bench.embedded.grammar import Grammar, sentence
from rosa_bench.embedded.lexicon import ALL_NOUNS, pool
from rosa_bench.embedded.lexicon_nouns import TOPICS_MATCHED, TOPICS_MISMATCHED
from rosa_bench.embedded.reserve import reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rosa_bench.embedded.events import Event

    Pair = tuple[tuple[str, ...], float, str]

_TRIES = 10


def _fit(split: str, make: Callable[[], str]) -> str:
    """Draw a text until it is on the split's side of the reservation; empty where too many tries fail."""
    scored = split != "train"
    for _ in range(_TRIES):
        text = make()
        if reserved(text) == scored:
            return text
    return ""


def _draw_event(g: Grammar, parts: int = 1) -> Event:
    g.words = pool()
    return events.draw_event(g, parts, giving=0.1, people=0.35)


def _tell(g: Grammar, e: Event, p: float = 0.0, styles: Sequence[str] = events.STYLES) -> str:
    return sentence(events.tell(events.reword(g, e, p) if p else e, g.pick(styles)))


def _change(g: Grammar, e: Event, kind: str = "", fixed: str = "", more: float = 0.6) -> tuple[Event, str]:
    """Change a part of an event and, each with a probability, others, but not the ``fixed`` one; name the first."""
    other, kind = events.change(g, e, kind)
    for part in ("verb", "agent", "patient"):
        if part not in (kind, fixed) and g.u() < more:
            other = events.change(g, other, part)[0]
    return other, kind


def mrpc(g: Grammar, split: str, label: float) -> Pair | None:
    """Two tellings of one event, or of two events that differ in a part or two."""
    e = _draw_event(g)
    if g.u() < 0.15:  # a negation by itself must not mean that the two differ
        e = e._replace(neg=True)
    # half of the pairs are built alike, so that the words decide; in the others the same words stand elsewhere
    styles = (g.pick(events.STYLES),) if g.u() < 0.7 else events.STYLES
    first = _fit(split, lambda: _tell(g, e, 0.0, styles))
    other, kind = (e, "same") if label else _change(g, e)
    second = first and _fit(split, lambda: _tell(g, other, 0.3, styles))
    return ((first, second), label, kind) if second and first != second else None


def qqp(g: Grammar, split: str, label: float) -> Pair | None:
    """Two ways to ask one question, or two questions that differ in what is asked or about which event."""
    e = _draw_event(g)
    part = g.pick(events.askable(e))
    other, asked, kind = e, part, "same"
    if not label:
        kind = g.pick(("part", "swap", "verb", "agent", "patient", "number", "time", "place"))
        if kind == "part":
            asked = g.pick([p for p in events.askable(e) if p != part])
        elif kind == part or (kind == "number" and part == "patient"):
            return None
        else:
            other, kind = _change(g, e, kind, part, 0.8)
    first = _fit(split, lambda: sentence(events.ask(g, e, part), "?"))
    second = first and _fit(split, lambda: sentence(events.ask(g, events.reword(g, other, 0.3), asked), "?"))
    return ((first, second), label, kind) if second and first != second else None


_WEIGHTS = {"verb": 1.5, "agent": 1.0, "patient": 1.0, "place": 0.6, "time": 0.6, "manner": 0.6}


def stsb(g: Grammar, split: str, label: float) -> Pair | None:
    """Two events that share some of their parts; the score is the weighted share, from 0 to 5."""
    del label  # the score follows from what is drawn
    e = other = _draw_event(g, 3)
    told = [p for p in _WEIGHTS if p in ("verb", "agent", "patient") or getattr(e, p)]
    whole = sum(_WEIGHTS[p] for p in told)
    keep, lost = g.u() * 1.15, 0.0
    if g.u() < 0.1 and e.patient.noun.kind == "person":
        other, lost = events.change(g, e, "swap")[0], 1.0
        told = told[3:]
    for part in told:
        if g.u() < keep:
            continue
        if part == "manner":
            other, share = other._replace(manner=events.other_than(g, e.manner, g.words.manners)), 1.0
        elif part == "agent" and e.agent.noun.parent in ALL_NOUNS and g.u() < 0.4:
            other, share = other._replace(agent=events.near(g, e.agent)), 0.5
        elif part == "patient" and e.patient.noun.parent in ALL_NOUNS and g.u() < 0.4:
            other, share = other._replace(patient=events.near(g, e.patient)), 0.5
        else:
            other, share = events.change(g, other, part)[0], 1.0
        lost += _WEIGHTS[part] * share
    score = round(5 * (1 - lost / whole), 2)
    first = _fit(split, lambda: _tell(g, e))
    second = first and _fit(split, lambda: _tell(g, other, 0.6))
    return ((first, second), score, f"score{round(score)}") if second and first != second else None


def qnli(g: Grammar, split: str, label: float) -> Pair | None:
    """A question and a sentence that answers it (0) or only speaks of much the same (1)."""
    e = _draw_event(g)
    part = g.pick(events.askable(e))
    answer, kind = e, "answered"
    if part == "whether" and g.u() < 0.5:
        answer = e._replace(neg=True)
    if label:
        kind = g.pick(("missing", "swap", "verb", "agent", "patient", "negation", "time", "place"))
        if kind == "missing":
            if part not in ("place", "time"):
                return None
            answer = answer._replace(place="") if part == "place" else answer._replace(time="")
        elif kind == part or (kind == "negation" and part == "whether"):
            return None
        else:
            answer, kind = _change(g, answer, kind, part, 0.85)
    question = _fit(split, lambda: sentence(events.ask(g, e, part), "?"))
    told = question and _fit(split, lambda: _tell(g, answer, 0.4))
    return ((question, told), label, kind) if told else None


def _claim(g: Grammar, split: str, label: int) -> tuple[str, str, str]:
    """Draw a premise and a hypothesis (empty where too many tries fail) and the quantifier of the hypothesis."""
    drawn = inference.draw_hypothesis(g)
    hypothesis = _fit(split, lambda: sentence(inference.say(g, *drawn)))
    premise = hypothesis and _fit(split, lambda: sentence(inference.draw_premise(g, drawn, label)))
    return premise, hypothesis, drawn[1].replace("_", "")


def mnli(g: Grammar, split: str, label: float) -> Pair | None:
    """A premise that entails (0), leaves open (1) or contradicts (2) a hypothesis; the mismatched topics are others."""
    topics = TOPICS_MISMATCHED if split == "validation_mismatched" else TOPICS_MATCHED
    g.words = pool(g.pick(topics), 0 if split == "train" else 1)
    premise, hypothesis, kind = _claim(g, split, int(label))
    return ((premise, hypothesis), label, kind) if premise and premise != hypothesis else None


def rte(g: Grammar, split: str, label: float) -> Pair | None:
    """A longer premise, often two reports of which one can be relied on, and what it entails (0) or not (1)."""
    g.words = pool("all", 0 if split == "train" else 1)
    reports, x = g.u() < 0.5, g.u()
    opened = bool(label) and reports and x < 0.6
    relation = inference.ENTAILED if not label or opened else inference.NEUTRAL if x < 0.8 else inference.CONTRADICTED
    drawn = inference.draw_hypothesis(g)
    hypothesis = _fit(split, lambda: sentence(inference.say(g, *drawn)))
    if not hypothesis:
        return None
    sure, open_to_doubt = g.pick(inference.FACTIVE), g.pick(inference.OPEN_VERBS)

    def premise() -> str:
        text, other = inference.draw_premise(g, drawn, relation), g.clause(short=True)
        if not reports:
            return sentence(text if x < 0.5 else f"{text}, and {other}")
        told = f"{g.name()} {open_to_doubt if opened else sure} that {text}"
        other = f"{g.name()} {sure if opened else open_to_doubt} that {other}"
        return sentence(f"{told}, and {other}" if g.u() < 0.5 else f"{other}, and {told}")

    told = _fit(split, premise)
    kind = "reported" if opened else ("entailed", "open", "denied")[relation]
    return ((told, hypothesis), label, kind) if told and told != hypothesis else None


def wnli(g: Grammar, split: str, label: float) -> Pair | None:
    """A pronoun that cause or gender resolves, and the cause with the right (1) or the wrong noun (0) in its place."""
    half = 0 if split == "train" else 1
    g.words = pool("all", half)
    c = causes.draw_cause(g, half, mixed=0.5)
    told, resolved = sentence(c.told()), sentence(c.resolved(bool(label)))
    scored = split != "train"
    if reserved(resolved) != scored or reserved(told) != scored:
        return None
    return (told, resolved), label, "first" if c.means_first else "second"
