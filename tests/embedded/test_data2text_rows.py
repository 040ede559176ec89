"""Embedded data-to-text rows: fields, splits, content of the references, and the prose for pre-training."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from itertools import islice
from typing import Any

import pytest
import sacrebleu
from slot_errors import slot_errors

from rosa_bench.embedded import data2text
from rosa_bench.embedded.data2text.relations import SEEN, UNSEEN
from rosa_bench.embedded.data2text.restaurants import KEYS, meaning_string, parse_meaning
from rosa_bench.embedded.reserve import reserved

SCORED = ("validation", "test")
# sha256 of all rows and of the first documents; a change here makes every earlier embedded result incomparable
PINS = {
    "e2e": "f47e71ed6be9cde2d3161b4aa9d7bc09bf7398b0f6ef14958da48b2faabd7a03",
    "web_nlg": "ffcc4732fd460f9ab20865a9cb0f8953c84f7efaa1ae08dc8bf4a8f99c239b86",
    "dart": "8774bfb493c5ea4c25c4424badb36871cb2b89b0774222ea14dc4a363ca710e8",
    "prose": "6fef29d8b080d66998677b7436a9756d6b37e3f2dd687a5a41a6b1b4d5844231",
}


def references(task: str, row: dict[str, Any]) -> list[str]:
    if task == "e2e":
        return row["human_references"] if "human_references" in row else [row["human_reference"]]
    return row["references"]


def all_references(task: str, split: str) -> list[str]:
    return [text for row in data2text.rows(task, split) for text in references(task, row)]


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode("utf-8")).hexdigest()


def bleu(task: str, hypotheses: list[str]) -> float:
    listed = [references(task, row) for row in data2text.rows(task, "test")]
    width = max(len(texts) for texts in listed)
    columns = [[texts[place] if place < len(texts) else None for texts in listed] for place in range(width)]
    return sacrebleu.corpus_bleu(hypotheses, columns).score


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(islice(data2text.prose(0), 4000))


@pytest.mark.parametrize("task", data2text.TASKS)
def test_every_split_is_large_enough_and_its_ids_are_unique(task: str) -> None:
    sizes = {split: len(data2text.rows(task, split)) for split in data2text.SPLITS}
    assert sizes == {"train": 4000, "validation": 500, "test": 500}
    ids = [row["id"] for split in data2text.SPLITS for row in data2text.rows(task, split)]
    assert len(set(ids)) == len(ids) == 5000


def test_e2e_rows_have_the_fields_of_the_real_set() -> None:
    for row in data2text.rows("e2e", "train"):
        assert list(row) == ["id", "meaning_representation", "human_reference"]
        assert isinstance(row["human_reference"], str)
    for split in SCORED:
        for row in data2text.rows("e2e", split):
            assert list(row) == ["id", "meaning_representation", "human_references"]
            assert 3 <= len(set(row["human_references"])) == len(row["human_references"]) <= 8
            meaning = parse_meaning(row["meaning_representation"])
            assert 3 <= len(meaning) <= 8
            assert [key for key in KEYS if key in meaning] == list(meaning)
            assert meaning_string(meaning) == row["meaning_representation"]


def test_e2e_meanings_repeat_in_training() -> None:
    meanings = {row["meaning_representation"] for row in data2text.rows("e2e", "train")}
    assert 800 <= len(meanings) <= 1600
    words = [len(text.split()) for text in all_references("e2e", "train")]
    assert 14 <= sum(words) / len(words) <= 20
    assert max(words) <= 40


@pytest.mark.parametrize("split", data2text.SPLITS)
def test_web_nlg_rows_have_the_fields_of_the_real_set(split: str) -> None:
    fields = ["id", "category", "size", "eid", "triples", "references", "lids", "comments"]
    for row in data2text.rows("web_nlg", split):
        assert list(row) == fields + ["seen"] * (split == "test")
        assert 1 <= row["size"] == len(row["triples"]) <= 5
        assert all(len(triple.split(" | ")) == 3 for triple in row["triples"])
        assert 1 <= len(row["references"]) == len(row["lids"]) == len(row["comments"]) <= 3
        assert set(row["comments"]) == {"good"}
        assert row["lids"][0] == "Id1"


@pytest.mark.parametrize("split", data2text.SPLITS)
def test_dart_rows_have_the_fields_of_the_real_set(split: str) -> None:
    rows = data2text.rows("dart", split)
    for row in rows:
        assert list(row) == ["id", "tripleset", "references", "source", "subtree_was_extended"]
        assert all(len(triple) == 3 and all(isinstance(part, str) for part in triple) for triple in row["tripleset"])
        assert (row["subtree_was_extended"] is None) == (row["source"] == "e2e")
    titled = [row for row in rows if row["tripleset"][0][:2] == ["[TABLECONTEXT]", "[TITLE]"]]
    assert 0.05 < len(titled) / len(rows) < 0.2
    chained = [row for row in rows if {t[0] for t in row["tripleset"]} & {t[2] for t in row["tripleset"]}]
    assert len(chained) / len(rows) > 0.1
    assert len({row["source"] for row in rows}) == 6


@pytest.mark.parametrize("task", data2text.TASKS)
def test_splits_share_neither_an_input_nor_a_reference(task: str) -> None:
    for split in data2text.SPLITS:
        scored = split != "train"
        inputs = [data2text.input_string(task, row) for row in data2text.rows(task, split)]
        assert all(reserved(text) == scored for text in inputs)
        assert all(reserved(text) == scored for text in all_references(task, split))
        if scored or task != "e2e":
            assert len(set(inputs)) == len(inputs)
    first, second = (
        {data2text.input_string(task, row) for row in data2text.rows(task, split)} | set(all_references(task, split))
        for split in SCORED
    )
    assert not first & second


def test_most_names_of_the_scored_e2e_splits_are_new() -> None:
    def names(split: str, key: str) -> list[str]:
        meanings = [parse_meaning(row["meaning_representation"]) for row in data2text.rows("e2e", split)]
        return [meaning[key] for meaning in meanings if key in meaning]

    for split in SCORED:
        for key in ("name", "near"):
            known = set(names("train", key))
            drawn = names(split, key)
            assert 0.45 < sum(name not in known for name in drawn) / len(drawn) < 0.75
    new = {name for name in names("test", "name") if reserved(name)}
    assert not new & {*names("validation", "name"), *names("train", "name")}


def test_the_unseen_categories_are_in_the_test_split_only() -> None:
    for split in ("train", "validation"):
        rows = data2text.rows("web_nlg", split)
        assert {row["category"] for row in rows} == set(SEEN)
    rows = data2text.rows("web_nlg", "test")
    assert {row["category"] for row in rows if not row["seen"]} == set(UNSEEN)
    assert {row["category"] for row in rows if row["seen"]} == set(SEEN)
    assert sum(row["seen"] for row in rows) == 250
    learned = {triple.split(" | ")[1] for row in data2text.rows("web_nlg", "train") for triple in row["triples"]}
    new = {link.name for _, links in UNSEEN.values() for link in links}
    assert not learned & new
    assert all(new & {t.split(" | ")[1] for t in row["triples"]} for row in rows if not row["seen"])


@pytest.mark.parametrize("task", data2text.TASKS)
@pytest.mark.parametrize("split", data2text.SPLITS)
def test_no_reference_has_a_slot_error(task: str, split: str) -> None:
    for row in data2text.rows(task, split):
        for text in references(task, row):
            assert slot_errors(task, row, text)[0] == 0, (row, text)


@pytest.mark.parametrize("task", data2text.TASKS)
def test_the_references_of_other_rows_have_many_slot_errors(task: str) -> None:
    rows = data2text.rows(task, "test")
    counts = [slot_errors(task, row, references(task, rows[place - 7])[0]) for place, row in enumerate(rows)]
    assert sum(wrong for wrong, _ in counts) / sum(number for _, number in counts) > 0.75


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Blue Fox is a cheap Thai place.", 3),  # no kind, and neither the rating nor "not for families" is said
        ("Blue Fox is a cheap pub. It gets low ratings and suits adults only.", 0),
        ("Blue Fox is a low-priced pub with low customer ratings that turns children away.", 0),
        ("Blue Fox is an inexpensive pub. It gets low ratings and is family-friendly.", 1),
        ("Blue Fox is an expensive pub. It gets low ratings and is not family-friendly.", 1),
        ("Blue Foxes is a cheap pub. It gets low ratings and suits adults only.", 1),
        ("Blue Fox is a cheap pub near Velmora. It gets low ratings and suits adults only.", 1),
        ("Blue Fox is a cheap Greek pub by the river. It gets low ratings and suits adults only.", 2),
        ("", 5),
    ],
)
def test_slot_errors_count_missing_wrong_and_invented_attributes(text: str, wrong: int) -> None:
    meaning = "name[Blue Fox], eatType[pub], priceRange[cheap], customer rating[low], familyFriendly[no]"
    assert slot_errors("e2e", meaning, text) == (wrong, 5)


def test_slot_errors_refuse_a_task_without_attributes() -> None:
    with pytest.raises(ValueError, match="sst2"):
        slot_errors("sst2", {}, "")


def test_constant_and_copied_answers_score_low() -> None:
    rows = data2text.rows("e2e", "test")
    # the best of the first 150 training references as an answer to every row: 13.5; the input as its own answer: 6.2
    constant = "Golden Hearth is an adults-only coffee house with high prices. It is in the riverside area."
    assert constant in all_references("e2e", "train")
    assert 10 < bleu("e2e", [constant] * len(rows)) < 15
    assert bleu("e2e", [row["meaning_representation"] for row in rows]) < 10


def test_prose_contains_no_reserved_text(documents: list[str]) -> None:
    for document in documents:
        pieces = {document, *document.split("\n")}
        for line in document.split("\n"):
            pieces.update(re.split(r"(?<=[.!?]) +", line))
        assert not [piece for piece in pieces if reserved(piece)], document


def test_prose_is_never_in_the_notation_of_a_task(documents: list[str]) -> None:
    text = "\n\n".join(documents)
    assert not re.search(r"\w\[| \| |\[TABLECONTEXT\]|\[TITLE\]|eatType|priceRange|familyFriendly|&&", text)
    new = [link.name for _, links in UNSEEN.values() for link in links]
    assert not [name for name in new if re.search(rf"\b{name}\b", text)]
    assert max(len(document.split()) for document in documents) < 90


def test_prose_contains_no_new_names_of_the_test_split(documents: list[str]) -> None:
    text = "\n".join(documents)
    names = {parse_meaning(row["meaning_representation"])["name"] for row in data2text.rows("e2e", "test")}
    new = [name for name in names if reserved(name) and " " in name]
    assert len(new) > 80
    # a new name can be part of a longer one ("The Blue Fox"), but hardly ever is
    assert sum(name in text for name in new) / len(new) < 0.2


def test_prose_has_a_closed_vocabulary_apart_from_names(documents: list[str]) -> None:
    words = re.findall(r"(?<![\w'])[a-z]+(?![\w'])", "\n".join(documents))
    assert len(set(words)) < 900


def test_prose_depends_on_the_seed(documents: list[str]) -> None:
    assert list(islice(data2text.prose(0), 50)) == documents[:50]
    assert list(islice(data2text.prose(1), 50)) != documents[:50]


def test_prose_is_written_faster_than_it_is_read() -> None:
    start = time.process_time()
    words = sum(len(document.split()) for document in islice(data2text.prose(2), 4000))
    assert words / (time.process_time() - start) > 50_000


def test_all_rows_are_written_in_two_seconds() -> None:
    program = (
        "import time; from rosa_bench.embedded import data2text as d; start = time.process_time();"
        "[d.rows(task, split) for task in d.TASKS for split in d.SPLITS]; print(time.process_time() - start)"
    )
    # other work on the machine can only make it slower, so the best of three is what counts
    runs = (subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "123")
    assert any(float(run.stdout) < 2.0 for run in runs)


def test_rows_refuse_an_unknown_task_or_split() -> None:
    with pytest.raises(ValueError, match="sst2"):
        data2text.rows("sst2", "train")
    with pytest.raises(ValueError, match="dev"):
        data2text.rows("e2e", "dev")


@pytest.mark.parametrize("task", data2text.TASKS)
def test_rows_are_the_same_on_every_platform(task: str) -> None:
    assert digest([data2text.rows(task, split) for split in data2text.SPLITS]) == PINS[task]


def test_prose_is_the_same_on_every_platform(documents: list[str]) -> None:
    assert digest(documents[:1000]) == PINS["prose"]
