"""The constructions of the CoLA-like task: each writes an acceptable sentence or a minimal violation of it.

Nearly every family crosses two binary features (number of the head and of the verb, kind of verb and presence of an
object, gender of the antecedent and of the reflexive ...). A sentence is acceptable where the two fit, so each feature
by itself, and hence every word by itself, is as frequent on both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rosa_bench.embedded.grammar import sentence
from rosa_bench.embedded.lexicon import PREPOSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rosa_bench.embedded.grammar import Grammar
    from rosa_bench.embedded.lexicon import Noun

    Family = Callable[[Grammar, bool], str]


def _cross(g: Grammar, good: bool) -> tuple[bool, bool]:
    """Draw two features that are equal if and only if the sentence is to be good."""
    x = g.u() < 0.5
    return x, x if good else not x


def _attracted(g: Grammar, head: Noun, pl: bool) -> str:
    """Write a subject whose own number may differ from that of the nouns between it and its verb."""
    text, x = g.bare(head, pl), g.u()
    if x < 0.25:
        return text
    other = g.u() < 0.5
    if x < 0.5:
        return f"{text} {g.pick(PREPOSITIONS)} {g.bare(g.noun(), other)}"
    if x < 0.65:
        return f"{text} that {g.verb('personal').past} {g.bare(g.word(g.words.people), other)}"
    if x < 0.8:
        return f"{text} that {g.bare(g.word(g.words.people), other)} {g.verb('personal').past}"
    inner = f"{g.bare(g.noun(), other)} {g.pick(PREPOSITIONS)} {g.bare(g.noun(), g.u() < 0.5)}"
    return f"{text} {g.pick(PREPOSITIONS)} {inner}"


def agreement(g: Grammar, good: bool) -> str:
    """A verb that agrees, or not, with a subject that other nouns may separate from it."""
    pl, shown = _cross(g, good)
    x = g.u()
    subject = _attracted(g, g.living(), pl)
    if x < 0.7:
        return f"{subject} {g.agreeing(shown)}"
    if x < 0.85:
        return f"{g.name()} {g.verb('clausal').past} that {subject} {g.agreeing(shown)}"
    aux = g.pick((("is", "are"), ("was", "were")))[shown]
    return f"{aux} {subject} {g.verb('intransitive').ing}" + "?"


def determiner(g: Grammar, good: bool) -> str:
    """A demonstrative or quantity word before a noun of the same or another number."""
    pl, shown = _cross(g, good)
    noun = g.noun()
    det = g.pick((("this", "these"), ("that", "those"), ("every", "several"), ("each", "both")))[shown]
    phrase = f"{det} {noun.pl if pl else noun.sg}"
    if g.u() < 0.35:
        adjectives = g.words.object_adjectives if noun.kind == "object" else g.words.states
        phrase = f"{det} {g.pick(adjectives)} {noun.pl if pl else noun.sg}"
    if noun.kind != "object" and g.u() < 0.5:
        return f"{phrase} {g.verb('intransitive').past} {g.adjunct()}"
    verb = g.verb("transitive" if noun.kind == "object" else "personal")
    return f"{g.short_subject()[0]} {verb.past} {phrase} {g.pick(g.words.times)}"


def quantity(g: Grammar, good: bool) -> str:
    """*Much* with a mass noun and *many* with a plural, or the other way round."""
    many, count = _cross(g, good)
    noun = g.word(g.words.objects).pl if count else g.word(g.words.mass)
    verb, word = g.verb("transitive"), "many" if many else "much"
    if g.u() < 0.5:
        return f"{g.short_subject()[0]} did not {verb.base} {word} {noun}"
    return f"how {word} {noun} did {g.short_subject()[0]} {verb.base}" + "?"


def transitivity(g: Grammar, good: bool) -> str:
    """A verb that takes an object or none, with an object or without."""
    takes, has = _cross(g, good)
    verb, (subject, pl) = g.verb("transitive" if takes else "intransitive"), g.subject()
    tail = g.adjunct() if g.u() < 0.6 else ""
    middle = g.thing() if has else ""
    x = g.u()
    if x < 0.6:
        text = f"{subject} {g.finite(verb, pl)} {middle} {tail}"
    elif x < 0.8:
        text = f"{subject} {g.verb('infinitive').past} to {verb.base} {middle} {tail}"
    else:
        text = f"{subject} {g.verb('gerund').past} {verb.ing} {middle} {tail}"
    return " ".join(text.split())


def passive(g: Grammar, good: bool) -> str:
    """A passive of a verb that has one, against a passive of an intransitive verb or with an object left in it."""
    if g.u() < 0.5:
        be, bare = _cross(g, good)
        verb, pl = g.verb("transitive"), g.u() < 0.5
        subject = g.bare(g.word(g.words.objects if be else g.words.people), pl)
        aux = ("were" if pl else "was") if be else "had"
        return f"{subject} {aux} {verb.part} {g.adjunct() if bare else g.thing()}"
    be, takes = _cross(g, good)
    pl = g.u() < 0.5
    subject = g.bare(g.word(g.words.objects if be else g.words.people), pl)
    aux = g.pick(("has been", "had been") if be else ("has", "had"))
    aux = "have" + aux[3:] if pl else aux
    return f"{subject} {aux} {g.verb('transitive' if takes else 'intransitive').part} {g.adjunct()}"


def giving(g: Grammar, good: bool) -> str:
    """A verb of two objects or of one, with two objects or with one."""
    takes, has = _cross(g, good)
    verb, (subject, pl) = g.verb("ditransitive" if takes else "monotransitive"), g.short_subject()
    tail = g.adjunct() if g.u() < 0.5 else ""
    objects = f"{g.person()} {g.thing()}" if has else g.thing()
    return f"{subject} {g.finite(verb, pl)} {objects} {tail}".rstrip()


def clausal(g: Grammar, good: bool) -> str:
    """A verb that takes a clause or an object, with a clause or with an object."""
    takes, has = _cross(g, good)
    subject, pl = g.subject()
    verb = g.verb("clausal" if takes else "transitive")
    return f"{subject} {g.finite(verb, pl)} {'that ' + g.clause(short=True) if has else g.thing()}"


def control(g: Grammar, good: bool) -> str:
    """A verb with the infinitive or gerund it asks for, or a verb of persuading with or without its object."""
    takes, has = _cross(g, good)
    subject, pl = g.subject()
    if g.u() < 0.5:
        verb = g.verb("infinitive" if takes else "gerund")
        return f"{subject} {g.finite(verb, pl)} {'to ' + g.bare_vp() if has else g.gerund_vp()}"
    verb = g.verb("object_control" if takes else "infinitive")
    person = g.person() + " " if has else ""
    return f"{subject} {g.finite(verb, pl)} {person}to {g.bare_vp()}"


def selection(g: Grammar, good: bool) -> str:
    """A feeling verb whose feeler is a person, against one whose feeler is an event."""
    person, event = g.bare(g.word(g.words.people), False), "the " + g.pick(g.words.events).sg
    adjunct = g.adjunct() if g.u() < 0.4 else ""
    feels, first = _cross(g, good)
    verb = g.verb("fearing" if feels else "frightening")
    a, b = (person, event) if first else (event, person)
    return f"{a} {verb.past} {b} {adjunct}".rstrip()


def _gendered(g: Grammar, female: bool) -> str:
    words, x = g.words, g.u()
    if x < 0.3:
        return g.pick(words.names_f if female else words.names_m)
    return f"{g.pick(('the', 'the', 'my', 'our'))} {g.word(words.women if female else words.men).sg}"


def reflexive(g: Grammar, good: bool) -> str:
    """A reflexive that agrees with its own subject, against one that agrees with another noun or with none."""
    female, shown = _cross(g, good)
    x, verb = g.u(), g.verb("fearing" if g.u() < 0.4 else "personal")
    word = "herself" if shown else "himself"
    if x < 0.3:
        return f"{_gendered(g, female)} {verb.past} {word} {g.adjunct()}"
    if x < 0.5:
        many, several = _cross(g, good)
        noun = g.word(g.words.men)
        subject = g.bare(noun, many)
        return f"{subject} {verb.past} {'themselves' if several else 'himself'} {g.adjunct()}"
    subject, other = _gendered(g, female), _gendered(g, g.u() < 0.5)
    if x < 0.75:
        return f"{other} {g.verb('clausal').past} that {subject} {verb.past} {word}"
    if x < 0.88:
        return f"{subject} {g.pick(PREPOSITIONS)} {other} {verb.past} {word}"
    return f"{subject} that {g.verb('personal').past} {other} {verb.past} {word}"


def gap(g: Grammar, good: bool) -> str:
    """A question, embedded question or relative clause whose gap is there or filled."""
    asks, empty = _cross(g, good)
    verb, (subject, _) = g.verb("transitive"), g.short_subject()
    filler = "" if empty else " " + g.thing()
    x = g.u()
    if x < 0.45:
        if asks:
            word = "what" if g.u() < 0.4 else f"which {g.word(g.words.objects).sg}"
        else:
            word = g.pick(("when", "where", "why", "why"))
        inner = f"{g.name()} {g.verb('clausal').base} that " if g.u() < 0.3 else ""
        if inner:
            return f"{word} did {inner}{subject} {verb.past}{filler}" + "?"
        return f"{word} did {subject} {verb.base}{filler}" + "?"
    if x < 0.75:
        link = "what" if asks else "that"
        opening = f"{g.short_subject()[0]} {g.pick(('knew', 'noticed', 'revealed', 'remembered'))}"
        return f"{opening} {link} {subject} {verb.past}{filler} {g.adjunct()}"
    head = g.word(g.words.objects if asks else g.words.contents).sg
    end = f"{g.be(False)} {g.pick(('old', 'strange', 'new', 'famous', 'unusual'))}"
    return f"the {head} that {subject} {verb.past}{filler} {end}"


# asks, into a that-clause, with a gap: the last row of each is drawn up to the share 1
_ISLANDS = (
    # violations: into an adjunct; a filled gap; a filled gap in an adjunct; a gap nothing asks for, in either clause
    ((0.2, (1, 0, 1)), (0.5, (1, 1, 0)), (0.6, (1, 0, 0)), (0.9, (0, 1, 1)), (1.0, (0, 0, 1))),
    ((0.6, (1, 1, 1)), (1.0, (0, 0, 0))),
)


def island(g: Grammar, good: bool) -> str:
    """A question into a that-clause, against a question into an adjunct and gaps that no question asks for."""
    x = g.u()
    asks, that, empty = next(features for share, features in _ISLANDS[good] if x < share)
    (a, _), (b, _) = g.short_subject(), g.short_subject()
    link = f"{g.verb('clausal').base} that" if that else f"{g.verb('intransitive').base} because"
    word = ("what " if g.u() < 0.5 else f"which {g.word(g.words.objects).sg} ") if asks else ""
    rest = "" if empty else " " + g.thing()
    return f"{word}did {a} {link} {b} {g.verb('transitive').past}{rest}?"


def verb_form(g: Grammar, good: bool) -> str:
    """An auxiliary with the form it asks for, or with another one."""
    kind = int(g.u() * 3)
    shown = kind if good else (kind + 1 + int(g.u() * 2)) % 3
    pl = g.u() < 0.5
    aux = (g.be(pl), "have" if pl else "has", g.pick(("will", "must", "can", "should")))[kind]
    group = g.pick(("intransitive", "transitive", "personal"))
    verb = g.verb(group)
    form = (verb.ing, verb.part, verb.base)[shown]
    subject = _attracted(g, g.living(), pl) if g.u() < 0.5 else g.bare(g.living(), pl)
    rest = g.complement(group) or g.adjunct()
    x = g.u()
    if x < 0.25:
        return f"{aux} {subject} {form} {rest}" + "?"
    return f"{subject} {aux}{' not' if x < 0.5 else ''} {form} {rest}"


def order(g: Grammar, good: bool) -> str:
    """The words of a clause in their order, or with two of them changed round."""
    (subject, _), verb, x = g.short_subject(), g.verb("transitive"), g.u()
    noun, adj, manner = g.word(g.words.objects), g.word(g.words.object_adjectives), g.word(g.words.manners)
    if x < 0.4:
        thing = f"{adj} {noun.sg}" if good else f"{noun.sg} {adj}"
        return f"{subject} {verb.past} the {thing} {g.adjunct()}"
    thing = f"the {noun.sg}"
    if x < 0.8:
        right = ("{s} {m} {v} {o}", "{s} {v} {o} {m}", "{m} {s} {v} {o}")
        shape = g.pick(right) if good else "{s} {v} {m} {o}"
        return shape.format(s=subject, m=manner, v=verb.past, o=thing)
    shape = "{s} {v} {o} {t}" if good else g.pick(("{s} {o} {v} {t}", "{v} {s} {o} {t}", "{o} {v} {s} {t}"))
    return shape.format(s=subject, v=verb.past, o=thing, t=g.pick(g.words.times))


FAMILIES: tuple[tuple[str, Family, int], ...] = (
    ("agreement", agreement, 5),
    ("determiner", determiner, 2),
    ("quantity", quantity, 1),
    ("transitivity", transitivity, 3),
    ("passive", passive, 2),
    ("giving", giving, 2),
    ("clausal", clausal, 1),
    ("control", control, 2),
    ("selection", selection, 1),
    ("reflexive", reflexive, 3),
    ("gap", gap, 3),
    ("island", island, 1),
    ("verb_form", verb_form, 2),
    ("order", order, 2),
)
DRAW: tuple[tuple[str, Family], ...] = tuple((name, family) for name, family, n in FAMILIES for _ in range(n))


def write(g: Grammar, good: bool) -> tuple[str, str]:
    """Write a sentence of a random family, sometimes within a longer one; return the family's name and the sentence."""
    name, family = g.pick(DRAW)
    text = family(g, good)
    if text.endswith("?"):
        return name, sentence(text[:-1], "?")
    x = g.u()
    if x < 0.07:
        text = f"{g.name()} {g.verb('clausal').past} that {text}"
    elif x < 0.14:
        text = f"{text} {g.pick(('because', 'while', 'after', 'and'))} {g.clause(short=True)}"
    elif x < 0.21:
        text = f"{g.pick(('because', 'while', 'after', 'although'))} {g.clause(short=True)}, {text}"
    return name, sentence(text)
