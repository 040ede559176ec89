"""Damaged files for `python -m rosa_bench.score`: the right number or a one-line error, never a wrong number."""

from __future__ import annotations

import functools
import json

import odd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rosa_bench import score
from rosa_bench.errors import EXIT_DONE, EXIT_USAGE
from rosa_bench.metrics import meteor

KINDS = {"cola": "label", "stsb": "label", "e2e": "references", "dart": "references", "sciq": "label"}


compose = score.compose
composed = functools.cache(lambda overrides: compose(list(overrides)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Compose configurations once, and skip METEOR, which has its own test of odd texts."""
    monkeypatch.setattr("rosa_bench.score.compose", lambda overrides: composed(tuple(overrides)))
    monkeypatch.setattr("rosa_bench.metrics.meteor.missing", lambda: "left out here")


def told(capsys, task, folder, *more):
    arguments = ["--task", task, "--predictions", str(folder / "out.txt"), "--references", str(folder / "refs.jsonl")]
    code = score.main([*arguments, "--json", *more])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if code == EXIT_USAGE:
        assert not out and odd.is_plain(err.rstrip("\n")), err
        return None, err
    assert code == EXIT_DONE and not err
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} was told as a score"))["scores"], ""


GOOD = {
    "cola": (["1", "0"], [{"label": 1}, {"label": 1}]),
    "stsb": (["2.5", "4"], [{"label": 2.0}, {"label": 5}]),
    "e2e": (["a pub .", "a cafe ."], [{"references": ["a pub ."]}, {"references": ["b"]}]),
    "dart": (["a pub .", "a cafe ."], [{"references": ["a pub ."]}, {"references": ["b", "c"]}]),
    "sciq": (["1", "3"], [{"label": 1}, {"label": 0}]),
}


@odd.tried(60, 4_000)
def test_odd_values_in_references(examples, tmp_path, capsys):
    @examples
    @given(task=st.sampled_from(sorted(KINDS)), value=odd.VALUES, at=st.integers(0, 1))
    def check(task, value, at):
        predictions, rows = GOOD[task]
        rows = [dict(row) for row in rows]
        rows[at][KINDS[task]] = value
        (tmp_path / "out.txt").write_text("\n".join(predictions) + "\n")
        (tmp_path / "refs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        scores, _ = told(capsys, task, tmp_path)
        if scores is None:
            return
        if KINDS[task] == "references":
            assert isinstance(value, list) and value and all(isinstance(text, str) and text.strip() for text in value)
        else:
            assert type(value) in ((int, float) if task == "stsb" else (int,)) and 0 <= value <= {
                "stsb": 5,
                "sciq": 3,
            }.get(task, 1)

    check()


@odd.tried(60, 4_000)
def test_odd_lines_in_predictions(examples, tmp_path, capsys):
    lines = st.one_of(odd.TEXTS, odd.NUMBERS.map(str), st.sampled_from(["1_0", "١", "0x1", "1e0", "+1", " 1 ", "-0"]))

    @examples
    @given(task=st.sampled_from(sorted(KINDS)), line=lines)
    def check(task, line):
        predictions, rows = GOOD[task]
        content = f"{predictions[0]}\n{line}\n"
        (tmp_path / "out.txt").write_bytes(content.encode("utf-8", "surrogatepass"))
        (tmp_path / "refs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        scores, _ = told(capsys, task, tmp_path)
        if scores is None or KINDS[task] == "references":
            return
        assert "\n" not in line and line.strip().isascii() and "_" not in line
        assert task == "stsb" or int(line) in {"cola": range(2), "sciq": range(4)}[task]

    check()


@odd.tried(60, 3_000)
def test_files_of_bytes(examples, tmp_path, capsys):
    @examples
    @given(
        task=st.sampled_from(sorted(KINDS)),
        out=st.binary(max_size=30),
        refs=st.one_of(st.none(), st.binary(max_size=30)),
    )
    def check(task, out, refs):
        rows = "".join(json.dumps(row) + "\n" for row in GOOD[task][1]).encode()
        (tmp_path / "out.txt").write_bytes(out)
        (tmp_path / "refs.jsonl").write_bytes(rows if refs is None else refs)
        told(capsys, task, tmp_path)

    check()


FAULTS = {
    "a class there is not": ("cola", "7", {"label": 1}, "out.txt:1: 7 is not one of 0..1"),
    "a label there is not": ("cola", "1", {"label": 7}, "refs.jsonl:1: field 'label' is 7"),
    "a label between classes": ("cola", "1", {"label": 0.5}, "'label' is float, not int"),
    "a choice there is not": ("sciq", "4", {"label": 1}, "4 is not one of 0..3"),
    "a negative choice": ("sciq", "-1", {"label": 1}, "-1 is not one of"),
    "underscores": ("stsb", "1_0", {"label": 1}, "is not a number"),
    "digits of another script": ("cola", "١", {"label": 1}, "is not a number"),
    "nan": ("stsb", "nan", {"label": 1}, "is not a number"),
    "too large": ("stsb", "1e999", {"label": 1}, "is not a number"),
    "a score out of range": ("stsb", "1", {"label": 500}, "not between 0 and 5"),
    "a label of 400 digits": ("stsb", "1", {"label": 10**400}, "not a finite number"),
    "several outputs a row": ("synthetic", "1", {"label": [0.0] * 32}, "32 outputs a row"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_known_faults(name, tmp_path, capsys):
    task, line, row, message = FAULTS[name]
    (tmp_path / "out.txt").write_text(line + "\n", encoding="utf-8")
    (tmp_path / "refs.jsonl").write_text(json.dumps(row) + "\n")
    scores, err = told(capsys, task, tmp_path)
    assert scores is None and message in err, err


@pytest.mark.parametrize("task", sorted(KINDS))
def test_empty_files_have_no_score(task, tmp_path, capsys):
    (tmp_path / "out.txt").write_bytes(b"")
    (tmp_path / "refs.jsonl").write_bytes(b"")
    scores, err = told(capsys, task, tmp_path)
    assert scores is None and "is empty" in err


def test_odd_texts_reach_meteor_one_line_each(tmp_path, capsys, monkeypatch):
    """METEOR's program reads lines and fields; a text that contains separators must remain one text."""
    monkeypatch.undo()
    if meteor.missing():
        pytest.skip("METEOR is not here")
    odd_texts = ["a ||| b", "x\x0by\u2028z\x85w\x1cv", "\x00", "", "a pub ."]
    (tmp_path / "out.txt").write_text("\n".join(odd_texts) + "\n", encoding="utf-8")
    (tmp_path / "refs.jsonl").write_text("".join(json.dumps({"references": ["a pub ."]}) + "\n" for _ in odd_texts))
    scores, _ = told(capsys, "dart", tmp_path)
    assert scores is not None and 0 < scores["test"]["meteor"] < 0.5
