"""Arbitrary rows: read correctly, or refused with file, line and field."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import odd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import TASKS, composed

from rosa_bench import embedded
from rosa_bench.core.task import Example
from rosa_bench.data import source
from rosa_bench.data.source import json_lines, load_split
from rosa_bench.errors import UsageError
from rosa_bench.system.strict_json import is_number

RUNS = {name: composed(f"task={name}") for name in TASKS}
ROWS = {name: json.loads(json.dumps(next(iter(run.task.embedded("train"))))) for name, run in RUNS.items()}
SPOILED = st.one_of(odd.VALUES, st.recursive(odd.PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=5))


def whole(task: Any, example: Example) -> None:
    """Check an accepted example."""
    assert example.id and example.texts and all(isinstance(text, str) for text in example.texts)
    json.dumps([example.id, example.texts, example.references], ensure_ascii=False).encode()
    if task.kind.name == "generate":
        assert example.references and all(text.strip() for text in example.references)
    elif task.kind.name == "regress":
        assert all(map(is_number, example.label if isinstance(example.label, list) else [example.label]))
    else:
        assert type(example.label) is int and 0 <= example.label < (task.num_labels or len(example.texts) - 1)


def read(path: Path) -> list[tuple[Any, str]]:
    return list(json_lines(path))


@odd.tried(200, 20_000)
def test_rows_with_spoiled_fields(examples, tmp_path):
    path = tmp_path / "rows.jsonl"

    @examples
    @given(data=st.data(), name=st.sampled_from(TASKS))
    def check(data, name):
        row, task = copy.deepcopy(ROWS[name]), RUNS[name].task
        for key in data.draw(st.lists(st.sampled_from([*row, "id", "idx", "extra"]), min_size=1, max_size=2)):
            if data.draw(st.booleans()):
                row[key] = data.draw(SPOILED)
            else:
                row.pop(key, None)
        path.write_text(json.dumps(row) + "\n")  # with NaN and Infinity, as many programs write them
        try:
            ((result, where),) = json_lines(path)
            example = task.parse(result, where)
            for target in task.targets(example):
                whole(task, target)
        except UsageError as error:
            assert odd.is_plain(str(error)) and str(error).startswith(f"{path}:1: "), str(error)
        else:
            whole(task, example)

    check()


@odd.tried(150, 10_000)
def test_files_of_bytes(examples, tmp_path):
    """Text files and archives with bytes removed, changed and inserted."""
    lines = b"".join(json.dumps({"sentence": f"A cat {i}.", "label": i % 2}).encode() + b"\n" for i in range(20))

    @examples
    @given(
        packed=st.booleans(),
        at=st.integers(0, 10**6),
        cut=st.integers(0, 40),
        put=st.one_of(
            st.binary(max_size=20), st.sampled_from([b"\x00", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"["])
        ),
    )
    def check(packed, at, cut, put):
        content = gzip.compress(lines, mtime=0) if packed else lines
        at %= len(content)
        path = tmp_path / ("rows.jsonl.gz" if packed else "rows.jsonl")
        path.write_bytes(content[:at] + put + content[at + cut :])
        try:
            rows = read(path)
        except UsageError as error:
            assert odd.is_plain(str(error)) and str(path) in str(error)
        else:
            assert all(where.startswith(f"{path}:") for _, where in rows)

    check()


def local(folder: Path, content: bytes, task: str = "cola", suffix: str = ".jsonl") -> source.Split:
    run = composed(f"task={task}", "data=local", f"data.dir='{folder}'")
    place = folder / run.task.folder
    place.mkdir(parents=True, exist_ok=True)
    (place / f"train{suffix}").write_bytes(content)
    return load_split(run.task, run.data, "train")


ROW = b'{"sentence": "The cat sees it.", "label": 1%s}\n'
FAULTS = {
    "a key twice": (ROW % b', "label": 0', "duplicate key 'label'"),
    "half a surrogate pair": (rb'{"sentence": "a \ud800 b", "label": 1}', "an unpaired surrogate"),
    "half a pair in an id": (ROW % rb', "id": "\udc00"', "an unpaired surrogate"),
    "an id that is a list": (ROW % b', "id": [1]', "field 'id' is list"),
    "a label of 400 digits": (b'{"sentence": "a", "label": 1%s}' % (b"0" * 400), "not one of 0..1"),
    "a label of 5000 digits": (b'{"sentence": "a", "label": 1%s}' % (b"0" * 5000), "not JSON"),
    "many other fields": (json.dumps(dict.fromkeys(map(str, range(5000)))).encode(), "is missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_known_faults(name, tmp_path):
    content, message = FAULTS[name]
    with pytest.raises(UsageError) as caught:
        local(tmp_path, content)
    assert message in str(caught.value) and odd.is_plain(str(caught.value))


@pytest.mark.parametrize("label", ["1e999", "1" + "0" * 400, "-1e999", "1e308"])
def test_a_score_that_is_not_a_number(label, tmp_path):
    row = f'{{"sentence1": "a", "sentence2": "b", "label": {label}}}\n'
    with pytest.raises(UsageError, match=r"rows|train\.jsonl:1: field 'label'"):
        local(tmp_path, row.encode(), "stsb")


def test_a_null_id_counts_as_missing(tmp_path):
    assert local(tmp_path, ROW % b', "id": null').examples[0].id.endswith("train.jsonl:1")


def test_a_row_of_the_drawn_task_is_one_of_the_drawn(tmp_path):
    label = [0.0] * RUNS["synthetic"].task.outputs
    for row, message in [({"label": label}, "'id' is missing"), ({"id": 10**9, "label": label}, "not one of 0..5999")]:
        with pytest.raises(UsageError, match=message):
            local(tmp_path, json.dumps(row).encode(), "synthetic")
    with pytest.raises(UsageError, match="list of 32 finite numbers"):
        local(tmp_path, json.dumps({"id": 1, "label": [*label[1:], None]}).encode(), "synthetic")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_line_of_a_hundred_megabytes(suffix, tmp_path):
    content = ROW % b"" + b'{"sentence": "' + b"a" * 100_000_000 + b'", "label": 1}\n'
    packed = gzip.compress(content, 1) if suffix.endswith("gz") else content
    with pytest.raises(UsageError, match="2: longer than 16 MB"):
        local(tmp_path, packed, suffix=suffix)


def test_unusual_valid_rows_are_accepted(tmp_path):
    """Control characters, other scripts and very long texts are valid."""
    texts = ["\x00\x01\x7f", "é" * 100_000, "\u202eabc", "🦊\u200d🦊", "a\tb\u2028c", "' OR 1=1 --", "${seed}", "nan"]
    rows = b"".join(json.dumps({"sentence": text, "label": 0}).encode() + b"\n" for text in texts)
    assert [example.texts[0] for example in local(tmp_path, rows).examples] == texts


def test_every_embedded_row_is_valid():
    for run in RUNS.values():
        for row in list(run.task.embedded("train"))[:50]:
            whole(run.task, run.task.parse(row, "here"))
    assert embedded.VERSION
