"""Embedded GLUE-like rows: format, balance, disjoint splits, no cue from word counts."""

from __future__ import annotations

import json
import re
import time
from hashlib import sha256
from itertools import islice

import pytest

from rosa_bench import embedded
from rosa_bench.embedded import acceptability, glue, lexicon
from rosa_bench.embedded.grammar import Grammar
from rosa_bench.embedded.reserve import normalize, reserved

FIELDS = {task: fields for task, (fields, _, _) in glue.TASKS.items()}
SHARES = {task: shares for task, (_, shares, _) in glue.TASKS.items() if task != "stsb"}
SPLITS = [(task, split) for task in embedded.GLUE_TASKS for split in embedded.splits(task)]
FAMILIES = {name for name, _, _ in acceptability.FAMILIES}
# of the rows of all splits of a task, written as JSON: a changed row changes every number measured on it
PROSE_DIGEST = "d916aae1bc035603b4d2a67310a2188e188cd7b58574bf1fa2a6d3a37df4c51f"
DIGESTS: dict[str, str] = {
    "cola": "4b4c5e8e125dbc37713a04611153e5fa8ff346b803500a7626db564573056225",
    "sst2": "bbb3bd5cfdee55d9e89f9b312084f525dd302aafbd89a6df623473c1bd882675",
    "mrpc": "dff7173f5a905aaa7acbd347b1a78789e7de1dccf2362f3df7c90cdeb2c3fdd4",
    "stsb": "9ecf8bcb194d10133005deef26cf4206dc0f1385d89f7730cccb150ebfb8bcf6",
    "qqp": "6fac7cb2e02150aab4b186daeb9a953e757451609b80feec551fe83559b984c6",
    "mnli": "45d508fde38a59af8cb0fca4a5a247eab406dcecc19a802cdd605fe8c40907f7",
    "qnli": "6c4db00b80858a78ad58ff812cdfcb6508eca07af035676237f601c654e18560",
    "rte": "731edd2bce2b86101970779707109459a175a2dff64e233919d7c607f7767320",
    "wnli": "30edf448dc6d169cbefcde8370814e99ea0d721ea52926b8ade2d9b051eebb2a",
}


@pytest.fixture(scope="module", autouse=True)
def seconds() -> float:
    """CPU seconds to write every row once."""
    embedded.rows.cache_clear()
    glue.rows.cache_clear()
    began = time.process_time()
    for task, split in SPLITS:
        embedded.rows(task, split)
    return time.process_time() - began


def texts(task: str, split: str) -> list[str]:
    """All texts of a split."""
    return [row[field] for row in embedded.rows(task, split) for field in FIELDS[task]]


@pytest.mark.parametrize(("task", "split"), SPLITS)
def test_rows_have_the_fields_of_the_real_set(task: str, split: str) -> None:
    rows = embedded.rows(task, split)
    assert len(rows) == (4000 if split == "train" else 600)
    assert [row["idx"] for row in rows] == list(range(len(rows)))
    for row in rows:
        assert set(row) == {*FIELDS[task], "label", "idx", "id"}
        assert all(isinstance(row[field], str) and row[field] for field in FIELDS[task])
        assert type(row["label"]) is (float if task == "stsb" else int)
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize(("task", "split"), [s for s in SPLITS if s[0] != "stsb"])
def test_labels_have_the_documented_frequencies(task: str, split: str) -> None:
    labels = [row["label"] for row in embedded.rows(task, split)]
    for label, share in enumerate(SHARES[task]):
        assert labels.count(label) / len(labels) == pytest.approx(share, abs=0.02)


def test_similarity_scores_fill_the_scale() -> None:
    scores = [row["label"] for row in embedded.rows("stsb", "train")]
    assert (min(scores), max(scores)) == (0.0, 5.0)
    assert all(sum(low <= s < low + 1 for s in scores) > 200 for low in range(5))


def test_ids_name_the_violation() -> None:
    for split in embedded.splits("cola"):
        kinds = {}
        for row in embedded.rows("cola", split):
            match = re.fullmatch(rf"cola-{split}-\d{{4}}-([a-z_]+)", row["id"])
            assert match
            assert (match[1] == "ok") == (row["label"] == 1)
            kinds[match[1]] = kinds.get(match[1], 0) + 1
        assert set(kinds) == FAMILIES | {"ok"}


