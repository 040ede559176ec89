"""Metrics of generated text against the numbers of the official programs, and refusals."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
import sacrebleu

from rosa_bench.metrics import conventions, meteor, mteval, rouge_cider
from rosa_bench.metrics.conventions import METRICS, SIGNATURES, score

NAMES = {"BLEU": "bleu", "NIST": "nist", "METEOR": "meteor", "ROUGE_L": "rouge_l", "CIDEr": "cider"}
JAVA = pytest.mark.skipif(meteor.missing() is not None, reason="no Java or no nlg extra")
OUTPUTS = ["The Mill is a cheap pub .", "Near the river there is a pub called The Mill."]
REFERENCES = [["The Mill is a cheap pub.", "A cheap pub is The Mill."], ["The Mill is a pub near the river."]]


@pytest.fixture
def cases(shared_data) -> Path:
    return shared_data.parent / "oracle" / "cases"


def read(folder: Path) -> tuple[dict, list[str], list[dict]]:
    """The numbers of the official programs, the outputs, and the references as rows."""
    official = json.loads((folder / "official.json").read_text(encoding="utf-8"))
    outputs = (folder / "sys.txt").read_text(encoding="utf-8").split("\n")[:-1]
    text = (folder / official["refs"]).read_text(encoding="utf-8")
    if official["refs"].endswith(".jsonl"):
        return official, outputs, [json.loads(line) for line in text.split("\n") if line]
    blocks = [block.split("\n") for block in text.strip("\n").split("\n\n")]
    return official, outputs, [{"refs": block} for block in blocks]


def listed(kind: str) -> list[str]:
    """The cases of a data set; empty without an oracle."""
    from beside import SHARED

    result = sorted(path.parent.name for path in (SHARED / "oracle" / "cases").glob("*/official.json"))
    return [name for name in result if kind in name] or [f"no case of {kind}"]


ALIKE = {"e2e_test_slug", "e2e_test_sheff2"}  # as long as another system's outputs, which are compared in any case


@JAVA
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in listed("e2e")]
)
def test_e2e_equals_the_challenge_and_its_python_port(name, cases):
    official, outputs, rows = read(cases / name)
    references = [row["refs"] for row in rows]
    result = score("e2e", "official", outputs, references)
    exact, printed = official["full_precision"], official["cli_default"]
    for theirs, ours in NAMES.items():
        points = 100 if ours in ("bleu", "meteor", "rouge_l") else 1
        assert result[ours] / points == pytest.approx(float(printed[theirs]), abs=5.1e-5), ours
        if theirs in exact:
            assert result[ours] / points == pytest.approx(exact[theirs], rel=1e-12), ours
    port = score("e2e", "lora", outputs, references, ["bleu", "nist"])
    if "pymteval_error" in exact:
        assert "nist" not in port and "divides by zero" in port.absent["nist"]
    else:
        assert port["bleu"] / 100 == pytest.approx(exact["BLEU_py"], rel=1e-12)
        assert port["nist"] == pytest.approx(exact["NIST_py"], rel=1e-12)


@JAVA
@pytest.mark.parametrize("name", listed("webnlg") + listed("dart"))
@pytest.mark.parametrize(
    ("key", "convention"), [("geneval_lora", "lora"), ("webnlg2017", "webnlg2017"), ("dart", "dart")]
)
def test_triples_equal_the_scripts(name, key, convention, cases):
    if name == "webnlg_test_bartlarge":
        pytest.skip("see the slow test")
    compare_triples(cases / name, key, convention)


@JAVA
@pytest.mark.slow
@pytest.mark.parametrize(("key", "convention"), [("geneval_lora", "lora"), ("webnlg2017", "webnlg2017")])
def test_the_complete_webnlg_test_set_equals_the_scripts(key, convention, cases):
    compare_triples(cases / "webnlg_test_bartlarge", key, convention)


def compare_triples(folder: Path, key: str, convention: str) -> None:
    official, outputs, rows = read(folder)
    if key not in official:
        pytest.skip(f"not scored by {key}")
    parts = {"all": official[key]} if key == "dart" else official[key]
    for part, expected in parts.items():
        kept = [i for i, row in enumerate(rows) if part == "all" or row["seen"] == (part == "seen")]
        result = score("triples", convention, [outputs[i] for i in kept], [rows[i]["refs"] for i in kept])
        output = {
            NAMES.get(name, name): float(value)
            for name, value in expected.items()
            if name in {*NAMES, "bleu", "meteor", "ter"}
        }
        assert result["bleu"] == pytest.approx(output["bleu"], abs=5.1e-3)
        for name in ("meteor", "ter"):
            if output.get(name, -1) >= 0:  # -1 is how the tool says that METEOR failed
                assert result[name] == pytest.approx(output[name], rel=1e-12), name


def test_every_metric_has_a_signature():
    for (family, _), signature in SIGNATURES.items():
        assert tuple(signature) == METRICS[family]


@pytest.mark.parametrize(("outputs", "references"), [([], []), (["a"], []), (["a"], [[]]), (["a", "b"], [["a"]])])
@pytest.mark.parametrize("family", METRICS)
def test_invalid_inputs_are_refused(family, outputs, references):
    with pytest.raises(ValueError, match="lists of references"):
        score(family, "lora", outputs, references)
    with pytest.raises(ValueError, match="choose from"):
        score(family, "nobody", ["a"], [["a"]])


def test_without_java_meteor_is_absent_with_a_reason(monkeypatch):
    meteor.shared().close()
    monkeypatch.setattr(meteor.shutil, "which", lambda _: None)
    result = score("e2e", "official", OUTPUTS, REFERENCES)
    assert set(result) == {"bleu", "nist", "rouge_l", "cider"}
    assert "java not found" in result.absent["meteor"] and "nlg" in result.absent["meteor"]


@JAVA
def test_meteor_restarts_after_its_process_dies():
    process = meteor.Meteor()
    first = process.evaluated(OUTPUTS, REFERENCES)
    process._process.kill()
    assert process.evaluated(OUTPUTS, REFERENCES) == first and 0 < first[0] < 1
    running = process._process
    process.close()
    assert running.poll() is not None


@JAVA
def test_meteor_that_dies_twice_is_absent(monkeypatch):
    process = meteor.Meteor()
    monkeypatch.setattr(meteor.Meteor, "_ask", lambda *_: (_ for _ in ()).throw(BrokenPipeError("gone")))
    with pytest.raises(meteor.UnavailableError, match="failed twice"):
        process.evaluated(OUTPUTS, REFERENCES)
    assert process._process is None


def test_a_copy_is_perfect_and_an_empty_output_counts():
    for text in ("a pub called the mill", "Crème brûlée costs £20 — “cheap”, isn't it?"):
        result = score("e2e", "official", [text] * 2, [[text], [text, "another one"]], ["bleu", "rouge_l"])
        assert result == pytest.approx({"bleu": 100.0, "rouge_l": 100.0})
        assert score("triples", "dart", [text], [[text]], ["bleu", "ter"]) == pytest.approx({"bleu": 100.0, "ter": 0.0})
    half = score("e2e", "official", ["a pub called the mill", ""], [["a pub called the mill"]] * 2, ["rouge_l"])
    assert half["rouge_l"] == pytest.approx(50.0)
    assert score("e2e", "official", ["", ""], [["a"], ["b"]], ["bleu", "nist", "rouge_l", "cider"]) == pytest.approx(
        {"bleu": 0.0, "nist": 0.0, "rouge_l": 0.0, "cider": 0.0}
    )


def test_nist_closed_form():
    """One output equal to its only reference of four different words: log2(4) per word, zero for longer n-grams."""
    segments = mteval.perl_segments(["w x y z"], [["w x y z"]])
    assert mteval.nist_perl(segments) == pytest.approx(2.0)
    assert mteval.nist_perl(mteval.perl_segments(["w x"], [["w x y z"]])) == pytest.approx(
        2.0 * 2 ** -((1 / 0.5849625007) ** 2), rel=1e-6
    )  # half the length: 0.5 to the power of (log 2 / log 1.5) squared


def test_rouge_and_cider_equal_the_published_code():
    """Against pycocoevalcap on the same tokens, with varying numbers of references, duplicates and an empty output."""
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    outputs, references = rouge_cider.tokenized(
        [*OUTPUTS, "", "the the the"], [*REFERENCES, ["empty"], ["the", "the the"]]
    )
    output = [{i: [text] for i, text in enumerate(outputs)}, dict(enumerate(references))]
    expected = rouge.Rouge().compute_score(output[1], output[0])[0]
    assert statistics.mean(rouge_cider.rouge_l(outputs, references)) == pytest.approx(expected)
    expected = cider.Cider().compute_score(output[1], output[0])[0]
    assert 10 * statistics.mean(rouge_cider.cider(outputs, references)) == pytest.approx(expected)


def test_an_empty_last_line():
    """GenerationEval's BLEU skips an empty last line; each convention has its own text form."""
    last = score("triples", "lora", [*OUTPUTS, ""], [*REFERENCES, ["x y"]], ["bleu"])
    assert last == score("triples", "lora", OUTPUTS, REFERENCES, ["bleu"])
    assert "no other line" in score("triples", "lora", [""], [["x y"]], ["bleu"]).absent["bleu"]
    assert conventions.PREPARATIONS["webnlg2017"](["5°C"], [["5°C"]]) == (["5degc"], [["5 deg c"]])


