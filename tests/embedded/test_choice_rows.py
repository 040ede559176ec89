"""Embedded multiple-choice rows: format, balance, disjoint splits, no cue from length."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from hashlib import sha256

import pytest
from support import composed

from rosa_bench import embedded
from rosa_bench.embedded import choices
from rosa_bench.embedded.grammar import Grammar
from rosa_bench.embedded.reserve import reserved

SPLITS = [(task, split) for task in embedded.CHOICE_TASKS for split in embedded.splits(task)]
FIELDS = {
    "piqa": {"goal", "sol1", "sol2", "label"},
    "sciq": {"question", "support", "correct_answer", "distractor1", "distractor2", "distractor3"},
}
# of the rows of all splits of a task, written as JSON: a changed row changes every number measured on it
DIGESTS = {
    "openbookqa": "8bc9141191702fcb038bee2d47b7ed1e7f2980f6548fb0e50a505056f93b9db1",
    "piqa": "5792b87095ab177789de662cd6fa8bef8e4e13747cd58885baa14715e9cd2314",
    "arc_easy": "d9a41d76743d6b87ad7358d277640c282e44b3c68eee47e4ea2a53d67ad4ac63",
    "arc_challenge": "04b698bc703ac5ae9fad38a7dad53396c2621e190ad519c49687fd6c67112f6f",
    "sciq": "4c23337b42e8a8ad43e576a43c7294c760832a855e3fa2f9a3b8a2e8e8b10a28",
}


@cache
def examples(task: str, split: str):
    read = composed(f"task={task}").task
    return [read.parse(row, "here") for row in embedded.rows(task, split)]


@pytest.mark.parametrize(("task", "split"), SPLITS)
def test_rows_have_the_fields_of_the_real_set(task, split):
    rows = embedded.rows(task, split)
    assert len(rows) == (4000 if split == "train" else 600)
    assert len({row["id"] for row in rows}) == len(rows) and [row["idx"] for row in rows] == list(range(len(rows)))
    wanted = FIELDS.get(task, {"question", "choices", "answerKey"}) | {"id", "idx"}
    assert all(set(row) == wanted for row in rows)
    assert all(len(set(e.texts[1:])) == len(e.texts) - 1 == (2 if task == "piqa" else 4) for e in examples(task, split))


@pytest.mark.parametrize(("task", "split"), [s for s in SPLITS if s[0] != "sciq"])
def test_right_answers_are_uniform_over_positions(task, split):
    result = Counter(e.label for e in examples(task, split))
    share = 1 / len(result)
    assert all(count / result.total() == pytest.approx(share, abs=0.06) for count in result.values())


@pytest.mark.parametrize("task", embedded.CHOICE_TASKS)
def test_no_question_is_in_two_splits(task):
    prompts = [{e.texts[0] for e in examples(task, split)} for split in embedded.splits(task)]
    assert sum(map(len, prompts)) == len(set().union(*prompts)) == 4000 + 600 * (len(prompts) - 1)


@pytest.mark.parametrize("task", ["piqa", "arc_challenge"])
def test_sentences_respect_the_reservation(task):
    """Right answers of scored splits are reserved; answers of training rows are not."""
    for split in embedded.splits(task):
        result = examples(task, split)
        if split == "train":
            assert not any(reserved(text) for e in result for text in e.texts[1:])
        else:
            assert all(reserved(e.texts[1 + e.label]) for e in result)


@pytest.mark.parametrize("task", embedded.CHOICE_TASKS)
def test_the_reservation_covers_the_text_of_a_row(task):
    g, result = Grammar(f"test-{task}"), []
    while len(result) < 50:
        q = choices.DRAWS[task](g, True)
        if q is not None:
            result.append(q)
    for q in result:
        whole = " ".join([q.support, q.question, *q.answers, f"{q.question} {q.answers[0]}"]).lower()
        assert q.sentences and all(text.lower() in whole for text in (*q.sentences, *q.others))


@pytest.mark.parametrize("task", ["openbookqa", "arc_challenge", "piqa"])
def test_length_does_not_reveal_the_right_answer(task):
    result = [e for split in embedded.splits(task) for e in examples(task, split)]
    chance = 1 / (len(result[0].texts) - 1)
    for choose in (min, max):
        right = sum(choose(e.texts[1:], key=len) == e.texts[1 + e.label] for e in result) / len(result)
        assert right < chance + 0.15, (choose.__name__, right)


@pytest.mark.parametrize("task", sorted(DIGESTS))
def test_rows_never_change(task):
    output = json.dumps([embedded.rows(task, split) for split in embedded.splits(task)], sort_keys=True)
    assert sha256(output.encode()).hexdigest() == DIGESTS[task]
