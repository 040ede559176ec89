"""The rows of the nine GLUE-like tasks: exact label counts, unique ids, no text shared between splits.

The labels of a split are dealt first; each row is then drawn until it fits its label and the split's side of the
reservation, so neither the reservation nor the removal of repeats can shift the balance.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from rosa_bench.embedded import acceptability, glue_pairs, opinions
from rosa_bench.embedded.grammar import Grammar, sentence
from rosa_bench.embedded.lexicon import pool
from rosa_bench.embedded.reserve import normalize, reserved

if TYPE_CHECKING:
    from collections.abc import Callable

    Row = dict[str, Any]
    # the texts, the label and a name for the kind of row
    Drawn = tuple[tuple[str, ...], float, str]
    # from the grammar, the name of the split and the label to write for; None where the draw does not fit the split
    Draw = Callable[[Grammar, str, float], Drawn | None]

NUM_TRAIN, NUM_SCORED = 4000, 600


def _cola(g: Grammar, split: str, label: float) -> Drawn | None:
    # three scored sentences in four use words that no train sentence does
    g.words = pool("all", 0 if split == "train" or g.u() < 0.25 else 1)
    family, text = acceptability.write(g, label == 1)
    return ((text,), label, "ok" if label else family) if reserved(text) == (split != "train") else None


def _sst2(g: Grammar, split: str, label: float) -> Drawn | None:
    p = opinions.polar()
    text = sentence(opinions.opinion(g, p, label == 1, negate=0.25, plain=0.5))
    return ((text,), label, "positive" if label else "negative") if reserved(text) == (split != "train") else None


# fields, share of each label (label 0 first), draw
TASKS: dict[str, tuple[tuple[str, ...], tuple[float, ...], Draw]] = {
    "cola": (("sentence",), (0.3, 0.7), _cola),
    "sst2": (("sentence",), (0.45, 0.55), _sst2),
    "mrpc": (("sentence1", "sentence2"), (0.32, 0.68), glue_pairs.mrpc),
    "stsb": (("sentence1", "sentence2"), (1.0,), glue_pairs.stsb),
    "qqp": (("question1", "question2"), (0.63, 0.37), glue_pairs.qqp),
    "mnli": (("premise", "hypothesis"), (1 / 3, 1 / 3, 1 / 3), glue_pairs.mnli),
    "qnli": (("question", "sentence"), (0.5, 0.5), glue_pairs.qnli),
    "rte": (("sentence1", "sentence2"), (0.5, 0.5), glue_pairs.rte),
    "wnli": (("sentence1", "sentence2"), (0.5, 0.5), glue_pairs.wnli),
}


def _deal(g: Grammar, shares: tuple[float, ...], n: int) -> list[int]:
    """Deal labels in their exact shares, in random order."""
    labels = [label for label, share in enumerate(shares) for _ in range(round(n * share))]
    labels = (labels + list(range(len(shares))))[:n]
    for i in range(n - 1, 0, -1):
        j = int(g.u() * (i + 1))
        labels[i], labels[j] = labels[j], labels[i]
    return labels


def _write(task: str, split: str, taken: frozenset[str] = frozenset()) -> list[Row]:
    """Write the rows of a split, none of whose texts may be in ``taken``."""
    fields, shares, draw = TASKS[task]
    g = Grammar(f"{task}-{split}")
    written: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    for i, dealt in enumerate(_deal(g, shares, NUM_TRAIN if split == "train" else NUM_SCORED)):
        drawn = draw(g, split, dealt)
        while drawn is None or drawn[0] in seen or (taken and any(normalize(t) in taken for t in drawn[0])):
            drawn = draw(g, split, dealt)
        texts, label, kind = drawn
        seen.add(texts)
        row: Row = dict(zip(fields, texts, strict=True))
        row |= {"label": label, "idx": i, "id": f"{task}-{split.replace('_', '-')}-{i:04d}-{kind}"}
        written.append(row)
    return written


@cache
def rows(task: str, split: str) -> list[Row]:
    """Write the rows of one split of one GLUE-like task."""
    if split != "validation_mismatched":
        return _write(task, split)
    fields = TASKS[task][0]
    other = rows(task, "validation_matched")
    return _write(task, split, frozenset(normalize(row[field]) for row in other for field in fields))
