"""Rows: read rightly where they are odd but right, refused with file, line and field where they are wrong."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from support import composed

from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError

ROW = {"sentence": "The cat sees it.", "label": 1, "idx": 0}


def local(folder, content: bytes, task: str = "cola", split: str = "train", suffix: str = ".jsonl"):
    """A local data set whose one file has this content, read."""
    folder.mkdir(exist_ok=True)
    run = composed(f"task={task}", "data=local", f"data.dir='{folder}'")
    place = folder / run.task.folder
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{split}{suffix}").write_bytes(content)
    return load_split(run.task, run.data, split)


def lines(*rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_reads_plain_and_gzip_alike(tmp_path):
    plain = local(tmp_path / "a", lines(ROW, ROW | {"idx": 1}))
    packed = local(tmp_path / "b", gzip.compress(lines(ROW, ROW | {"idx": 1})), suffix=".jsonl.gz")
    assert plain == packed and plain.rows == 2 and plain.examples[0].texts == ("The cat sees it.",)


def test_a_bom_crlf_and_no_final_newline_change_nothing(tmp_path):
    usual = local(tmp_path / "a", lines(ROW, ROW))
    odd = b"\xef\xbb\xbf" + lines(ROW, ROW).replace(b"\n", b"\r\n")[:-2]
    assert local(tmp_path / "b", odd) == usual


def test_line_separators_inside_a_text_do_not_split_the_row(tmp_path):
    row = ROW | {"sentence": "one\u2028two\u0085three\x0bfour"}
    raw = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    assert local(tmp_path, raw).examples[0].texts == (row["sentence"],)


def without(name: str) -> dict:
    return {key: value for key, value in ROW.items() if key != name}


BROKEN = {
    "missing field": (lines(ROW, without("sentence")), ":2: field 'sentence' is missing"),
    "missing label": (lines(without("label")), ":1: field 'label' is missing"),
    "unknown label": (lines(ROW | {"label": 7}), ":1: field 'label' is 7, not one of 0..1"),
    "hidden label": (lines(ROW | {"label": -1}), "not one of"),
    "label of a wrong type": (lines(ROW | {"label": "1"}), "'label' is str, not int"),
    "label true": (lines(ROW | {"label": True}), "'label' is bool, not int"),
    "text null": (lines(ROW | {"sentence": None}), "'sentence' is NoneType, not str"),
    "text empty": (lines(ROW | {"sentence": "  "}), "'sentence' is empty"),
    "no object": (b"[1]\n", "a row is a JSON object"),
    "no json": (b"{'a': 1}\n", ":1: not JSON"),
    "nan": (b'{"sentence": "a", "label": NaN}\n', "not JSON"),
    "half a line": (lines(ROW)[:-5] + b"\n", "not JSON"),
    "not utf-8": (lines(ROW) + b'{"sentence": "\xff\xfe", "label": 1}\n', ":2: not UTF-8"),
    "utf-16": (json.dumps(ROW).encode("utf-16"), "not UTF-8"),
    "empty file": (b"", "has no rows"),
    "deep": (b"[" * 100_000 + b"\n", ":1: not JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path, name):
    content, said = BROKEN[name]
    with pytest.raises(UsageError) as caught:
        local(tmp_path, content)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [-6, 12, 20])
def test_a_broken_archive_is_named(tmp_path, cut):
    whole = gzip.compress(lines(*[ROW | {"idx": i, "sentence": f"cat {i * i}"} for i in range(500)]))
    with pytest.raises(UsageError, match=r"train\.jsonl\.gz"):
        local(tmp_path, whole[:cut], suffix=".jsonl.gz")


def test_a_bit_flip_in_an_archive_is_named(tmp_path):
    whole = bytearray(gzip.compress(lines(*[ROW | {"idx": i} for i in range(500)])))
    whole[len(whole) // 2] ^= 0xFF
    with pytest.raises(UsageError, match=r"train\.jsonl\.gz"):
        local(tmp_path, bytes(whole), suffix=".jsonl.gz")
    assert issubclass(zlib.error, Exception)


def test_a_missing_split_or_folder_says_what_there_is(tmp_path):
    local(tmp_path, lines(ROW))
    run = composed("task=cola", "data=local", f"data.dir='{tmp_path}'")
    with pytest.raises(UsageError, match="splits there: train"):
        load_split(run.task, run.data, "validation")
    other = composed("task=sst2", "data=local", f"data.dir='{tmp_path}'")
    with pytest.raises(UsageError, match="glue/sst2 is not a folder"):
        load_split(other.task, other.data, "train")


def test_regression_scores_have_a_range(tmp_path):
    row = {"sentence1": "a", "sentence2": "b", "label": 2.5, "idx": 0}
    assert local(tmp_path / "a", lines(row), "stsb").examples[0].label == 2.5
    assert local(tmp_path / "b", lines(row | {"label": 3}), "stsb").examples[0].label == 3.0
    for label in (5.1, -0.1):
        with pytest.raises(UsageError, match="not between 0 and 5"):
            local(tmp_path / "c", lines(row | {"label": label}), "stsb")


def test_meaning_representations(tmp_path):
    row = {
        "meaning_representation": "name[The Fox], customer rating[5 out of 5], near[Café X]",
        "human_reference": "It.",
    }
    example = local(tmp_path / "a", lines(row), "e2e").examples[0]
    assert example.texts == ("name : The Fox | customer rating : 5 out of 5 | near : Café X",)
    assert example.references == ("It.",)
    with pytest.raises(UsageError, match="meaning_representation"):
        local(tmp_path / "b", lines(row | {"meaning_representation": "name The Fox"}), "e2e")
    with pytest.raises(UsageError, match="human_reference"):
        local(tmp_path / "c", lines({"meaning_representation": "name[X]"}), "e2e")


def test_triples(tmp_path):
    web = {
        "triples": ["A_B | cityServed | C"],
        "references": ["x", "y"],
        "category": "Airport",
        "size": 1,
        "eid": "Id1",
    }
    read = local(tmp_path / "a", lines(web), "webnlg")
    assert read.examples[0].texts == ("A_B : cityServed : C",)
    assert [example.references for example in read.examples] == [("x",), ("y",)] and read.rows == 1
    assert local(tmp_path / "a", lines(web), "webnlg", "test").examples[0].references == ("x", "y")
    dart = {"tripleset": [["A", "LOCATION", "B, C"], ["A", "x", "D"]], "references": ["x"]}
    assert local(tmp_path / "b", lines(dart), "dart").examples[0].texts == ("A : location : B, C | A : x : D",)
    for broken in (web | {"triples": ["A | B"]}, web | {"triples": "A | B | C"}, web | {"references": []}):
        with pytest.raises(UsageError, match=":1: field"):
            local(tmp_path / "c", lines(broken), "webnlg")
    with pytest.raises(UsageError, match="tripleset"):
        local(tmp_path / "d", lines(dart | {"tripleset": [["A", "B"]]}), "dart")


def test_the_limit_keeps_the_first_rows_but_the_hash_is_of_all():
    run = composed("task=cola")
    whole, some = load_split(run.task, run.data, "train"), load_split(run.task, run.data, "train", 5)
    assert some.examples == whole.examples[:5] and some.sha256 == whole.sha256 and some.rows == whole.rows


def test_an_unreachable_hub_is_one_line_with_two_ways_on():
    run = composed("task=cola", "data=hub")
    with pytest.raises(UsageError) as caught:
        load_split(run.task, run.data, "train")
    assert all(
        part in str(caught.value) for part in ("nyu-mll/glue", "data=embedded", "data=local")
    ) and "\n" not in str(caught.value)


class FakeHub:
    """Stands in for `datasets.load_dataset`: gives rows shaped as the hub's, and remembers what was asked."""

    def __init__(self, rows):
        self.rows, self.asked = rows, None

    def __call__(self, repository, **options):
        self.asked = (repository, options["revision"], options["data_files"], options["split"])
        return self.rows


