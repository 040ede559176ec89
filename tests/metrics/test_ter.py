"""Translation edit rates against numbers of the official scripts, closed forms and sacrebleu."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rosa_bench.metrics import segments
from rosa_bench.metrics.ter import Edits, tercom


def corpus_ter(hypotheses, references) -> float:
    return segments.tercom(hypotheses, references).score


def segment_mean_ter(hypotheses, references) -> float:
    return segments.least_edit_rate(hypotheses, references).score


def webnlg_output(text: str) -> list[str]:
    """An output as WebNLG 2017's script passes it to tercom."""
    unidecode = pytest.importorskip("unidecode").unidecode
    return " ".join(re.split(r"(\W)", unidecode(unidecode(text.strip()).lower()))).split()


def webnlg_reference(text: str) -> list[str]:
    """A reference as WebNLG 2017's script passes it to tercom, split before conversion to ASCII."""
    unidecode = pytest.importorskip("unidecode").unidecode
    return unidecode(" ".join(re.split(r"(\W)", text)).lower()).split()


def dart(text: str) -> list[str]:
    """Output or reference as tercom reads DART's own files: lower-cased, split at Java's white space."""
    return re.findall(r"[^ \t\n\x0b\f\r]+", text.strip().lower())


def geneval(text: str) -> list[str]:
    """Output or reference as LoRA's preparation passes it to GenerationEval."""
    return " ".join(re.split(r"(\W)", text.lower())).split()


def edits(hypothesis: str, *references: str) -> float:
    return tercom(hypothesis.split(), [reference.split() for reference in references]).edits


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        ("a b c", "a b c", 0),
        ("a x b c y", "a b c", 2),  # insertions
        ("a c", "a b c d", 2),  # deletions
        ("a x c", "a b c", 1),  # substitution
        ("b c d a", "a b c d", 1),  # a shift to before the first word
        ("c d e a b", "a b c d e", 1),  # a shift of several words
        ("d e f x c a b", "a b c d e f", 3),  # two shifts and an insertion
        (
            "THIS WEEK THE SAUDIS denied information published in the new york times",
            "SAUDI ARABIA denied THIS WEEK information published in the AMERICAN new york times",
            4,  # the example of Snover et al.: a shift, two substitutions, a deletion
        ),
        ("", "a b c", 3),
        ("a b", "", 2),
        ("", "", 0),
    ],
)
def test_closed_forms(hypothesis, reference, expected):
    assert edits(hypothesis, reference) == expected
    assert tercom(hypothesis.split(), [reference.split()]).reference_length == len(reference.split())


def test_the_reference_with_fewest_edits_counts_and_the_mean_length():
    assert tercom(["a", "b"], [["x", "y"], ["a", "b", "c", "d", "e"]]) == Edits(2.0, 3.5)
    longer = [*"abcdefgh", "i"]  # one edit of nine words, though two of two would be the higher rate
    assert tercom(longer[:-1], [["a", "b"], longer]) == Edits(1.0, 5.5)
    assert tercom([], [["a", "b", "c"], ["a"], ["a", "b"]]) == Edits(1.0, 2.0)
    assert tercom(["a"], [[], ["b", "c"]]) == Edits(1.0, 1.0)


def test_a_block_of_more_than_ten_words_needs_two_shifts():
    words = [f"w{i}" for i in range(12)]
    block = [f"b{i}" for i in range(11)]
    assert tercom(words + block[:10], [block[:10] + words]).edits == 1
    assert tercom(words + block, [block + words]).edits == 2


def test_a_shift_goes_fifty_words_at_most():
    words = [f"w{i}" for i in range(50)]
    assert tercom([*words[:49], "x", "y"], [["x", "y", *words[:49]]]).edits == 1
    assert tercom([*words, "x", "y"], [["x", "y", *words]]).edits == 4


def test_the_beam_can_increase_edits():
    # 29 words to insert, then 21 equal ones: 29 edits after 50 words, where the diagonal costs 50, so the beam drops
    # it. That leaves 29 insertions, 29 deletions and the substitution of the last two words, and nothing to shift,
    # since the equal words are aligned. pyter3 has no beam: it shifts the 21 words and substitutes the others.
    equal = [f"e{i}" for i in range(21)]
    hypothesis = [f"h{i}" for i in range(29)] + equal + ["h", "h"]
    reference = equal + [f"r{i}" for i in range(29)] + ["r", "r"]
    assert tercom(hypothesis, [reference]).edits == 29 + 29 + 2
    assert segment_mean_ter([hypothesis], [[reference]]) == pytest.approx((1 + 31) / 52)


def test_a_corpus_is_the_ratio_of_sums():
    hypotheses = [["a", "x"], ["b", "c", "d", "a"]]
    references = [[["a", "b"], ["a"]], [["a", "b", "c", "d"]]]
    assert corpus_ter(hypotheses, references) == pytest.approx(2 / 5.5)


def test_the_segment_mean_takes_the_least_rate_of_each():
    # "a b" needs two of two edits or three of five: the fewest edits are not the least rate
    assert segment_mean_ter([["a", "b"]], [[["x", "y"], [*"abcde"]]]) == pytest.approx(3 / 5)
    assert segment_mean_ter([["a"], ["b", "c", "a"]], [[["a"]], [["a", "b", "c"]]]) == pytest.approx((0 + 1 / 3) / 2)
    assert segment_mean_ter([[]], [[["a", "b", "c"]]]) == 1.0
    assert segment_mean_ter([["a", "b"]], [[[], ["c"]]]) == 1.0
    assert segment_mean_ter([["a", "b"]], [[["a", "b"], []]]) == 0.0


