"""The rows of the five multiple-choice tasks: questions whose right answer follows from the embedded language.

    openbookqa     a sentence that lacks its last word, which means what another word of it means
    piqa           an event told in other words, and another event in such words
    arc_easy       of what kind a thing, animal or person is; scored questions use words that training does not
    arc_challenge  what follows from a claim, its opposite, and both with another verb
    sciq           two events, a question about one of them, and phrases of both

Wrong answers have the form of right ones, so answers alone give no cue. No sentence of a training row is
reserved; of a scored row the question's sentences and the right answer, if it is a sentence, are. Phrases of a few
words ("a bird", "in the garden") are answers in every split.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from rosa_bench.embedded import events, inference
from rosa_bench.embedded.grammar import Grammar, sentence
from rosa_bench.embedded.lexicon import ALL_NOUNS, MIDS, pool
from rosa_bench.embedded.reserve import reserved

if TYPE_CHECKING:
    from collections.abc import Callable

    from rosa_bench.embedded.events import Event

    Row = dict[str, Any]

NUM_TRAIN, NUM_SCORED = 4000, 600
LETTERS = "ABCD"


_TRIES = 10


class Question(NamedTuple):
    """A question, its answers with the right one first, and the sentences that the reservation covers."""

    question: str
    answers: tuple[str, ...]
    sentences: tuple[str, ...]  # reserved in a scored row, and in no training row
    others: tuple[str, ...] = ()  # in no training row either
    support: str = ""


def _fit(scored: bool, make: Callable[[], str]) -> str:
    """Draw texts until one is on its side of the reservation; after too many failures return the last."""
    for _ in range(_TRIES):
        text = make()
        if reserved(text) == scored:
            break
    return text


def openbookqa(g: Grammar, _scored: bool) -> Question | None:
    """A sentence that ends before a word: the one that means what an adjective or adverb in it means."""
    g.words = pool()
    who, verb, place = g.living(), g.verb("intransitive"), g.pick(g.words.places)
    if g.u() < 0.5:
        words, end = g.words.states, f"so the {who.sg} was"
        word = g.pick(words)
        told = f"the {word} {who.sg} {verb.past} {place}"
    else:
        words, end = g.words.manners, "so it was done"
        word = g.pick(words)
        told = f"the {who.sg} {verb.past} {word} {place}"
    same = events.WORD_SYNONYMS.get(word)
    if not same:
        return None
    stem = f"{told}, {end}"
    wrong: list[str] = []
    while len(wrong) < 3:
        wrong.append(g.pick([w for w in words if w not in (word, *same, *wrong)]))
    return Question(stem[0].upper() + stem[1:], (g.pick(same), *wrong), (told,))


def piqa(g: Grammar, scored: bool) -> Question | None:
    """An event and two tellings in other words, of it and of an event that differs in a part."""
    g.words = pool()
    e = events.draw_event(g, 2, giving=0.1, people=0.35)
    other = events.change(g, e)[0]
    told, style = _fit(scored, lambda: events.tell(e, g.pick(events.STYLES))), g.pick(events.STYLES)

    def reworded(x: Event) -> str:
        return _fit(scored, lambda: sentence(events.tell(events.reword(g, x, 0.4), style)))

    answers = (reworded(e), reworded(other))
    goal = f"how else can one say that {told}?"
    return Question(goal[0].upper() + goal[1:], answers, (told, answers[0]), answers[1:])


def arc_easy(g: Grammar, scored: bool) -> Question | None:
    """A person, animal or thing in a fact, its kind, and three other kinds."""
    g.words = pool("all", int(scored))
    fact = inference.draw_fact(g)
    leaf = fact.subject if fact.target is None or g.u() < 0.5 else fact.target
    kind = ALL_NOUNS[leaf.parent]
    others: list[str] = []
    while len(others) < 3:
        other = g.pick(MIDS)
        if other.kind == leaf.kind and other.an not in (kind.an, *others):
            others.append(other.an)
    told = _fit(scored, lambda: sentence(inference.say(g, fact, "the", (0, g.u() < 0.5, 0, g.u() < 0.5, 0, 1), False)))
    question = f"{told} What is {leaf.an}?"
    return Question(question, (kind.an, *others), (told,))


def arc_challenge(g: Grammar, scored: bool) -> Question | None:
    """A claim and what follows from it, the opposite of that, and both once more of something else that is done."""
    g.words = pool("all", int(scored))
    fact, quantifier, levels, many = claim = inference.draw_hypothesis(g)
    premise = _fit(scored, lambda: sentence(inference.draw_premise(g, claim, inference.ENTAILED, 0.5)))
    group = "transitive" if fact.target else "intransitive"
    verb = fact.verb
    while verb == fact.verb or verb in events.VERB_SYNONYMS.get(fact.verb.base, ()):
        verb = g.verb(group)
    answers = tuple(
        sentence(inference.say(g, said, q, levels, many))
        for said in (fact, fact._replace(verb=verb))
        for q in (quantifier, inference.OPPOSITE[quantifier])
    )
    return Question(f"{premise} What follows?", answers, (premise, answers[0]), answers[1:])


def sciq(g: Grammar, scored: bool) -> Question | None:
    """Two events as support and a question about one; one wrong answer is of the other event, two of neither."""
    g.words = pool()
    e, other = (events.draw_event(g, 3, giving=0.0, people=0.3) for _ in range(2))
    part = g.pick(("agent", "patient", "place", "time"))
    if part in ("place", "time") and not (getattr(e, part) and getattr(other, part)):
        return None
    wrong = [_phrase(other, part)]
    while len(wrong) < 3:
        wrong.append(_phrase(events.change(g, e, part)[0], part))

    def telling(x: Event) -> str:
        return _fit(scored, lambda: sentence(events.tell(x, g.pick(events.STYLES))))

    told = [telling(e), telling(other)]
    asked = _fit(scored, lambda: sentence(events.ask(g, e, part), "?"))
    support = " ".join(told if g.u() < 0.5 else told[::-1])
    return Question(asked, (_phrase(e, part), *wrong), (*told, asked), support=support)


def _phrase(e: Event, part: str) -> str:
    value = getattr(e, part)
    return str(value if isinstance(value, str) else value.text())


DRAWS: dict[str, Callable[[Grammar, bool], Question | None]] = {
    "openbookqa": openbookqa,
    "piqa": piqa,
    "arc_easy": arc_easy,
    "arc_challenge": arc_challenge,
    "sciq": sciq,
}


def _row(task: str, q: Question, order: list[int]) -> Row:
    """The row with the field names of the public set; `order` gives the position of each answer."""
    if task == "sciq":
        names = ("correct_answer", "distractor1", "distractor2", "distractor3")
        return {"question": q.question, "support": q.support} | dict(zip(names, q.answers, strict=True))
    told = [q.answers[i] for i in order]
    if task == "piqa":
        return {"goal": q.question, "sol1": told[0], "sol2": told[1], "label": order.index(0)}
    choices = {"label": list(LETTERS), "text": told}
    return {"question": q.question, "choices": choices, "answerKey": LETTERS[order.index(0)]}


def _write(task: str, split: str, taken: set[str]) -> list[Row]:
    """Write a split without the questions in `taken`, and add its questions to them."""
    g, scored = Grammar(f"{task}-{split}"), split != "train"
    written: list[Row] = []
    while len(written) < (NUM_SCORED if scored else NUM_TRAIN):
        q = DRAWS[task](g, scored)
        if q is None or len(set(q.answers)) < len(q.answers) or any(reserved(s) != scored for s in q.sentences):
            continue
        if not scored and any(map(reserved, q.others)):
            continue
        key = f"{q.support} {q.question}"
        if key in taken:
            continue
        taken.add(key)
        order = sorted(range(len(q.answers)), key=lambda _: g.u())
        row = _row(task, q, order)
        written.append(row | {"idx": len(written), "id": f"{task}-{split}-{len(written):04d}"})
    return written


@cache
def _splits(task: str) -> dict[str, list[Row]]:
    """All splits of a task: a question of one occurs in no other."""
    taken: set[str] = set()
    return {split: _write(task, split, taken) for split in splits(task)}


def splits(task: str) -> tuple[str, ...]:
    """The splits of a task; PIQA's public test set has no labels."""
    return ("train", "validation") if task == "piqa" else ("train", "validation", "test")


def rows(task: str, split: str) -> list[Row]:
    """Write the rows of one split of one multiple-choice task."""
    return _splits(task)[split]
