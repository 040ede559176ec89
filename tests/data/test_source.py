"""Reading of rows: unusual but valid rows are accepted; invalid ones are refused with file, line and field."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from datetime import datetime

import pyarrow
import pyarrow.parquet
import pytest
from support import TASKS, composed

from rosa_bench.core.task import Hub, Upstream
from rosa_bench.data import releases, upstream
from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.system.files import cache_dir

ROW = {"sentence": "The cat sees it.", "label": 1, "idx": 0}


def local(folder, content: bytes, task: str = "cola", split: str = "train", suffix: str = ".jsonl"):
    """The rows of a local data set with one file of this content."""
    folder.mkdir(exist_ok=True)
    run = composed(f"task={task}", "data=local", f"data.dir='{folder}'")
    place = folder / run.task.folder
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{split}{suffix}").write_bytes(content)
    return load_split(run.task, run.data, split)


def lines(*rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_plain_and_gzip_files_give_the_same_rows(tmp_path):
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
    "no object": (b"[1]\n", "a row must be a JSON object"),
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
    content, message = BROKEN[name]
    with pytest.raises(UsageError) as caught:
        local(tmp_path, content)
    assert message in str(caught.value) and "\n" not in str(caught.value)


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


def test_a_missing_split_lists_the_files_of_the_folder(tmp_path):
    local(tmp_path, lines(ROW))
    run = composed("task=cola", "data=local", f"data.dir='{tmp_path}'")
    with pytest.raises(UsageError, match=r"validation.jsonl \(or .jsonl.gz\) is missing; the folder has train.jsonl$"):
        load_split(run.task, run.data, "validation")
    other = composed("task=sst2", "data=local", f"data.dir='{tmp_path}'")
    with pytest.raises(UsageError, match="glue/sst2 is not a folder"):
        load_split(other.task, other.data, "train")


@pytest.mark.parametrize(
    ("task", "file", "advice"),
    [
        ("cola", "glue/cola/dev.jsonl", "rename dev.jsonl to validation.jsonl"),
        ("cola", "glue/cola/val.jsonl.gz", "rename val.jsonl.gz to validation.jsonl.gz"),
        ("cola", "glue/cola/dev.tsv", "convert dev.tsv to validation.jsonl"),
        ("cola", "glue/cola/validation.csv", "convert validation.csv to validation.jsonl"),
        ("mnli", "glue/mnli/dev_matched.tsv", "convert dev_matched.tsv to validation_matched.jsonl"),
        ("cola", "dev.tsv", "move dev.tsv to"),
    ],
)
def test_files_of_other_formats_are_named_with_the_expected_one(tmp_path, task, file, advice):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    run = composed(f"task={task}", "data=local", f"data.dir='{tmp_path}'")
    with pytest.raises(UsageError, match=advice) as error:
        load_split(run.task, run.data, run.task.select_split)
    assert f"{tmp_path}/glue/{task}/{run.task.select_split}.jsonl (or .jsonl.gz) is missing" in str(error.value)


def test_the_folder_of_one_set_is_refused(tmp_path):
    (tmp_path / "glue" / "cola").mkdir(parents=True)
    run = composed("task=cola", "data=local", f"data.dir='{tmp_path / 'glue' / 'cola'}'")
    with pytest.raises(UsageError, match=f"set data.dir={tmp_path}$"):
        load_split(run.task, run.data, "train")


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


def test_lora_scores_equal_inputs_of_dart_once(tmp_path):
    def row(subject, *references):
        return {"tripleset": [[subject, "LOCATION", "B"]], "references": references}

    content = lines(row("A", "x", "y"), row("C", "z"), row("A", "w", "x"))
    read = local(tmp_path, content, "dart", "test")
    assert [example.references for example in read.examples] == [("x", "y", "w", "x"), ("z",)] and read.rows == 3
    separate = composed("task=dart", "task.scoring=dart", "data=local", f"data.dir='{tmp_path}'")
    assert len(load_split(separate.task, separate.data, "test").examples) == 3
    assert len(local(tmp_path, content, "dart", "train").examples) == 5


def test_the_limit_keeps_the_first_rows_but_the_hash_is_of_all():
    run = composed("task=cola")
    whole, some = load_split(run.task, run.data, "train"), load_split(run.task, run.data, "train", 5)
    assert some.examples == whole.examples[:5] and some.sha256 == whole.sha256 and some.rows == whole.rows


def test_an_unreachable_hub_is_one_line_with_alternatives():
    run = composed("task=cola", "data=hub")
    with pytest.raises(UsageError) as caught:
        load_split(run.task, run.data, "train")
    assert all(
        part in str(caught.value) for part in ("nyu-mll/glue", "data=embedded", "data=local")
    ) and "\n" not in str(caught.value)


def hub_rows(task: str) -> list[dict]:
    """Four rows of a split in the format of the task's hub."""
    node = composed(f"task={task}").task
    if task == "e2e":
        names = ("Aa", "Bb", "Ac", "Aa")
        return [{"meaning_representation": f"name[{n}]", "human_reference": f"It is {n}. "} for n in names]
    if task == "dart":
        notes = {"text": ["One.", "", "Two."], "source": ["s", "s", "s"]}
        return [{"tripleset": [[f"A{i}", "IS", "B"]], "annotations": notes} for i in range(4)]
    rows = [{"idx": i} for i in range(4)]
    if node.kind.name == "choice" and not node.answers:
        for i, row in enumerate(rows):
            row |= {"id": f"q{i}", "choices": {"label": ["A", "B"], "text": ["one", "two"]}, "answerKey": "AB"[i % 2]}
    for i, row in enumerate(rows):
        ours = node.texts if hasattr(node, "texts") else [*node._fields, *node.answers]
        row |= {{v: k for k, v in getattr(node, "renamed", {}).items()}.get(name, name): f"{name} {i}" for name in ours}
        row |= {"label": float(i) if node.kind.name == "regress" else i % 2}
    return rows


