"""Two clauses joined by *because* and a pronoun that only the cause resolves (the WNLI-like task)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rosa_bench.embedded.lexicon import ALL_NOUNS, VERB_GROUPS

if TYPE_CHECKING:
    from rosa_bench.embedded.grammar import Grammar
    from rosa_bench.embedded.lexicon import Verb

# verbs, states of the first person, states of the second person
_CAUSES = (
    (
        "scold rebuke punish blame dismiss",
        "angry furious nervous anxious tired weary stubborn",
        "rude impolite late tardy lazy idle careless drunk tipsy guilty",
    ),
    (
        "praise commend thank applaud kiss hug embrace",
        "grateful glad cheerful proud lucky",
        "brave courageous patient clever smart honest calm serene",
    ),
    (
        "comfort console help assist rescue save visit protect defend accompany",
        "polite courteous patient brave courageous clever smart",
        "sad unhappy ill sick lonely nervous anxious thirsty hungry famished innocent",
    ),
    (
        "attack assault injure wound pester chase trick deceive tease mock",
        "jealous angry furious drunk tipsy rude impolite",
        "foolish silly shy timid weary tired",
    ),
    ("ignore", "busy occupied proud vain shy timid", "rude impolite foolish silly drunk tipsy"),
)
# what happens between two things, adjectives of the first, adjectives of the second
_THINGS = (
    (
        "did not fit into|did not go into|would not pass through",
        "big large wide broad thick tall high",
        "small little narrow tight short",
    ),
    ("crushed|smashed|wrecked", "heavy weighty hard strong sturdy", "weak frail soft light"),
    ("scratched|tore", "sharp rough coarse", "soft smooth thin"),
    ("hid|concealed|covered", "big large tall high wide broad", "small little short narrow"),
)
_VERBS: dict[str, Verb] = {v.base: v for group in VERB_GROUPS["personal"] for v in group}
PEOPLE_CAUSES = tuple(
    (tuple(_VERBS[v] for v in verbs.split()), first.split(), second.split()) for verbs, first, second in _CAUSES
)
THING_CAUSES = tuple((verbs.split("|"), first.split(), second.split()) for verbs, first, second in _THINGS)


class Cause(NamedTuple):
    """A clause, its pronoun, the two that the pronoun may mean, the cause and whether the pronoun means the first."""

    clause: str
    pronoun: str
    first: str
    second: str
    state: str
    means_first: bool

    def told(self) -> str:
        """Write the sentence with its pronoun."""
        return f"{self.clause} because {self.pronoun} {self.state}"

    def resolved(self, right: bool = True) -> str:
        """Write the cause by itself with the noun in the place of the pronoun, the right one or the other."""
        return f"{self.first if self.means_first == right else self.second} {self.state}"


def draw_cause(g: Grammar, half: int | None = None, mixed: float = 0.0) -> Cause:
    """Draw a sentence whose pronoun is resolved by its cause, and in a share ``mixed`` by its gender as well.

    ``half`` limits the verbs and states to those of one half.
    """
    means_first = g.u() < 0.5
    if g.u() < 0.35:
        verbs, first, second = g.pick(THING_CAUSES)
        states = first if means_first else second
        a, b = g.word(g.words.objects), g.word(g.words.objects)
        x, y = f"the {a.sg}", f"the {b.sg if b.sg != a.sg else ALL_NOUNS['bag' if a.sg == 'hat' else 'hat'].sg}"
        relation = g.pick(verbs)
        extent = "too " if relation.startswith(("did", "would")) else "very "
        return Cause(f"{x} {relation} {y}", "it", x, y, f"was {extent}{_halved(g, states, half)}", means_first)
    group, first, second = g.pick(PEOPLE_CAUSES)
    states = first if means_first else second
    people, pronoun = (g.words.women, "she") if g.u() < 0.5 else (g.words.men, "he")
    a = g.pick(people)
    b = g.pick(people)
    while b.sg == a.sg:
        b = g.pick(people)
    if mixed and g.u() < mixed:
        other = g.pick(g.words.men if pronoun == "she" else g.words.women)
        a, b = (a, other) if means_first else (other, b)
    verb = g.pick([v for v in group if half is None or v.half == half] or group)
    x, y = f"the {a.sg}", f"the {b.sg}"
    return Cause(f"{x} {verb.past} {y}", pronoun, x, y, f"was {_halved(g, states, half)}", means_first)


def _halved(g: Grammar, states: list[str], half: int | None) -> str:
    return g.pick(states if half is None else states[half::2])
