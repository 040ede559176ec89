"""Metrics of generated text by named convention: program, text preparation and options.

The same outputs score differently with the scripts of the challenge, of LoRA's experiments and of the datasets, so
every score names its convention. Each convention reproduces the numbers of its programs:

    e2e        official     tuetschek/e2e-metrics measure_scores.py (mteval-v13a)
    e2e        lora         the same with -p (pymteval), as microsoft/LoRA runs it
    triples    lora         WebNLG/GenerationEval on LoRA's text form, without a newline after the last line
    triples    webnlg2017   the scripts of the WebNLG 2017 challenge
    triples    dart         the scripts of Yale-LILY/dart: the same programs on unchanged texts
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from rosa_bench.metrics import meteor, mteval, rouge_cider, ter
from rosa_bench.metrics.mteval import Segment
from rosa_bench.metrics.scores import AbsentError, Scores

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

Outputs = Sequence[str]
References = Sequence[Sequence[str]]
METRICS: dict[Family, tuple[str, ...]] = {
    "e2e": ("bleu", "nist", "meteor", "rouge_l", "cider"),
    "triples": ("bleu", "meteor", "ter"),
}
LOWER_IS_BETTER = {"ter", "loss", "perplexity"}
LORA_REFERENCES, CHALLENGE_REFERENCES = 6, 3  # number of references that the scripts read
_PTB = "Penn-Treebank tokens, lower case, no punctuation"
SIGNATURES: dict[tuple[Family, str], dict[str, str]] = {
    ("e2e", "official"): {
        "bleu": "mteval-v13a rules, ASCII lower case, closest length, exponential smoothing, points",
        "nist": "mteval-v13a rules, order 5, ASCII lower case",
        "meteor": f"METEOR 1.5 -l en -norm, {_PTB}, points",
        "rouge_l": f"COCO ROUGE-L, beta 1.2, {_PTB}, points",
        "cider": f"COCO CIDEr-D, order 4, sigma 6, {_PTB}",
    },
    ("triples", "lora"): {
        "bleu": "13a tokens of LoRA's text form, 6 references, no smoothing, points",
        "meteor": "METEOR 1.5 -l en -norm, LoRA's text form, 6 references, fraction",
        "ter": "pyter, mean over outputs of the least over 6 references, LoRA's text form, fraction",
    },
    ("triples", "webnlg2017"): {
        "bleu": "multi-bleu.perl -lc, 3 references, an absent one is empty, points",
        "meteor": "METEOR 1.5 -l en -norm, 3 references, the script's text form, fraction",
        "ter": "tercom 7.25, 3 references, the script's text form, fraction",
    },
    ("triples", "dart"): {
        "bleu": "multi-bleu.perl, 3 references, an absent one is empty, points",
        "meteor": "METEOR 1.5 -l en -norm, 3 references, fraction",
        "ter": "tercom 7.25, 3 references, fraction",
    },
}
SIGNATURES["e2e", "lora"] = SIGNATURES["e2e", "official"] | {
    "bleu": "pymteval rules, lower case, closest length, points",
    "nist": "pymteval rules, order 5, lower case",
}


Family = Literal["e2e", "triples"]


def score(
    family: Family, convention: str, outputs: Outputs, references: References, only: Collection[str] | None = None
) -> Scores:
    """Compute the metrics of a family by a convention, or those in `only`.

    BLEU and all E2E metrics except NIST and CIDEr are in points.

    Raises:
        ValueError: if the convention is unknown, there are no outputs, the lengths differ, or one has no reference.
    """
    if (family, convention) not in SIGNATURES:
        choices = ", ".join(name for named_family, name in SIGNATURES if named_family == family)
        raise ValueError(f"unknown scoring convention {convention}; choose from {choices}")
    mteval.check(outputs, references)
    names = [name for name in METRICS[family] if only is None or name in only]
    scores = Scores()
    compute = (_e2e if family == "e2e" else _triples)(convention, outputs, references)
    for name in names:
        scores.enter(name, compute[name])
    return scores


def _e2e(convention: str, outputs: Outputs, references: References) -> dict[str, Callable[[], float]]:
    tokenized = cache(lambda: rouge_cider.tokenized(outputs, references))  # shared by three metrics
    if convention == "official":
        segments = mteval.perl_segments(outputs, references)
        bleu, nist = mteval.bleu_perl, mteval.nist_perl
    else:
        segments = mteval.python_segments(outputs, references)
        bleu, nist = mteval.bleu_python, mteval.nist_python
    return {
        "bleu": lambda: bleu(segments),
        "nist": lambda: nist(segments),
        "meteor": lambda: 100 * meteor.shared().score(*tokenized()),
        "rouge_l": lambda: rouge_cider.rouge_l(*tokenized()),
        "cider": lambda: rouge_cider.cider(*tokenized()),
    }


def _triples(convention: str, outputs: Outputs, references: References) -> dict[str, Callable[[], float]]:
    texts, refs = PREPARATIONS[convention](outputs, references)
    ter_of = ter.segment_mean_ter if convention == "lora" else ter.corpus_ter
    return {
        "bleu": lambda: triples_bleu(convention, texts, refs),
        "meteor": lambda: meteor.shared().score(texts, refs),
        "ter": lambda: ter_of([words(text) for text in texts], [[words(ref) for ref in group] for group in refs]),
    }


def _split(text: str) -> str:
    """Separate every character other than letters, digits and underscores by spaces."""
    return " ".join(re.split(r"(\W)", text))


def words(text: str) -> list[str]:
    """Lower-cased words, as tercom and pyter compare them."""
    return text.lower().split()


def _lora_form(outputs: Outputs, references: References) -> tuple[list[str], list[list[str]]]:
    """Lower-case and split; pad to six references with the first one."""
    texts = [_split(text.lower()) for text in outputs]
    refs = [[_split(ref.lower()) for ref in group[:LORA_REFERENCES]] for group in references]
    return texts, [group + group[:1] * (LORA_REFERENCES - len(group)) for group in refs]


def _challenge_form(outputs: Outputs, references: References) -> tuple[list[str], list[list[str]]]:
    """As in the 2017 scripts: outputs are converted to ASCII before splitting, references after."""
    from unidecode import unidecode

    texts = [_split(unidecode(unidecode(text).lower())) for text in outputs]
    return texts, [[unidecode(_split(ref).lower()) for ref in group[:CHALLENGE_REFERENCES]] for group in references]


def _unchanged_form(outputs: Outputs, references: References) -> tuple[list[str], list[list[str]]]:
    """Unchanged texts with the first three references."""
    return list(outputs), [list(group[:CHALLENGE_REFERENCES]) for group in references]


PREPARATIONS = {"lora": _lora_form, "webnlg2017": _challenge_form, "dart": _unchanged_form}


def _columns(references: References, absent: str | None) -> list[Any]:
    """One list per reference index, the layout of sacrebleu; `absent` stands for a missing reference."""
    width = max(map(len, references))
    return [[group[i] if i < len(group) else absent for group in references] for i in range(width)]


def triples_bleu(convention: str, texts: Outputs, references: References) -> float:
    """Corpus BLEU of prepared texts, in points.

    `lora` follows GenerationEval, which skips an empty last line of the outputs. The others follow multi-bleu.perl,
    which reads an absent reference as an empty one, and that one can be the closest in length.
    """
    absent: str | None = ""
    if convention == "lora":
        absent = None
        if not texts[-1].strip():
            texts, references = texts[:-1], references[:-1]
        if not texts:
            raise AbsentError("undefined: GenerationEval skips an empty last line, and the outputs have no other line")
    return float(_bleu_metric(convention).corpus_score(list(texts), _columns(references, absent)).score)


def triples_bleu_segments(convention: str, texts: Outputs, references: References) -> list[Segment]:
    """The tokens that `triples_bleu` compares. A skipped empty last line becomes a segment without references."""
    metric, width = _bleu_metric(convention), max(map(len, references))

    def tokens(text: str) -> tuple[str, ...]:
        return tuple(metric.tokenizer((text.lower() if metric.lowercase else text).rstrip()).split())

    segments = []
    for text, group in zip(texts, references, strict=True):
        absent = [()] if convention != "lora" and len(group) < width else []
        segments.append(Segment(tokens(text), [*map(tokens, group), *absent]))
    if convention == "lora" and not texts[-1].strip():
        segments[-1] = Segment(())
    return segments


def bleu_of(matches: Sequence[int], possible: Sequence[int], length: int, closest: int) -> float:
    """Unsmoothed BLEU in points, from sums over a corpus."""
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU.compute_bleu(list(matches), list(possible), length, closest, smooth_method="none").score)


def _bleu_metric(convention: str) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    tokenize, lowercase = "13a" if convention == "lora" else "none", convention == "webnlg2017"
    return BLEU(tokenize=tokenize, lowercase=lowercase, smooth_method="none", force=True)