def parquet(rows: list[dict]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("task", [task for task in TASKS if task not in ("synthetic", "webnlg")])
def test_every_set_is_read_from_the_hub_and_then_from_the_cache(task, hub_server, hub_offline):
    run = composed(f"task={task}", "data=hub")
    source, rows = run.task.hub, hub_rows(task)
    files = {
        source.files.format(split=split).replace("*", f"0000{part}"): parquet(rows[2 * part : 2 * part + 2])
        for split in run.task.splits
        for part in ((0, 1) if "*" in source.files else (0,))
    }
    hub_server.add("datasets", source.repository, files | {"other.txt": b"large"}, commit=source.revision)
    online = {split: load_split(run.task, run.data, split) for split in run.task.splits}
    assert not any("other.txt" in request for request in hub_server.requests)
    hub_server.requests.clear()
    hub_offline()
    assert {split: load_split(run.task, run.data, split) for split in run.task.splits} == online
    assert not hub_server.requests
    read = online[run.task.scored_splits[0]]
    if task == "e2e":
        assert [(e.texts, e.references) for e in read.examples] == [
            (("name : Aa",), ("It is Aa. ", "It is Aa. ")), (("name : Bb",), ("It is Bb. ",)),
            (("name : Ac",), ("It is Ac. ",)),
        ]  # fmt: skip
    elif task == "dart":
        assert read.examples[0].texts == ("A0 : is : B",) and read.examples[0].references == ("One.", "Two.")
    else:
        assert read.rows == (4 if "*" in source.files else 2)
        assert read.examples[1].label == (3 if task == "sciq" else 1)


def upstream_file(task: str) -> bytes:
    """A file in the format in which the authors publish it."""
    if task == "e2e":
        return b'"mr","ref"\n"name[A]","It is, ""A""."\n"name[B]","B.\nIndeed."\n"name[A]","A."\n'
    if task == "dart":
        notes = [{"source": "s", "text": "One."}, {"source": "s", "text": ""}]
        return json.dumps([{"tripleset": [["A", "IS", "B"]], "annotations": notes}]).encode()
    triple = {"subject": "A", "property": "is", "object": "B"}
    entry = {"category": "Artist", "xml_id": "Id1", "modifiedtripleset": [triple], "lexicalisations": [{"lex": "One."}]}
    return json.dumps({"entries": [{"1": entry}, {"2": entry | {"category": "City", "xml_id": "Id2"}}]}).encode()


def served_upstream(task: str, hub_server, monkeypatch):
    """A run whose data set the hub no longer has, and the path of its upstream file."""
    content = upstream_file(task)
    run = composed(f"task={task}", "data=hub")
    files = {split: ("data/file", upstream.blob_id(content)) for split in run.task.splits}
    source = Upstream("org/set", "c" * 40, files)
    source = source if task == "webnlg" else Hub("org/hub", "d" * 40, "{split}.parquet", source)
    monkeypatch.setattr(type(run.task), "hub", property(lambda _: source))
    monkeypatch.setattr(upstream, "RAW", hub_server.address)
    path = f"/org/set/{'c' * 40}/data/file"
    hub_server.raw[path] = content
    hub_server.add("datasets", "org/hub", {"later.parquet": b""})
    return run, path


@pytest.mark.parametrize("task", ["e2e", "dart", "webnlg"])
def test_a_set_missing_on_the_hub_is_read_from_upstream(task, hub_server, hub_offline, monkeypatch):
    run, path = served_upstream(task, hub_server, monkeypatch)
    loaded = load_split(run.task, run.data, "test")
    assert loaded.upstream == f"org/set@{'c' * 40}" and hub_server.requests.count(f"GET {path}") == 1
    assert task == "webnlg" or loaded.examples[0].id == "org/hub/test row 0"
    texts = [(example.texts[0], example.references, example.subset) for example in loaded.examples]
    assert (
        texts
        == {
            "e2e": [("name : A", ('It is, "A".', "A."), ""), ("name : B", ("B.\nIndeed.",), "")],
            "dart": [("A : is : B", ("One.",), "")],
            "webnlg": [("A : is : B", ("One.",), "unseen"), ("A : is : B", ("One.",), "seen")],
        }[task]
    )
    hub_offline()
    assert load_split(run.task, run.data, "test") == loaded and hub_server.requests.count(f"GET {path}") == 1


def test_an_upstream_file_that_was_changed_is_refused(hub_server, hub_offline, monkeypatch):
    run, path = served_upstream("e2e", hub_server, monkeypatch)
    hub_server.raw[path] += b" "
    with pytest.raises(
        UsageError,
        match=r"e2e/test: http\S+ has no revision d+; http\S+data/file does not match the commit.*Use data=embedded",
    ):
        load_split(run.task, run.data, "test")
    del hub_server.raw[path]
    with pytest.raises(UsageError, match=r"data/file cannot be downloaded \(HTTPStatusError"):
        load_split(run.task, run.data, "test")
    hub_offline()
    with pytest.raises(UsageError, match="is not complete in the cache"):
        load_split(run.task, run.data, "test")


def test_a_temporary_failure_of_the_hub_does_not_use_upstream_files(hub_server, monkeypatch):
    run, path = served_upstream("e2e", hub_server, monkeypatch)
    hub_server.fail("/api/", status=503)
    with pytest.raises(UsageError, match="answered 503"):
        load_split(run.task, run.data, "test")
    assert f"GET {path}" not in hub_server.requests


def test_a_damaged_upstream_file_in_the_cache_is_downloaded_again(hub_server, monkeypatch):
    run, path = served_upstream("webnlg", hub_server, monkeypatch)
    loaded = load_split(run.task, run.data, "test")
    (kept,) = (cache_dir() / "upstream").glob(upstream.blob_id(hub_server.raw[path]))
    kept.write_bytes(b"{}")
    assert load_split(run.task, run.data, "test") == loaded and hub_server.requests.count(f"GET {path}") == 2


def test_an_invalid_parquet_file_is_named(hub_server):
    run = composed("task=cola", "data=hub")
    source = run.task.hub
    hub_server.add("datasets", source.repository, {"cola/train-0.parquet": b"no"}, commit=source.revision)
    with pytest.raises(UsageError, match=r"train-0\.parquet: not a readable parquet file"):
        load_split(run.task, run.data, "train")


def test_fields_of_any_type_may_stand_beside_those_that_are_read(hub_server):
    run = composed("task=piqa", "data=hub", "task.hub_repository=org/rows", "task.hub_files='{split}.parquet'")
    row = {"goal": "Dry it", "sol1": "x", "sol2": "y", "label": 1, "time": datetime(2024, 1, 1), "image": b"\x89PNG"}
    hub_server.add("datasets", "org/rows", {"train.parquet": parquet([row])}, commit=run.task.hub.revision)
    loaded = load_split(run.task, run.data, "train")
    assert loaded.rows == 1 and loaded.examples[0].texts == ("Question: Dry it\nAnswer:", "x", "y")


def test_only_the_split_is_replaced_in_a_pattern_of_files(hub_server):
    run = composed("task=piqa", "data=hub", "task.hub_repository=org/rows", "task.hub_files='{name}/{split}.parquet'")
    hub_server.add("datasets", "org/rows", {"train.parquet": b""}, commit=run.task.hub.revision)
    with pytest.raises(UsageError, match=r"has no file \{name\}/train\.parquet"):
        load_split(run.task, run.data, "train")


def test_rows_are_compared_with_the_release(hub_server, monkeypatch, capsys):
    """The digest covers a JSON list per row: the fields that the task reads, stripped."""
    run = composed("task=stsb", "data=hub")
    rows = [{"sentence1": " a ", "sentence2": "b", "label": label, "idx": 7} for label in (0.1, 5.0)]
    table = pyarrow.Table.from_pylist(rows).cast(
        pyarrow.schema([("sentence1", "string"), ("sentence2", "string"), ("label", "float32"), ("idx", "int32")])
    )
    pyarrow.parquet.write_table(table, sink := pyarrow.BufferOutputStream())
    content = sink.getvalue().to_pybytes()
    hub_server.add("datasets", run.task.hub.repository, {"stsb/train-0.parquet": content}, commit=run.task.hub.revision)
    sha256 = hashlib.sha256(b'["a", "b", 0.1]\n["a", "b", 5.0]\n').hexdigest()
    for release, same in [
        ({"rows": 2, "sha256": sha256}, True),
        ({"rows": 2}, True),
        ({"rows": 3, "sha256": sha256}, False),
        ({"rows": 2, "sha256": "0" * 64}, False),
        (None, None),
    ]:
        known = {} if release is None else {"stsb": {"train": release}}
        monkeypatch.setattr(releases, "releases", lambda known=known: known)
        assert load_split(run.task, run.data, "train").released is same
    assert capsys.readouterr().err == (
        "rosa_bench: data=hub: the 2 rows of stsb/train differ from the public release; tables mark the scores\n"
    )


def test_the_real_rows_are_those_of_the_release(shared_data):
    compared = 0
    for task, splits in releases.releases().items():
        run = composed(f"task={task}", "data=local", f"data.dir='{shared_data}'")
        for split in splits:
            if "sha256" in splits[split]:
                compared += 1
                assert load_split(run.task, run.data, split).released is True, (task, split)
    assert compared == 23
