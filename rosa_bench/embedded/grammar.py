"""The phrases of the embedded language: noun phrases, verb frames, finite verbs and adjuncts, drawn at random."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, TypeVar

from rosa_bench.embedded.lexicon import PREPOSITIONS, pool, with_article

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rosa_bench.embedded.lexicon import Noun, Verb, Words

T = TypeVar("T")

OPEN_DETS = ("the", "the", "the", "my", "our", "his", "her", "their")
SINGULAR_DETS = ("the", "the", "the", "the", "a", "a", "my", "our", "this", "that", "every", "her", "his")
PLURAL_DETS = ("the", "the", "the", "the", "some", "these", "those", "two", "three", "many", "my", "our", "their")
MODALS = ("will", "can", "may", "must", "should", "could")
SUBJECT_PRONOUNS = (("he", False), ("she", False), ("they", True), ("we", True))


def sentence(text: str, end: str = ".") -> str:
    """Write a clause as a sentence: first letter raised, closing mark added."""
    return text[0].upper() + text[1:] + end


class Grammar:
    """Draws phrases from a pool of words; ``words`` may be changed between sentences to change topic or half."""

    def __init__(self, seed: str, words: Words | None = None) -> None:
        self.u = Random(seed).random
        self.words = words or pool()

    def pick(self, items: Sequence[T]) -> T:
        """Draw one of a sequence."""
        return items[int(self.u() * len(items))]

    def word(self, items: Sequence[T]) -> T:
        """Draw an open-class word: the earlier ones of a list come up to nine times as often as the last."""
        x = self.u()
        return items[int(x * (0.2 + 0.8 * x) * len(items))]

    def noun(self) -> Noun:
        """Draw any countable noun: person, animal or object."""
        w, x = self.words, self.u()
        return self.word(w.people if x < 0.45 else w.animals if x < 0.6 else w.objects)

    def living(self) -> Noun:
        """Draw a person or an animal."""
        return self.word(self.words.people if self.u() < 0.75 else self.words.animals)

    def bare(self, noun: Noun, pl: bool) -> str:
        """Write a noun phrase whose determiner says nothing about number."""
        return self.pick(OPEN_DETS) + " " + (noun.pl if pl else noun.sg)

    def np(self, noun: Noun, pl: bool) -> str:
        """Write a noun phrase with any determiner that fits, sometimes with an adjective."""
        adj = ""
        if self.u() < 0.2:
            adj = self.word(self.words.object_adjectives if noun.kind == "object" else self.words.states) + " "
        if pl:
            return f"{self.pick(PLURAL_DETS)} {adj}{noun.pl}"
        det = self.pick(SINGULAR_DETS)
        if det == "a":
            return with_article(adj + noun.sg) if adj else noun.an
        return f"{det} {adj}{noun.sg}"

    def thing(self) -> str:
        """Write an object to be acted on, sometimes a mass."""
        if self.u() < 0.15:
            return self.pick(("the", "some", "the", "much", "our")) + " " + self.word(self.words.mass)
        return self.np(self.word(self.words.objects), self.u() < 0.4)

    def person(self) -> str:
        """Write a person as an object: a noun phrase, a name or a pronoun."""
        x = self.u()
        if x < 0.2:
            return self.name()
        if x < 0.28:
            return self.pick(("him", "her", "them", "us"))
        return self.np(self.word(self.words.people), self.u() < 0.35)

    def name(self) -> str:
        """Draw a first name."""
        return self.pick(self.words.names_m if self.u() < 0.5 else self.words.names_f)

    def subject(self) -> tuple[str, bool]:
        """Write an animate subject and say whether it is plural; it may carry a phrase or a clause of its own."""
        x = self.u()
        if x < 0.12:
            return self.name(), False
        if x < 0.2:
            return self.pick(SUBJECT_PRONOUNS)
        pl = self.u() < 0.45
        text = self.np(self.living(), pl)
        if x > 0.6:
            text += " " + self.modifier(pl)
        return text, pl

    def modifier(self, pl: bool) -> str:
        """Write what may follow a living head noun: a prepositional phrase or a relative clause with its own noun."""
        x, other = self.u(), self.u() < 0.5
        if x < 0.5:
            return f"{self.pick(PREPOSITIONS)} {self.bare(self.noun(), other)}"
        if x < 0.65:
            return (
                f"that {self.word(self.words.verbs['personal']).past} {self.bare(self.word(self.words.people), other)}"
            )
        if x < 0.8:
            return (
                f"that {self.bare(self.word(self.words.people), other)} {self.word(self.words.verbs['personal']).past}"
            )
        if x < 0.9:
            return f"that {self.finite(self.verb('intransitive'), pl)}"
        return f"that {self.be(pl)} {self.word(self.words.states)}"

    def verb(self, group: str) -> Verb:
        """Draw a verb of an argument structure."""
        return self.word(self.words.verbs[group])

    def be(self, pl: bool) -> str:
        """Choose a form of *be* for a number."""
        return ("are" if pl else "is") if self.u() < 0.5 else ("were" if pl else "was")

    def finite(self, verb: Verb, pl: bool) -> str:
        """Write a verb in a finite form, with an auxiliary or without."""
        x = self.u()
        if x < 0.4:
            return verb.past
        if x < 0.6:
            return verb.base if pl else verb.s
        if x < 0.72:
            return f"{self.be(pl)} {verb.ing}"
        if x < 0.84:
            return ("have " if pl else "has ") + verb.part
        if x < 0.94:
            return f"{self.pick(MODALS)} {verb.base}"
        return f"{self.aux_base(pl)} not {verb.base}"

    def aux_base(self, pl: bool) -> str:
        """Choose a form of *do* or a modal, which a base form follows."""
        x = self.u()
        return "did" if x < 0.4 else ("do" if pl else "does") if x < 0.7 else self.pick(MODALS)

    def agreeing(self, pl: bool) -> str:
        """Write a short predicate whose first word shows number."""
        x = self.u()
        if x < 0.3:
            verb = self.verb("intransitive")
            return verb.base if pl else verb.s
        if x < 0.45:
            return f"{self.be(pl)} {self.word(self.words.states)}"
        if x < 0.65:
            return f"{self.be(pl)} {self.verb('intransitive').ing}"
        if x < 0.8:
            return ("have " if pl else "has ") + self.verb("intransitive").part
        if x < 0.9:
            return ("do not " if pl else "does not ") + self.verb("intransitive").base
        verb = self.verb("transitive")
        return f"{verb.base if pl else verb.s} {self.thing()}"

    def complement(self, group: str, gender: str = "c", pl: bool = False) -> str:
        """Write what must follow a verb of an argument structure."""
        if group == "transitive":
            return self.thing()
        if group in ("personal", "frightening"):
            return self.person()
        if group == "optional":
            return self.thing() if self.u() < 0.5 else self.adjunct()
        if group == "ditransitive":
            return f"{self.person()} {self.thing()}" if self.u() < 0.5 else f"{self.thing()} to {self.person()}"
        if group == "clausal":
            return f"that {self.clause(short=True)}"
        if group == "infinitive":
            return f"to {self.bare_vp()}"
        if group == "gerund":
            return self.gerund_vp()
        if group == "object_control":
            return f"{self.person()} to {self.bare_vp()}"
        if group == "fearing":
            return f"the {self.pick(self.words.events).sg}" if self.u() < 0.4 else self.person()
        return ""

    def bare_vp(self) -> str:
        """Write a verb phrase in the base form."""
        group = self.pick(("intransitive", "transitive", "transitive", "personal", "optional"))
        return f"{self.verb(group).base} {self.complement(group)}".rstrip()

    def gerund_vp(self) -> str:
        """Write a verb phrase in the -ing form."""
        group = self.pick(("intransitive", "transitive", "transitive", "personal", "optional"))
        return f"{self.verb(group).ing} {self.complement(group)}".rstrip()

    def adjunct(self) -> str:
        """Write an adverb, a time or a place for the end of a clause."""
        x = self.u()
        if x < 0.35:
            return self.word(self.words.manners)
        return self.pick(self.words.timeless) if x < 0.65 else self.pick(self.words.places)

    def clause(self, short: bool = False) -> str:
        """Write a simple clause, lower case, without a closing mark."""
        x = self.u()
        if x < 0.05 and not short:
            verb = self.verb("frightening")
            return f"the {self.pick(self.words.events).sg} {self.finite(verb, False)} {self.person()}"
        subj, pl = self.subject() if not short else self.short_subject()
        group = self.pick(SHORT_GROUPS if short else GROUPS)
        text = f"{subj} {self.finite(self.verb(group), pl)} {self.complement(group)}".rstrip()
        if not short and group in ADJOINABLE and self.u() < 0.5:
            return f"{text} {self.adjunct()}" if x < 0.85 else f"{self.pick(self.words.timeless)} {text}"
        return text

    def short_subject(self) -> tuple[str, bool]:
        """Write a subject of one to three words and say whether it is plural."""
        x = self.u()
        if x < 0.25:
            return self.name(), False
        pl = self.u() < 0.4
        return self.bare(self.word(self.words.people), pl), pl


GROUPS = (
    *("intransitive",) * 6,
    *("transitive",) * 6,
    *("personal",) * 3,
    *("optional",) * 2,
    *("ditransitive",) * 3,
    *("clausal",) * 3,
    *("infinitive",) * 2,
    *("gerund",) * 2,
    *("object_control",) * 2,
    *("frightening",) * 2,
    *("fearing",) * 2,
)
SHORT_GROUPS = ("intransitive", "intransitive", "transitive", "transitive", "personal", "optional")
ADJOINABLE = ("intransitive", "transitive", "personal", "ditransitive", "optional")
