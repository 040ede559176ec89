"""Arbitrary records: invalid ones are skipped with a message; the rest is shown correctly and as plain text."""

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
from support import composed

from rosa_bench.errors import UsageError
from rosa_bench.records import predictions
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record
from rosa_bench.system.files import file_name
from rosa_bench.system.strict_json import is_number
from rosa_bench.tables import __main__ as tables
from rosa_bench.tables import build as building
from rosa_bench.tables import comparison_cache
from rosa_bench.tables.convergence import reader
from rosa_bench.tables.figures.curves import curve_panels
from rosa_bench.tables.formats import comma_separated, long_csv, markdown
from rosa_bench.tables.html.page import page
from rosa_bench.tables.latex import latex

RUN = composed("method=lora", "task=cola").to_dict()


def record(seed: int = 1, score: float = 50.0) -> dict[str, Any]:
    """A finished record as in its file."""
    return Record(
        run_id=f"cola-roberta_mini-lora-s{seed}-0",
        key=f"{seed:064x}",
        task="cola",
        model="roberta_mini",
        method="lora",
        seed=seed,
        config=copy.deepcopy(RUN) | {"seed": seed},
        status="done",
        variant_names=[""],
        data={"source": "embedded v1", "sha256": {"train": "a"}, "rows": {"train": 9}},
        scores={"validation": {"": {"matthews": score}}},
        primary={"metric": "matthews", "split": "validation", "last": score, "best": score, "higher_is_better": True},
        params={"trainable": 1000, "total": 2000},
        cost={"memory": {"weights": 1}, "train_s": 1.0},
        facts={"backbone_hash": "b"},
        env={"packages": {"torch": "2"}, "device": "cpu"},
    ).to_dict()


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / name / "record.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


