"""Writes the DART-like task: open triple sets gathered from triples, from restaurant meanings and from tables."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from rosa_bench.embedded.data2text import restaurants, triples
from rosa_bench.embedded.data2text.names import pick
from rosa_bench.embedded.data2text.relations import SEEN, UNSEEN, words_of
from rosa_bench.embedded.data2text.tables import TABLES
from rosa_bench.embedded.reserve import reserved

_NUM_TRAIN = 4000
_NUM_SCORED = 500
_NEW_SHARE = 0.3  # of the test rows from triples, those about categories that no train split has
_TABLE_SOURCES = (
    "WikiSQL_decl_sents",
    "WikiSQL_decl_sents",
    "WikiTableQuestions_lily",
    "WikiTableQuestions_mturk",
    "WikiSQL_lily",
)
_TITLED = ("WikiTableQuestions_lily", "WikiTableQuestions_mturk")
_SIZES = (1, 2, 2, 3, 3, 4, 5)
_ROUNDS = (1, 1, 1, 1, 1, 2, 2, 3)

_OLD = tuple(SEEN)
_NEW = tuple(UNSEEN)

Tripleset = list[list[str]]


def key_of(tripleset: Tripleset) -> str:
    """The string that stands for a triple set in any order; it decides which splits may hold the set."""
    return "\n".join(sorted(" / ".join(triple) for triple in tripleset))


@cache
def write_rows(split: str) -> list[dict[str, Any]]:
    """Write one split: two fifths of the rows from triples, a third from restaurants, the rest from tables."""
    rng = Random(f"dart-{split}")
    scored = split != "train"
    total = _NUM_SCORED if scored else _NUM_TRAIN
    known = {key_of(row["tripleset"]) for row in write_rows("validation")} if split == "test" else set()
    written: list[dict[str, Any]] = []
    while len(written) < total:
        draw = rng.random()
        count = pick(rng, (1, 2, 3)) if scored else pick(rng, _ROUNDS)
        if draw < 0.4:
            new = split == "test" and rng.random() < _NEW_SHARE
            row = _from_triples(rng, scored, count, new)
        elif draw < 0.75:
            row = _from_restaurants(rng, scored, count, split)
        else:
            row = _from_table(rng, scored, count)
        if row is None or (key := key_of(row["tripleset"])) in known:
            continue
        known.add(key)
        written.append(row)
    return written


def _from_triples(rng: Random, scored: bool, count: int, new: bool) -> dict[str, Any] | None:
    fresh = new or (scored and rng.random() < 0.5)
    category = pick(rng, _NEW if new else _OLD)
    subject = pick(rng, triples.entities(category, fresh))
    facts = triples.draw_facts(rng, category, subject, pick(rng, _SIZES), fresh)
    tripleset = [[fact.subject, _upper(fact.relation.name), fact.value] for fact in facts]
    if reserved(key_of(tripleset)) != scored:
        return None
    return _row(tripleset, triples.wordings(facts, rng, count, scored), "webnlg", False)


@cache
def _upper(name: str) -> str:
    return words_of(name).upper().replace(" ", "_")


def _from_restaurants(rng: Random, scored: bool, count: int, split: str) -> dict[str, Any] | None:
    names, corners = restaurants.name_pools(split)
    name, near = pick(rng, names), pick(rng, corners)
    meaning = restaurants.draw_meaning(rng, name, near)
    tripleset = [[name, key, value] for key, value in meaning.items() if key != "name"]
    if reserved(key_of(tripleset)) != scored:
        return None
    return _row(tripleset, restaurants.wordings(meaning, rng, count, scored), "e2e", None)


def _from_table(rng: Random, scored: bool, count: int) -> dict[str, Any] | None:
    """Write a row about one line of a table, with or without the table's own title node."""
    table = pick(rng, TABLES)
    source = pick(rng, _TABLE_SOURCES)
    fresh = scored and rng.random() < 0.5
    key = triples.draw_name(rng, table.key_kind, fresh)
    start = int(rng.random() * len(table.columns))
    size = 1 + int(rng.random() * 3)
    columns = (table.columns + table.columns)[start : start + size]
    facts = [triples.fact_of(key, column, fresh) for column in columns]
    tripleset = [[fact.subject, fact.relation.name, fact.value] for fact in facts]
    heading = ""
    if source in _TITLED:
        heading = table.title.replace("*", triples.draw_name(rng, "coined", fresh))
        tripleset.insert(0, ["[TABLECONTEXT]", table.key_column, key])
        tripleset.insert(0, ["[TABLECONTEXT]", "[TITLE]", heading])
    if reserved(key_of(tripleset)) != scored:
        return None
    references = triples.wordings(facts, rng, count, scored, _opening(heading))
    return _row(tripleset, references, source, rng.random() < 0.5)


def _opening(heading: str) -> str:
    return f"In the {heading} table, " if heading else ""


def _row(tripleset: Tripleset, references: list[str], source: str, extended: bool | None) -> dict[str, Any] | None:
    if not references:
        return None
    return {
        "tripleset": tripleset,
        "references": references,
        "source": source,
        "subtree_was_extended": extended,
    }
