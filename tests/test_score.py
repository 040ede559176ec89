"""`python -m rosa_bench.score` on files of every format, and its messages for invalid files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rosa_bench import embedded, score
from rosa_bench.errors import EXIT_DONE, EXIT_USAGE

TEXTS = ["The Mill is a cheap pub.", "Zürich’s «café» costs £20."]


@pytest.fixture
def files(tmp_path):
    """Predictions and references of two outputs, in both formats."""
    (tmp_path / "out.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    rows = [{"references": [text, "A pub."], "seen": i == 0} for i, text in enumerate(TEXTS)]
    (tmp_path / "refs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "refs.txt").write_text("\n\n".join(f"{text}\nA pub." for text in TEXTS) + "\n", encoding="utf-8")
    return tmp_path


def told(capsys, folder, *arguments):
    code = score.main([*arguments, "--predictions", str(folder / "out.txt")])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


@pytest.mark.parametrize("references", ["refs.jsonl", "refs.txt"])
def test_e2e_with_references_in_both_formats(files, capsys, references):
    code, out, _ = told(capsys, files, "--task", "e2e", "--references", str(files / references), "--json")
    content = json.loads(out)
    assert code == EXIT_DONE and content["rows"] == 2
    assert content["scores"]["test"]["bleu"] == pytest.approx(100.0)
    assert {"bleu", "nist", "rouge_l", "cider"} <= set(content["scores"]["test"])
    assert set(content["scores"]["test"]) | set(content["absent"]) == {"bleu", "nist", "meteor", "rouge_l", "cider"}
    assert content["scoring"]["convention"] == "official" and "mteval" in content["scoring"]["metrics"]["bleu"]


def test_webnlg_as_text_with_its_subsets(files, capsys):
    arguments = ("--task", "webnlg", "--scoring", "webnlg2017", "--references", str(files / "refs.jsonl"))
    code, out, _ = told(capsys, files, *arguments)
    assert code == EXIT_DONE and "convention webnlg2017, raw references" in out
    rows = [line.split() for line in out.split("\n\n")[0].splitlines()]
    result = {split: float(value) for split, name, value in (row for row in rows if len(row) == 3) if name == "bleu"}
    assert result.pop("test_seen") == 100.0
    # these scripts turn outputs into ASCII before they split them, references after: outside of ASCII a copy is none
    assert set(result) == {"test", "test_unseen"} and all(value < 100 for value in result.values())


def test_a_metric_without_a_value_in_a_subset_names_the_subset(files, capsys):
    (files / "out.txt").write_text(f"{TEXTS[0]}\n\n", encoding="utf-8")  # of one line, GenerationEval reads none
    _, out, _ = told(capsys, files, "--task", "webnlg", "--references", str(files / "refs.jsonl"), "--json")
    assert json.loads(out)["absent"]["bleu"].endswith("and the outputs have no other line (test_unseen)")


def test_predictions_are_compared_with_a_split_of_the_task(tmp_path, capsys):
    rows = embedded.rows("e2e", "test")
    (tmp_path / "out.txt").write_bytes("\r\n".join(row["human_references"][0] for row in rows).encode())
    code, out, _ = told(capsys, tmp_path, "--task", "e2e", "--split", "test", "--json")
    assert code == EXIT_DONE and json.loads(out)["scores"]["test"]["bleu"] == pytest.approx(100.0)


def test_glue_predictions_are_numbers(tmp_path, capsys):
    rows = embedded.rows("mrpc", "validation")
    (tmp_path / "out.txt").write_text("".join(f"{row['label']}\n" for row in rows))
    code, out, _ = told(capsys, tmp_path, "--task", "mrpc", "--json")
    assert code == EXIT_DONE and json.loads(out)["scores"]["validation"] == {"accuracy": 100.0, "f1": 100.0}
    (tmp_path / "out.txt").write_text("yes\n" * len(rows))
    code, _, err = told(capsys, tmp_path, "--task", "mrpc")
    assert code == EXIT_USAGE and "out.txt:1: 'yes' is not a number" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "e3e"), "did you mean"),
        (("--task", "e2e", "--scoring", "best"), "task.scoring"),
        (("--task", "e2e", "--references", "{}/nothing.jsonl"), "nothing.jsonl"),
        (("--task", "e2e", "--references", "{}/broken.jsonl"), "broken.jsonl:1: not JSON"),
        (("--task", "e2e", "--references", "{}/empty.jsonl"), "there are 0 references"),
        (("--task", "e2e", "--references", "{}/null.jsonl"), "not a list of non-empty strings"),
        (("--task", "e2e", "--references", "{}/one.jsonl"), "2 lines, but there are 1 references"),
        (("--task", "mrpc", "--references", "{}/refs.txt"), "JSON lines"),
        (("--task", "e2e", "data=local", "data.dir={}"), "e2e_nlg"),
    ],
)
def test_invalid_files_are_one_line(files, capsys, arguments, message):
    for name, text in {
        "broken": "{",
        "empty": "",
        "null": '{"references": [null]}\n',
        "one": '{"refs": ["a"]}\n',
    }.items():
        (files / f"{name}.jsonl").write_text(text)
    code, out, err = told(capsys, files, *(argument.format(files) for argument in arguments))
    assert code == EXIT_USAGE and message in err and not out and len(err.splitlines()) == 1


def test_bytes_that_are_not_utf8(files, capsys):
    (files / "out.txt").write_bytes(b"a\nb\xff\n")
    code, _, err = told(capsys, files, "--task", "e2e", "--references", str(files / "refs.jsonl"))
    assert code == EXIT_USAGE and "not UTF-8" in err


def test_from_the_command_line(files):
    command = [sys.executable, "-m", "rosa_bench.score", "--task", "dart", "--predictions", "out.txt"]
    done = subprocess.run(
        [*command, "--references", "refs.jsonl", "--scoring", "dart"],
        cwd=files,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == EXIT_DONE and "ter" in done.stdout, done.stderr
