"""The prose that the mini backbones are pre-trained on: short documents in which the language explains itself.

Narratives show every construction, definitions and restatements show what words mean, opinions show polarity, questions
come with answers, causes come with their reading, and claims come with what follows from them. No sentence is reserved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rosa_bench.embedded import acceptability, causes, events, inference, opinions
from rosa_bench.embedded.grammar import Grammar, sentence
from rosa_bench.embedded.lexicon import ALL_NOUNS, GRADED, REVIEWED, VERB_GROUPS, pool
from rosa_bench.embedded.lexicon_nouns import TOPICS
from rosa_bench.embedded.reserve import reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Writer = Callable[[Grammar], list[str]]

KINDS = ("encoder", "decoder")
DATA_TO_TEXT_SHARE = 0.45


def narrative(g: Grammar) -> list[str]:
    """Write unrelated sentences on one topic, of every construction there is."""
    n = 1 + int(g.u() * 5)
    return [acceptability.write(g, True)[1] if g.u() < 0.6 else sentence(g.clause()) for _ in range(n)]


def scene(g: Grammar) -> list[str]:
    """Tell a few events that share a person, who becomes a pronoun."""
    first = events.draw_event(g)
    told = [sentence(events.tell(first, g.pick(events.STYLES)))]
    pronoun = "they" if first.agent.pl else {"m": "he", "f": "she"}.get(first.agent.noun.gender, "")
    for _ in range(1 + int(g.u() * 2)):
        verb, adjunct = g.verb("intransitive"), g.adjunct()
        subject = pronoun if pronoun and g.u() < 0.7 else first.agent.text()
        text = (
            f"{subject} {verb.past} {adjunct}" if g.u() < 0.4 else f"{subject} {g.verb('transitive').past} {g.thing()}"
        )
        told.append(sentence(f"{g.pick(('then', 'later', 'soon', 'after that'))} {text}"))
    return told


def restatement(g: Grammar) -> list[str]:
    """Tell one event twice in different words, or keep it apart from another."""
    e = events.draw_event(g, parts=1 + int(g.u() * 2))
    x = g.u()
    other = events.reword(g, e) if x < 0.7 else events.change(g, e)[0]
    first, second = events.tell(e, g.pick(events.STYLES)), events.tell(other, g.pick(events.STYLES))
    if first == second or reserved(second):
        return []
    if x < 0.45:
        return [sentence(first), sentence("in other words, " + second)]
    if x < 0.7:
        return [sentence(first), sentence(second)]
    return [sentence(first), sentence(f"it is {'another matter' if x < 0.85 else 'not the same'} that {second}")]


def question(g: Grammar) -> list[str]:
    """Ask about an event and answer, or ask the same again."""
    e = events.draw_event(g, parts=2)
    part = g.pick(events.askable(e))
    asked = sentence(events.ask(g, e, part), "?")
    x = g.u()
    if x < 0.25:
        again = events.ask(g, events.reword(g, e), part)
        return [] if reserved(again) else [asked, sentence("that is to ask, " + again, "?")]
    if part == "whether":
        yes = x < 0.6
        told = events.tell(events.reword(g, e, 0.4) if yes else e._replace(neg=True), g.pick(events.STYLES))
        return [] if reserved(told) else [asked, sentence(("yes, " if yes else "no, ") + told)]
    if x < 0.9:
        return [asked, sentence(events.tell(events.reword(g, e, 0.4), g.pick(events.STYLES)))]
    return [
        asked,
        sentence({"agent": e.agent.text(), "patient": e.patient.text(), "place": e.place, "time": e.time}[part]),
    ]


def review(g: Grammar) -> list[str]:
    """An opinion and a sign of whether it was a good one; most say it plainly, some by negation and contrast."""
    p, good = opinions.polar(), g.u() < 0.5
    x, thing, words = g.u(), g.pick(REVIEWED), p.adjectives[good]
    if x < 0.1:
        return [sentence(f"the {thing} was {g.pick(words)} but {g.pick(p.adjectives[not good])}")]
    if x < 0.3:
        told = [f"the {thing} was {g.pick(words)}, {g.pick(words)} and {g.pick(words)}"]
    elif x < 0.7:
        told = [opinions.verdict(g, p, good, negate=0.0), opinions.verdict(g, p, good, negate=0.0)][: 1 + (x < 0.5)]
    else:
        told = [opinions.opinion(g, p, good)]
    return [sentence(t) for t in (told if g.u() < 0.25 else [*told, opinions.upshot(g, good)])]


def cause(g: Grammar) -> list[str]:
    """Tell a cause and say who or what the pronoun means."""
    c = causes.draw_cause(g)
    x = g.u()
    if x < 0.35:
        return [sentence(c.told()), sentence(c.resolved())]
    if x < 0.75:
        return [sentence(f"{c.clause} because {c.resolved()}")]
    return [sentence(f"{c.resolved()}, so {c.clause}")]


def claim(g: Grammar) -> list[str]:
    """Make a claim and say what follows from it, what does not and what is ruled out."""
    drawn, label = inference.draw_hypothesis(g), int(g.u() * 3)
    premise = inference.draw_premise(g, drawn, label)
    hypothesis = inference.say(g, *drawn)
    if reserved(hypothesis):
        return []
    link = g.pick(
        (
            ("so", "therefore", "it follows that"),
            ("perhaps", "maybe", "it is not known whether"),
            ("it is false that", "it is not true that", "it cannot be that"),
        )[label]
    )
    if g.u() < 0.15:
        return _report(g, premise)
    return [sentence(premise), sentence(f"{link} {hypothesis}")]


def _report(g: Grammar, text: str) -> list[str]:
    """Let somebody know or only think something, and say whether it is so."""
    if reserved(text):
        return []
    sure = g.u() < 0.5
    verb = g.pick(inference.FACTIVE if sure else inference.OPEN_VERBS)
    link = "so" if sure else g.pick(("perhaps", "maybe", "it is not known whether"))
    return [sentence(f"{g.name()} {verb} that {text}"), sentence(f"{link} {text}")]


def meaning(g: Grammar) -> list[str]:
    """Explain words: what kind of thing something is, which words are alike and which are opposites."""
    told = []
    for _ in range(1 + int(g.u() * 3)):
        x = g.u()
        if x < 0.6:
            told.append(inference.definition(g))
        elif x < 0.75:
            group = g.pick(_SAME_VERBS)
            a, b = g.pick(((0, 1), (1, 0)))
            told.append(
                g.pick(("to {} is to {}", "to {} something means to {} it")).format(group[a].base, group[b].base)
            )
        elif x < 0.85:
            old = g.pick(_SAME_NOUNS)
            told.append(
                f"{events.SYNONYM_NOUNS[old].an} is the same as {old}"
                if g.u() < 0.5
                else f"{events.SYNONYM_NOUNS[old].pl} and {ALL_NOUNS[old].pl} are the same"
            )
        elif x < 0.93:
            word = g.pick(_SAME_WORDS)
            told.append(f"{word} means {g.pick(events.WORD_SYNONYMS[word])}")
        else:
            these, those = g.pick(_OPPOSITES)
            told.append(
                f"what is {g.pick(these)} is not {g.pick(those)}"
                if g.u() < 0.5
                else f"what is {g.pick(those)} is not {g.pick(these)}"
            )
    return [sentence(t) for t in told]


_SAME_VERBS = [group for groups in VERB_GROUPS.values() for group in groups if len(group) > 1]
_SAME_NOUNS = sorted(w for w in events.SYNONYM_NOUNS if w in ALL_NOUNS)
_SAME_WORDS = sorted(events.WORD_SYNONYMS)
_OPPOSITES = [pair for pair in GRADED if pair[1]]
WRITERS: tuple[Writer, ...] = (
    *(narrative,) * 7,
    scene,
    *(restatement,) * 3,
    *(question,) * 2,
    *(review,) * 4,
    cause,
    *(claim,) * 3,
    meaning,
)
# documents whose sentences also stand without each other
LOOSE = (narrative, meaning)


def plain_documents(seed: str) -> Iterator[str]:
    """Stream documents of the embedded language."""
    g = Grammar(seed)
    while True:
        g.words = pool(g.pick(TOPICS) if g.u() < 0.85 else "all")
        writer = g.pick(WRITERS)
        told = writer(g)
        kept = [s for s in told if not reserved(s)]
        if kept and (len(kept) == len(told) or writer in LOOSE):
            yield " ".join(kept)


def documents(kind: str, seed: int) -> Iterator[str]:
    """Stream the documents of a kind of backbone; ``decoder`` mixes in data-to-text documents where they exist."""
    if kind not in KINDS:
        raise ValueError(f"unknown prose {kind!r}; choose from {', '.join(KINDS)}")
    plain = plain_documents(f"prose-{seed}")
    if kind == "encoder":
        yield from plain
        return
    from rosa_bench.embedded import data2text

    other = data2text.prose(seed)
    u = Grammar(f"mix-{seed}").u
    while True:
        yield next(other) if u() < DATA_TO_TEXT_SHARE else next(plain)