HUB_ROWS = {
    "cola": ([ROW, ROW], [("The cat sees it.",)] * 2, [()] * 2),
    "e2e": (
        [{"meaning_representation": f"name[{name}]", "human_reference": text} for name, text in ("Aa", "Bb", "Ac")],
        [("name : A",), ("name : B",)],
        [("a", "c"), ("b",)],
    ),
    "dart": (
        [{"tripleset": [["A", "IS", "B"]], "annotations": {"text": ["x", "y"], "source": ["s", "s"]}}],
        [("A : is : B",)],
        [("x", "y")],
    ),
}


@pytest.mark.parametrize("task", HUB_ROWS)
def test_a_hub_s_rows_are_read_from_a_pinned_revision(task, monkeypatch):
    import datasets

    rows, texts, references = HUB_ROWS[task]
    monkeypatch.setattr(datasets, "load_dataset", hub := FakeHub(rows))
    run = composed(f"task={task}", "data=hub")
    split = run.task.scored_splits[0]
    found = load_split(run.task, run.data, split)
    assert [example.texts for example in found.examples] == texts
    assert [example.references for example in found.examples] == references
    repository, revision, files, asked = hub.asked
    assert len(revision) == 40 and asked == split and files[split].endswith(".parquet") and "/" in repository


def test_a_set_that_no_hub_has_is_said():
    run = composed("task=webnlg", "data=hub")
    with pytest.raises(UsageError, match="data=local"):
        load_split(run.task, run.data, "test")