def paths(value: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every place in nested mappings."""
    inner = (
        [path for key, part in value.items() for path in paths(part, (*before, key))] if isinstance(value, dict) else []
    )
    return ([before] if before else []) + inner


PLACES = sorted(paths(record()))


def spoil(output: dict[str, Any], path: tuple[str, ...], value: Any, how: str) -> None:
    """Change, remove or add something at a place."""
    for name in path[:-1]:
        output = output[name]
    if how == "take away":
        del output[path[-1]]
    else:
        output[path[-1] if how == "change" else f"{path[-1]} too"] = value


def rendered(folder: Path) -> tuple[list[Any], list[str]]:
    """Every format of the tables of a folder's records, in memory."""
    collection = collect([folder])
    grids = building.build(collection, {})
    for grid in grids:
        texts = markdown(grid), comma_separated(grid), long_csv(grid), latex(grid)
        "".join(texts).encode()
        assert "/" not in grid.name and not grid.name.startswith(".") and len(grid.name.encode()) < 240
    html = page(grids, (), collection.broken).encode().decode()
    assert "<script>alert" not in html and html.count("<script") == 2
    return [record for group in collection.groups for record in group.records.values()], collection.broken


@odd.tried(120, 8_000)
def test_one_odd_value_anywhere_in_a_record(examples, tmp_path):
    write(tmp_path, "good", json.dumps(record(seed=2)))

    @examples
    @given(
        path=st.sampled_from(PLACES),
        value=st.one_of(odd.VALUES, st.just("<script>alert(1)</script>"), st.just([[]])),
        how=st.sampled_from(["change", "change", "change", "take away", "add"]),
    )
    def check(path, value, how):
        content = record()
        spoil(content, path, value, how)
        write(tmp_path, "bad", json.dumps(content))
        records, broken = rendered(tmp_path)
        assert len(broken) <= 1 and all(odd.is_plain(line) and "bad/record.json" in line for line in broken)
        assert [r.primary["last"] for r in records if r.run_id.endswith("s2-0")] == [50.0]
        for result in (r for r in records if not r.run_id.endswith("s2-0")):
            scores = [v for by in result.scores.values() for s in by.values() for v in s.values()]
            assert all(map(is_number, scores)) and result.primary.get("last", 50.0) in (50.0, *scores)

    check()


@odd.tried(120, 5_000)
def test_records_of_bytes(examples, tmp_path):
    """A file with a part missing, changed or duplicated."""
    content = json.dumps(record(), indent=1).encode()
    path = write(tmp_path, "bad", "")

    @examples
    @given(at=st.integers(0, len(content)), cut=st.integers(0, 60), put=st.binary(max_size=9))
    def check(at, cut, put):
        path.write_bytes(content[:at] + put + content[at + cut :])
        _, broken = rendered(tmp_path)
        assert all(odd.is_plain(line) for line in broken)

    check()


FAULTS = {
    "nested deep": (("facts", "x"), lambda: json.loads("[" * 500 + "]" * 500), "nested deeper"),
    "a number of 400 digits": (("scores", "validation", "", "matthews"), lambda: 10**400, "matthews"),
    "a score that is true": (("scores", "validation", "", "matthews"), lambda: True, "matthews"),
    "a key that is a list": (("key",), lambda: [1], "key is"),
    "two scores": (("primary", "last"), lambda: 99.0, "primary.last is 99.0, but the score is 50.0"),
    "another seed": (("config", "seed"), lambda: 7, "seed is 1, but config.seed is 7"),
    "half a surrogate pair": (("env", "device"), lambda: "\ud800", "surrogate"),
    "size as a text": (("params", "trainable"), lambda: "1000", "params.trainable"),
    "a name of two lines": (("model",), lambda: "m\n\\input{/etc/passwd}", "model is"),
    "no tags": (("config", "tracker"), lambda: 3, "tracker"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_known_faults(name, tmp_path):
    path, value, message = FAULTS[name]
    content = record()
    spoil(content, path, value(), "change")
    write(tmp_path, "bad", json.dumps(content))
    records, broken = rendered(tmp_path)
    assert not records and len(broken) == 1 and message in broken[0] and odd.is_plain(broken[0])


def test_similar_names_of_models_do_not_share_a_file(tmp_path):
    for seed, model in enumerate(["a b", "a_b", "a-b"], 1):
        content = record(seed)
        content["model"] = content["config"]["model"]["name"] = model
        write(tmp_path, str(seed), json.dumps(content))
    grids = building.build(collect([tmp_path]), {})
    assert len({grid.name for grid in grids}) == 3 and {grid.name for grid in grids} > {"a_b_on_embedded_v1"}


def test_no_file_is_written_outside_of_the_folder(tmp_path, capsys, monkeypatch):
    """Names of models and data become file names."""
    monkeypatch.setattr("rosa_bench.config.choices", lambda group: [])  # the suites' own tables take seconds
    runs, out = tmp_path / "runs", tmp_path / "deep" / "er" / "out"
    for seed, (model, source) in enumerate([("../../../evil", "x"), ("/tmp/evil", "x"), ("a/b", "c"), ("..", "..")], 1):
        content = record(seed)
        content["model"] = content["config"]["model"]["name"] = model
        content["data"]["source"] = source
        write(runs, str(seed), json.dumps(content))
    assert tables.main(["--runs", str(runs), "--out", str(out), "--no-plots"]) == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file() and runs not in path.parents}
    assert written and all(path.parent == out for path in written) and not Path("/tmp/evil_on_x.md").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_file_names_are_safe_and_distinct():
    unsafe = ["a/b", "a b", "a\\b", "../../x", "..", "a" * 300]
    names = [file_name(name) for name in ("m_on_embedded_v1", "a_b", "a-b", "é", *unsafe)]
    assert names[:4] == ["m_on_embedded_v1", "a_b", "a-b", "é"] and len(set(names)) == len(names)
    assert all("/" not in name and "\\" not in name and not name.startswith(".") and len(name) < 120 for name in names)


HOSTILE = "<script>alert(1)</script>\"'&{}|\\input{x}$^_%"


def test_content_of_records_is_escaped_in_every_format(tmp_path):
    content = record()
    content["model"] = content["config"]["model"]["name"] = HOSTILE
    content["config"]["method"]["init"] = HOSTILE + "\n\\end{tabular}\\write18{id}"
    content["env"]["device"] = content["data"]["source"] = content["config"]["task"]["scoring"] = HOSTILE
    write(tmp_path, "1", json.dumps(content))
    write(tmp_path, "2", json.dumps(record(2)))
    assert rendered(tmp_path)[1] == []
    for grid in building.build(collect([tmp_path]), {}):
        table = latex(grid)
        assert all(line.startswith("%") for line in table.split("\\begin{tabular}")[0].splitlines())
        assert (
            "\\write18" not in table.split("\\begin{tabular}")[1]
            and "\\input{" not in table.split("\\begin{tabular}")[1]
        )
        body = [line for line in markdown(grid).splitlines() if line.startswith("|")]
        assert not any("<script" in line for line in body)


def test_a_damaged_curve_is_skipped(tmp_path):
    write(tmp_path, "1", json.dumps(record()))
    lines = [b"[" * 5000, b"\xff", b"null", b"3", b'{"step": "x"}', b'{"step": NaN, "loss": 1}', b'{"step": 1e999}']
    lines += [b'{"step": 1, "loss": true}', b'{"step": 2, "loss": 10%s}' % (b"0" * 400), b'{"step": 3, "scores": 5}']
    (tmp_path / "1" / "events.jsonl").write_bytes(b"\n".join([*lines, b'{"step": 4, "loss": 0.5}', b'{"step": 5, "lo']))
    collection = collect([tmp_path])
    _, losses = curve_panels(collection.groups, reader(collection))
    assert losses is not None and [(p.x, p.values) for line in losses.lines for p in line.points] == [(4, (0.5,))]


@odd.tried(100, 5_000)
def test_stored_predictions(examples, tmp_path):
    path = tmp_path / "predictions-validation.jsonl.gz"
    row = {"id": "1", "prediction": 1, "label": 0, "logits": [0.1, 0.2]}

    @examples
    @given(
        key=st.sampled_from([*row, "lengths", "references", "subset"]),
        value=st.one_of(odd.VALUES, st.lists(odd.NUMBERS)),
    )
    def check(key, value):
        path.write_bytes(gzip.compress((json.dumps(row | {key: value}) + "\n").encode(), 1))
        try:
            result = predictions.read_predictions(path, 1)
        except UsageError as error:
            assert odd.is_plain(str(error))
        else:
            ((one,),) = (result.rows,)
            assert isinstance(one.value, str) or is_number(one.value) or all(map(is_number, one.value))

    check()


@pytest.mark.parametrize("content", [b"[" * 5000, b"\xff", b"{}", b'{"schema": 1, "tests": {"a": 3}}', b"null"])
def test_damaged_comparisons_are_named(content, tmp_path):
    (tmp_path / "tests.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"tests\.json"):
        comparison_cache.load_tests(tmp_path)


def test_the_same_record_gives_the_same_files(tmp_path):
    write(tmp_path, "1", json.dumps(record()))
    texts = [[f(grid) for grid in building.build(collect([tmp_path]), {}) for f in (markdown, latex)] for _ in range(2)]
    assert texts[0] == texts[1] and "50.00" in texts[0][0]
