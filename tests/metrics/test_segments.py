"""Metrics as functions of sums over outputs: the official score of the whole set and of resamples."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rosa_bench.metrics import conventions, meteor, mteval, rouge_cider
from rosa_bench.stats.bootstrap import NoStatisticError

CONVENTIONS = [(family, name, metric) for (family, name), all_of in conventions.SIGNATURES.items() for metric in all_of]
WORDS = [
    "the",
    "a",
    "mill",
    "pub",
    "cheap",
    "near",
    "is",
    ",",
    ".",
    "family",
    "Café",
    "low-priced",
    "pubs",
    "inexpensive",
    "near",
    "families",
    "5",
]
FIXED = ("nist", "cider")  # by the whole set's references, so a resample scored afresh differs


def texts(seed: int, count: int) -> tuple[list[str], list[list[str]]]:
    """Random sentences, with variations as references: some very short, some equal, one empty output."""
    drawn = random.Random(seed)
    outputs, references = [], []
    for i in range(count):
        words = drawn.choices(WORDS, k=drawn.choice([1, 2, 3, 6, 9, 14]) if i else 11)
        varied = [
            " ".join(word if drawn.random() < 0.7 else drawn.choice(WORDS) for word in words)
            for _ in range(drawn.randint(1, 4))
        ]
        outputs.append("" if i == 3 else " ".join(words))
        references.append([*varied, " ".join(words)] if i % 5 == 0 else varied)
    return outputs, references


def have(metric: str) -> None:
    if metric == "meteor" and (reason := meteor.missing()):
        pytest.skip(reason)


@pytest.mark.parametrize(("family", "name", "metric"), CONVENTIONS)
@pytest.mark.parametrize("count", [1, 30])
def test_the_whole_set_has_the_official_score(family, name, metric, count):
    have(metric)
    outputs, references = texts(7, count)
    if (metric, count) == ("cider", 1):
        with pytest.raises(NoStatisticError, match="undefined: CIDEr"):
            conventions.statistic(family, name, metric, outputs, references)
        return
    official = conventions.score(family, name, outputs, references, [metric])[metric]
    statistic = conventions.statistic(family, name, metric, outputs, references)
    assert statistic.score == official and statistic.examples == count
    assert statistic.resampled(np.ones((2, count))) == pytest.approx([official] * 2, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("family", "name", "metric"), [c for c in CONVENTIONS if c[2] not in FIXED])
def test_a_resample_has_the_score_of_the_resampled_texts(family, name, metric):
    have(metric)
    outputs, references = texts(8, 25)
    statistic = conventions.statistic(family, name, metric, outputs, references)
    drawn = np.random.default_rng(0).integers(0, 25, (6, 25))
    counts = np.stack([np.bincount(row, minlength=25) for row in drawn]).astype(float)
    afresh = []
    for row in drawn:
        rows = sorted(row, key=lambda i: (not outputs[i], i))  # GenerationEval drops an empty last line
        if name == "lora" and family == "triples" and not outputs[rows[-1]]:
            rows = rows[-1:] + rows[:-1]
        chosen = [outputs[i] for i in rows], [references[i] for i in rows]
        afresh.append(conventions.score(family, name, *chosen, [metric])[metric])
    assert len(set(afresh)) > 1
    assert statistic.resampled(counts) == pytest.approx(afresh, rel=1e-9)


@pytest.mark.parametrize("convention", ["official", "lora"])
def test_nist_keeps_the_information_of_the_whole_set(convention, monkeypatch):
    outputs, references = texts(9, 20)
    statistic = conventions.statistic("e2e", convention, "nist", outputs, references)
    perl = convention == "official"
    read = mteval.perl_segments if perl else mteval.python_segments
    whole = mteval.information_of(read(outputs, references), perl)

    def kept(segments, zero_is_no_context):
        information = mteval.Information([s.references for s in segments], zero_is_no_context)  # its words count
        information.of = whole.of
        return information

    monkeypatch.setattr(mteval, "information_of", kept)
    drawn = np.random.default_rng(1).integers(0, 20, (4, 20))
    counts = np.stack([np.bincount(row, minlength=20) for row in drawn]).astype(float)
    chosen = [([outputs[i] for i in row], [references[i] for i in row]) for row in drawn]
    afresh = [conventions.score("e2e", convention, *texts, ["nist"])["nist"] for texts in chosen]
    assert statistic.resampled(counts) == pytest.approx(afresh, rel=1e-9)


def test_cider_keeps_the_document_frequencies_of_the_whole_set():
    outputs, references = texts(10, 20)
    each = np.array(rouge_cider.cider(*rouge_cider.tokenized(outputs, references)))
    counts = np.random.default_rng(2).multinomial(20, [1 / 20] * 20, 5).astype(float)
    statistic = conventions.statistic("e2e", "official", "cider", outputs, references)
    assert statistic.resampled(counts) == pytest.approx(10 * counts @ each / 20)


@pytest.mark.parametrize("metric", ["bleu", "ter"])
def test_an_empty_last_line_is_skipped_by_the_bleu_of_lora_only(metric):
    outputs, references = ["the mill is a cheap pub", ""], [["the mill is a cheap pub ."], ["a pub"]]
    statistic = conventions.statistic("triples", "lora", metric, outputs, references)
    official = conventions.score("triples", "lora", outputs, references, [metric])[metric]
    assert statistic.score == official
    assert statistic.resampled(np.array([[1.0, 1.0], [2.0, 0.0]]))[0] == pytest.approx(official)


@pytest.mark.parametrize("convention", ["official", "lora"])
def test_bleu_without_matches_is_smoothed_as_in_the_programs(convention):
    outputs, references = ["one two three", "four five six seven"], [["one three two"], ["four six five eight"]]
    statistic = conventions.statistic("e2e", convention, "bleu", outputs, references)
    assert statistic.resampled(np.ones((1, 2))) == pytest.approx([statistic.score], rel=1e-12)
    assert statistic.score == conventions.score("e2e", convention, outputs, references, ["bleu"])["bleu"]


def test_undefined_statistics_have_a_reason(monkeypatch):
    with pytest.raises(NoStatisticError, match="ter is not"):
        conventions.statistic("e2e", "official", "ter", ["a"], [["a"]])
    with pytest.raises(NoStatisticError, match="divides by zero"):
        conventions.statistic("e2e", "lora", "nist", ["a b c d"], [["a b c d"]])
    monkeypatch.setattr(meteor.Meteor, "_running", lambda self: raise_unavailable())
    with pytest.raises(NoStatisticError, match="no java"):
        conventions.statistic("triples", "dart", "meteor", ["a"], [["a"]])


def raise_unavailable():
    raise meteor.UnavailableError("there is no java")
