"""Events with named parts, and the many ways to tell or ask about one: what the pair tasks derive their labels from.

Two texts of one event mean the same by construction; an event with a part changed means something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rosa_bench.embedded.lexicon import (
    GRADED,
    LEAVES,
    MANNERS,
    NOUN_SYNONYMS,
    STATES,
    TIMES,
    VERB_GROUPS,
    Noun,
    Verb,
    with_article,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rosa_bench.embedded.grammar import Grammar


def _others(groups: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    return {w: [o for o in group if o != w] for group in groups for w in group if len(group) > 1}


VERB_SYNONYMS = {v.base: [o for o in g if o != v] for gs in VERB_GROUPS.values() for g in gs for v in g if len(g) > 1}
SYNONYM_NOUNS = {
    **NOUN_SYNONYMS,
    **{new.sg: Noun(old, new.pl, with_article(old), new.gender, new.kind) for old, new in NOUN_SYNONYMS.items()},
}
WORD_SYNONYMS = _others([*(side for pair in GRADED for side in pair), *STATES, *MANNERS, *TIMES])
ANTONYMS = {w: b if w in a else a for a, b in GRADED if b for w in [*a, *b]}


class Phrase(NamedTuple):
    """A noun phrase: determiner, adjective (or empty), noun and number; a name has no determiner."""

    det: str
    adj: str
    noun: Noun
    pl: bool = False

    def text(self) -> str:
        """Write the phrase."""
        noun = self.noun.pl if self.pl else self.noun.sg
        if not self.det:
            return noun
        body = f"{self.adj} {noun}" if self.adj else noun
        return with_article(body) if self.det == "a" else f"{self.det} {body}"


class Event(NamedTuple):
    """Who did what to what (to whom), where, when and how; empty parts are not told."""

    agent: Phrase
    verb: Verb
    patient: Phrase
    to: Phrase | None = None
    place: str = ""
    time: str = ""
    manner: str = ""
    neg: bool = False


def draw_phrase(g: Grammar, nouns: Sequence[Noun], adjectives: Sequence[str], p_adj: float = 0.3) -> Phrase:
    """Draw a definite noun phrase."""
    u = g.u
    return Phrase("the", g.pick(adjectives) if u() < p_adj else "", g.word(nouns), u() < 0.25)


def draw_person(g: Grammar) -> Phrase:
    """Draw a person: a name or a noun phrase."""
    w = g.words
    if g.u() < 0.3:
        name = g.name()
        return Phrase("", "", Noun(name, name, name, "f" if name in w.names_f else "m", "person"))
    return draw_phrase(g, w.people, w.states, 0.2)


def draw_event(g: Grammar, parts: int = 2, giving: float = 0.2, people: float = 0.3) -> Event:
    """Draw an event with at most so many of place, time and manner."""
    w, x = g.words, g.u()
    agent = draw_person(g)
    to = None
    if x < giving:
        verb, patient, to = g.verb("ditransitive"), draw_phrase(g, w.objects, w.object_adjectives), draw_person(g)
        if to.noun.sg == agent.noun.sg:
            to = Phrase("the", "", g.word(w.women))
    elif x < giving + people:
        verb, patient = g.verb("personal"), draw_person(g)
        if patient.noun.sg == agent.noun.sg:
            patient = Phrase("the", "", g.word(w.men))
    else:
        verb, patient = g.verb("transitive"), draw_phrase(g, w.objects, w.object_adjectives)
    kinds = _PARTS[parts]
    has = kinds[int(g.u() * len(kinds))]
    return Event(
        agent,
        verb,
        patient,
        to,
        g.pick(w.places) if has & 1 else "",
        g.pick(w.times) if has & 2 else "",
        g.word(w.manners) if has & 4 else "",
    )


_PARTS = ((0,), (0, 1, 2, 4), (1, 2, 4, 3, 5, 6), (3, 5, 6, 7))


def core(e: Event, swap: bool = False) -> str:
    """Write agent, verb and objects in the active; ``swap`` puts the receiver after *to*."""
    verb = f"did not {e.verb.base}" if e.neg else e.verb.past
    if e.to is None:
        return f"{e.agent.text()} {verb} {e.patient.text()}"
    if swap:
        return f"{e.agent.text()} {verb} {e.patient.text()} to {e.to.text()}"
    return f"{e.agent.text()} {verb} {e.to.text()} {e.patient.text()}"


def passive(e: Event, by: bool = True) -> str:
    """Write the event in the passive, with its agent or without."""
    be = ("were" if e.patient.pl else "was") + (" not" if e.neg else "")
    to = f" to {e.to.text()}" if e.to is not None else ""
    return f"{e.patient.text()} {be} {e.verb.part}{to}" + (f" by {e.agent.text()}" if by else "")


def tail(*parts: str) -> str:
    """Write the parts that are there, each after a space."""
    return "".join([f" {p}" for p in parts if p])


STYLES = ("active", "active", "passive", "time_first", "place_first", "cleft", "dative", "passive_time_first")


def tell(e: Event, style: str = "active") -> str:
    """Tell an event as a clause, lower case, without a closing mark; every style means the same."""
    if style == "active":
        return core(e) + tail(e.manner, e.place, e.time)
    if style == "dative":
        return core(e, swap=True) + tail(e.place, e.time, e.manner)
    if style == "passive":
        return passive(e) + tail(e.manner, e.place, e.time)
    if style == "cleft" and not e.neg:
        link = "that" if e.agent.pl or e.agent.noun.kind != "person" else "who"
        told = f"{e.verb.past} {e.patient.text()}" + (f" to {e.to.text()}" if e.to else "")
        return f"it was {e.agent.text()} {link} {told}{tail(e.manner, e.place, e.time)}"
    if style == "place_first" and e.place:
        return f"{e.place} {core(e, swap=True)}{tail(e.time, e.manner)}"
    if style == "passive_time_first" and e.time:
        return f"{e.time} {passive(e)}{tail(e.place, e.manner)}"
    if e.time:
        return f"{e.time} {core(e)}{tail(e.manner, e.place)}"
    return core(e, swap=True) + tail(e.manner, e.place, e.time)


def other_word(g: Grammar, word: str) -> str:
    """Replace a word or a time by one that means the same, if there is one."""
    options = WORD_SYNONYMS.get(word)
    return g.pick(options) if options else word


def reword_phrase(g: Grammar, p: Phrase) -> Phrase:
    """Say a noun phrase in other words of the same meaning where there are any."""
    noun = SYNONYM_NOUNS.get(p.noun.sg, p.noun) if p.det else p.noun
    return Phrase(p.det, other_word(g, p.adj) if p.adj else "", noun, p.pl)


def reword(g: Grammar, e: Event, p: float = 0.8) -> Event:
    """Say an event in other words of the same meaning where there are any, each with a probability."""
    u = g.u
    verbs = VERB_SYNONYMS.get(e.verb.base)
    return Event(
        reword_phrase(g, e.agent) if u() < p else e.agent,
        g.pick(verbs) if verbs and u() < p else e.verb,
        reword_phrase(g, e.patient) if u() < p else e.patient,
        reword_phrase(g, e.to) if e.to and u() < p else e.to,
        e.place,
        other_word(g, e.time) if u() < p else e.time,
        other_word(g, e.manner) if u() < p else e.manner,
        e.neg,
    )


def ask(g: Grammar, e: Event, part: str) -> str:
    """Ask for a part of an event (``agent``, ``patient``, ``place``, ``time`` or ``whether``) in one of its ways."""
    x = g.u()
    agent, patient = e.agent.text(), e.patient.text()
    to = f" to {e.to.text()}" if e.to else ""
    place = "" if part == "place" else e.place
    time = "" if part == "time" else e.time
    rest = tail(e.manner, place, time)
    be = "were" if e.patient.pl else "was"
    if part == "agent":
        if x < 0.6:
            return f"who {e.verb.past} {patient}{to}{rest}"
        return f"{'who' if x < 0.8 else 'by whom'} {be} {patient} {e.verb.part}{to}{' by' if x < 0.8 else ''}{rest}"
    if part == "patient":
        person = e.patient.noun.kind == "person"
        if x < 0.6:
            return f"{'who' if person else 'what'} did {agent} {e.verb.base}{to}{rest}"
        return f"{'who' if person else 'what'} was {e.verb.part}{to} by {agent}{rest}"
    if part == "whether":
        return (
            f"did {agent} {e.verb.base} {patient}{to}{rest}"
            if x < 0.6
            else f"{be} {patient} {e.verb.part}{to} by {agent}{rest}"
        )
    word = ("where" if x < 0.7 else "in what place") if part == "place" else ("when" if x < 0.7 else "at what time")
    if g.u() < 0.6:
        return f"{word} did {agent} {e.verb.base} {patient}{to}{rest}"
    return f"{word} {be} {patient} {e.verb.part}{to} by {agent}{rest}"


def askable(e: Event) -> list[str]:
    """Name the parts of an event that a question can ask for."""
    return ["agent", "patient", "whether"] + (["place"] if e.place else []) + (["time"] if e.time else [])


CHANGES = ("agent", "verb", "patient", "swap", "number", "negation", "place", "time")


def change(g: Grammar, e: Event, kind: str = "") -> tuple[Event, str]:
    """Change what an event means in one part; return the other event and the name of the change."""
    kinds = [kind] if kind else [CHANGES[(i + int(g.u() * 8)) % 8] for i in range(8)]
    for k in [*kinds, "verb"]:
        other = _changed(g, e, k)
        if other is not None:
            return other, k
    raise ValueError(f"no change {kind!r}")


def _changed(g: Grammar, e: Event, kind: str) -> Event | None:
    w = g.words
    if kind == "swap":
        if e.to is not None:
            return e._replace(agent=e.to, to=e.agent)
        return e._replace(agent=e.patient, patient=e.agent) if e.patient.noun.kind == "person" else None
    if kind == "negation":
        return e._replace(neg=not e.neg)
    if kind == "number":
        return e._replace(patient=e.patient._replace(pl=not e.patient.pl)) if e.patient.det else None
    if kind == "agent":
        return e._replace(agent=_unlike(g, e.agent, w.people))
    if kind == "patient":
        return e._replace(patient=_unlike(g, e.patient, w.people if e.patient.noun.kind == "person" else w.objects))
    if kind == "place":
        return e._replace(place=other_than(g, e.place, w.places)) if e.place else None
    if kind == "time":
        return e._replace(time=other_than(g, e.time, w.times)) if e.time else None
    group = "ditransitive" if e.to is not None else "personal" if e.patient.noun.kind == "person" else "transitive"
    verb = e.verb
    while verb == e.verb or verb in VERB_SYNONYMS.get(e.verb.base, ()):
        verb = g.verb(group)
    return e._replace(verb=verb)


def other_than(g: Grammar, known: str, options: Sequence[str]) -> str:
    """Draw an option that does not mean the same as the one known."""
    found = known
    while found == known or found in WORD_SYNONYMS.get(known, ()):
        found = g.pick(options)
    return found


def _unlike(g: Grammar, p: Phrase, options: Sequence[Noun]) -> Phrase:
    known, noun = p.noun, p.noun
    synonym = SYNONYM_NOUNS.get(known.sg, known)
    while noun.sg in (known.sg, known.parent, synonym.sg) or noun.parent in (known.sg, synonym.sg):
        noun = g.pick(options)
    return Phrase("the", p.adj, noun, p.pl)


def near(g: Grammar, p: Phrase) -> Phrase:
    """Put a noun of the same family in the place of another."""
    return Phrase(p.det, p.adj, g.pick([n for n in LEAVES if n.parent == p.noun.parent and n.sg != p.noun.sg]), p.pl)