@pytest.mark.parametrize(("task", "split"), SPLITS)
def test_scored_texts_are_reserved_and_train_texts_are_not(task: str, split: str) -> None:
    assert {reserved(text) for text in texts(task, split)} == {split != "train"}


@pytest.mark.parametrize(("task", "split"), SPLITS)
def test_rows_are_unique(task: str, split: str) -> None:
    output = [tuple(normalize(row[field]) for field in FIELDS[task]) for row in embedded.rows(task, split)]
    assert len(set(output)) == len(output)


def test_scored_splits_share_no_text() -> None:
    matched, mismatched = ({normalize(t) for t in texts("mnli", s)} for s in embedded.splits("mnli")[1:])
    assert not matched & mismatched


def test_most_words_of_the_scored_sentences_are_new() -> None:
    def content(split: str) -> list[str]:
        verbs = {form for group in lexicon.pool().verbs.values() for verb in group for form in verb[:5]}
        return [w for text in texts("cola", split) for w in re.findall(r"[a-z-]+", text) if w in verbs]

    known = set(content("train"))
    scored = content("validation")
    assert sum(word not in known for word in scored) > 0.6 * len(scored)


def test_prose_is_never_reserved_and_the_same_each_time() -> None:
    first = list(islice(embedded.prose("encoder", 3), 3000))
    assert first == list(islice(embedded.prose("encoder", 3), 3000))
    assert first[:50] != list(islice(embedded.prose("encoder", 4), 50))
    known = sha256("\n".join(islice(embedded.prose("encoder", 1000), 2000)).encode())
    assert known.hexdigest() == PROSE_DIGEST  # the shipped backbones were pre-trained on this stream
    sentences = [s for document in first for s in re.split(r"(?<=[.?]) ", document)]
    assert not [s for s in sentences if reserved(s)]


def test_prose_uses_the_whole_lexicon() -> None:
    words = {
        w.lower() for document in islice(embedded.prose("encoder", 0), 20000) for w in re.findall(r"[\w-]+", document)
    }
    whole = lexicon.pool()
    forms = {form for n in [*whole.people, *whole.animals, *whole.objects] for form in (n.sg, n.pl)}
    forms |= {form for group in whole.verbs.values() for verb in group for form in verb[:5]}
    missing = {form for form in forms if form.lower() not in words}
    assert len(missing) < 0.02 * len(forms), sorted(missing)


def test_families_cross_their_features() -> None:
    """No single word indicates a violation: each family uses its words equally on both sides."""
    for name, family, _ in acceptability.FAMILIES:
        g = Grammar(f"cross-{name}", lexicon.pool("all", 1))
        counts: list[dict[str, int]] = [{}, {}]
        for i in range(3000):
            for word in set(re.findall(r"[\w-]+", family(g, i % 2 == 0).lower())):
                counts[i % 2][word] = counts[i % 2].get(word, 0) + 1
        for word in set(counts[0]) | set(counts[1]):
            assert abs(counts[0].get(word, 0) - counts[1].get(word, 0)) < 150, (name, word)


def test_word_counts_do_not_reveal_acceptability() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import matthews_corrcoef

    train, scored = embedded.rows("cola", "train"), embedded.rows("cola", "validation")
    for longest in (1, 2):
        counts = CountVectorizer(ngram_range=(1, longest), token_pattern=r"[\w'-]+|[?.,]")
        model = LogisticRegression(C=0.3, solver="liblinear", class_weight="balanced")
        model.fit(counts.fit_transform([r["sentence"] for r in train]), [r["label"] for r in train])
        output = model.predict(counts.transform([r["sentence"] for r in scored]))
        assert 100 * matthews_corrcoef([r["label"] for r in scored], output) < 15


def test_writing_is_fast(seconds: float) -> None:
    assert seconds < 5  # about 1.6 s on a free core


@pytest.mark.parametrize("task", sorted(DIGESTS))
def test_rows_never_change(task: str) -> None:
    output = json.dumps([embedded.rows(task, split) for split in embedded.splits(task)], sort_keys=True)
    assert sha256(output.encode()).hexdigest() == DIGESTS[task]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown embedded task 'qqqp'"):
        embedded.rows("qqqp", "train")
    with pytest.raises(ValueError, match="has no split 'test'"):
        embedded.rows("cola", "test")
    with pytest.raises(ValueError, match="unknown prose"):
        next(embedded.prose("poet", 0))