@pytest.mark.parametrize(
    ("convention", "options"),
    [
        ("lora", {"tokenize": "13a"}),
        ("webnlg2017", {"tokenize": "none", "lowercase": True}),
        ("dart", {"tokenize": "none"}),
    ],
)
def test_bleu_of_triples_equals_sacrebleu(convention, options):
    """On the prepared texts, with references that differ in number; an absent one is empty, or repeated by LoRA's."""
    outputs = [*OUTPUTS, "A Pub, the Mill's; 3.5 stars!", "x"]
    references = [*REFERENCES, ["The Mill's pub; 3.5 stars.", "A pub"], ["Another text", "x y", "X"]]
    texts, refs = conventions.PREPARATIONS[convention](outputs, references)
    columns = [[group[i] if i < len(group) else "" for group in refs] for i in range(max(map(len, refs)))]
    expected = sacrebleu.BLEU(smooth_method="none", force=True, **options).corpus_score(texts, columns).score
    assert score("triples", convention, outputs, references, ["bleu"]) == {"bleu": expected}


def test_ter_without_a_word_in_any_reference_is_absent():
    result = score("triples", "dart", ["a"], [[" "]], ["ter"])
    assert not result and "divides by zero" in result.absent["ter"]


def test_only_ascii_white_space_separates_words_for_programs_in_perl_and_java():
    result = score("triples", "dart", ["a b c d e\xa0f"], [["a b c d e f"]], ["bleu", "ter"])
    precision = (4 / 5) * (3 / 4) * (2 / 3) * (1 / 2)
    assert result == pytest.approx({"bleu": 100 * precision**0.25 * math.exp(1 - 6 / 5), "ter": 2 / 6})