def test_the_two_rates_try_different_shifts():
    # Three superfluous words, and one shift of "c" to before "d". pyter3 moves it to its index in the reference, 2,
    # which is among the superfluous words here, so it counts two edits instead.
    hypothesis, reference = [*"xyzabdc"], [*"abcd"]
    assert tercom(hypothesis, [reference]).edits == 4
    assert segment_mean_ter([hypothesis], [[reference]]) == pytest.approx(5 / 4)


def test_degenerate_outputs_are_quick():
    draw = random.Random(0)
    reference = [draw.choice("ab") for _ in range(60)]
    assert tercom(["a", "b", "b"] * 40, [reference]).edits >= 60
    assert math.isfinite(segment_mean_ter([["a", "b", "b"] * 40], [[reference]]))


def test_distinct_words_agree_with_sacrebleu():
    # Repeated words make the order in which either tries shifts count; it then differs in one of some thousands.
    from sacrebleu.metrics.lib_ter import translation_edit_rate

    draw = random.Random(0)
    for _ in range(400):
        reference = [chr(97 + i) for i in range(draw.randint(1, 12))]
        hypothesis = [draw.choice([word, word, word, word.upper()]) for word in reference]
        for _ in range(draw.randint(0, 3)):
            start, length = draw.randrange(len(hypothesis)), draw.randint(1, 4)
            block, rest = hypothesis[start : start + length], hypothesis[:start] + hypothesis[start + length :]
            target = draw.randint(0, len(rest))
            hypothesis = rest[:target] + block + rest[target:]
        hypothesis = hypothesis[: draw.randint(1, 20)]
        assert tercom(hypothesis, [reference]).edits == translation_edit_rate(hypothesis, reference)[0]


WORDS = st.lists(st.sampled_from("abcdef"), max_size=15)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
@example([], [[]])
@settings(deadline=None)
def test_bounds(hypothesis, references):
    result = tercom(hypothesis, references)
    assert (result.edits == 0) == (hypothesis in references)
    assert result == tercom(hypothesis, references[::-1])
    assert result.edits == min(tercom(hypothesis, [reference]).edits for reference in references)
    for reference in references:
        assert result.edits <= max(len(hypothesis), len(reference))
    rate = segment_mean_ter([hypothesis], [references])
    assert rate == min(segment_mean_ter([hypothesis], [[reference]]) for reference in references)
    assert (rate == 0) == (hypothesis in [reference for reference in references if reference])


@pytest.fixture
def cases(shared_data) -> Path:
    folder = shared_data.parent / "oracle" / "cases"
    if not folder.is_dir():
        pytest.skip("no folder of officially scored outputs next to the checkout")
    return folder


def load(folder: Path) -> tuple[dict, list[str], list[dict]]:
    official = json.loads((folder / "official.json").read_text(encoding="utf-8"))
    outputs = (folder / "sys.txt").read_text(encoding="utf-8").split("\n")[:-1]
    lines = (folder / official["refs"]).read_text(encoding="utf-8").split("\n")[:-1]
    assert len(outputs) == len(lines)
    return official, outputs, [json.loads(line) for line in lines]


def in_split(rows: list[dict], split: str) -> list[int]:
    return [i for i, row in enumerate(rows) if split == "all" or row["seen"] == (split == "seen")]


QUICK = ["syn_webnlg_good", "syn_webnlg_bad", "webnlg_sub120_messy", "webnlg_sub120_empty", "webnlg_sub120_copyref"]
LONG = [
    pytest.param(f"webnlg_{name}", marks=pytest.mark.slow)
    for name in ("sub120_heldout", "sub120_rotated", "sub120_upper_ascii", "sub140_bart", "test_bartlarge")
]


@pytest.mark.parametrize("case", QUICK + LONG)
def test_webnlg_2017_equals_the_official_script(cases, case):
    official, outputs, rows = load(cases / case)
    scored = [
        tercom(webnlg_output(output), [webnlg_reference(text) for text in row["refs"][:3]])
        for output, row in zip(outputs, rows, strict=True)
    ]
    for split, expected in official["webnlg2017"].items():
        result = length = 0.0
        for i in in_split(rows, split):
            result, length = result + scored[i].edits, length + scored[i].reference_length
        assert (result, length) == (float(expected["TER_edits"]), float(expected["TER_ref_len"])), split
        assert result / length == float(expected["TER"])


@pytest.mark.parametrize("case", ["dart_sub250_degraded", pytest.param("dart_sub250_bart", marks=pytest.mark.slow)])
def test_dart_equals_the_official_script(cases, case):
    official, outputs, rows = load(cases / case)
    hypotheses = [dart(output) for output in outputs]
    references = [[dart(text) for text in row["refs"][:3]] for row in rows]
    assert corpus_ter(hypotheses, references) == float(official["dart"]["TER"])


@pytest.mark.parametrize("case", [*QUICK, *LONG, pytest.param("webnlg_dev120_heldout", marks=pytest.mark.slow)])
def test_the_segment_mean_equals_generation_eval(cases, case):
    official, outputs, rows = load(cases / case)
    for split, expected in official["geneval_lora"].items():
        chosen = in_split(rows, split)
        references = [[geneval(text) for text in rows[i]["refs"][:6]] for i in chosen]
        result = segment_mean_ter([geneval(outputs[i]) for i in chosen], references)
        assert result == pytest.approx(expected["ter"], rel=0, abs=1e-12), split
