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
from typing import TYPE_CHECKING, Literal

from rosa_bench.metrics import mteval, rouge_cider
from rosa_bench.metrics.mteval import Segment
from rosa_bench.metrics.scores import AbsentError, Scores

if TYPE_CHECKING:
    from rosa_bench.stats.bootstrap import Statistic

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
    compute = _metrics(family, convention, outputs, references)
    scores = Scores()
    for name in METRICS[family]:
        if only is None or name in only:
            scores.enter(name, lambda name=name: compute[name]().score)  # type: ignore[misc]
    return scores


def statistic(family: Family, convention: str, metric: str, outputs: Outputs, references: References) -> Statistic:
    """A metric of outputs by a convention: its score as in `score`, and its value for resampled outputs.

    Raises:
        NoStatisticError: if the family has no such metric, or it cannot be computed here.
        ValueError: as in `score`.
    """
    from rosa_bench.stats.bootstrap import NoStatisticError

    if metric not in METRICS[family]:
        raise NoStatisticError(f"{metric} is not a metric of generated text")
    try:
        return _metrics(family, convention, outputs, references)[metric]()
    except AbsentError as error:
        raise NoStatisticError(str(error)) from error
    except ZeroDivisionError as error:
        raise NoStatisticError(f"{metric}: the official program divides by zero on these outputs") from error


def _metrics(
    family: Family, convention: str, outputs: Outputs, references: References
) -> dict[str, Callable[[], Statistic]]:
    """For every metric of a family, a function that computes it."""
    if (family, convention) not in SIGNATURES:
        choices = ", ".join(name for named_family, name in SIGNATURES if named_family == family)
        raise ValueError(f"unknown scoring convention {convention}; choose from {choices}")
    if not outputs or len(outputs) != len(references) or not all(references):
        raise ValueError(
            f"got {len(outputs)} outputs and {len(references)} lists of references; every output needs references"
        )
    return (_e2e if family == "e2e" else _triples)(convention, outputs, references)


def _e2e(convention: str, outputs: Outputs, references: References) -> dict[str, Callable[[], Statistic]]:
    from rosa_bench.metrics import segments

    perl = convention == "official"
    read = mteval.perl_segments if perl else mteval.python_segments
    tokens = cache(lambda: read(outputs, references))  # shared by two metrics
    captions = cache(lambda: rouge_cider.tokenized(outputs, references))  # shared by three
    return {
        "bleu": lambda: segments.bleu(tokens(), perl),
        "nist": lambda: segments.nist(tokens(), perl),
        "meteor": lambda: segments.meteor(*captions(), scale=100),
        "rouge_l": lambda: segments.mean(rouge_cider.rouge_l(*captions()), scale=100),
        "cider": lambda: segments.mean(rouge_cider.cider(*captions()), scale=10),
    }


def _triples(convention: str, outputs: Outputs, references: References) -> dict[str, Callable[[], Statistic]]:
    from rosa_bench.metrics import segments

    texts, refs = PREPARATIONS[convention](outputs, references)
    edit_rate = segments.least_edit_rate if convention == "lora" else segments.tercom

    def words(text: str) -> list[str]:
        return _words(convention, text.lower())

    return {
        "bleu": lambda: segments.plain_bleu(_bleu_segments(convention, texts, refs)),
        "meteor": lambda: segments.meteor(texts, refs, scale=1),
        "ter": lambda: edit_rate([words(text) for text in texts], [list(map(words, group)) for group in refs]),
    }


def _split(text: str) -> str:
    """Separate every character other than letters, digits and underscores by spaces."""
    return " ".join(re.split(r"(\W)", text))


def _words(convention: str, text: str) -> list[str]:
    """The words of a text: GenerationEval splits at any white space, the others only at ASCII white space."""
    return text.split() if convention == "lora" else re.findall(r"\S+", text, re.ASCII)


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


def _bleu_segments(convention: str, texts: Outputs, references: References) -> list[Segment]:
    """The tokens that BLEU compares.

    `lora` follows GenerationEval, which skips an empty last line of the outputs; here it becomes an empty segment. The
    others follow multi-bleu.perl, which reads an absent reference as an empty one, which can be the closest in length.
    """
    tokenize: Callable[[str], str] = mteval.tokenizer() if convention == "lora" else str
    width = max(map(len, references))

    def tokens(text: str) -> tuple[str, ...]:
        return tuple(_words(convention, tokenize(text.lower() if convention == "webnlg2017" else text)))

    segments = []
    for text, group in zip(texts, references, strict=True):
        absent = [()] if convention != "lora" and len(group) < width else []
        segments.append(Segment(tokens(text), [*map(tokens, group), *absent]))
    if convention == "lora" and not texts[-1].strip():
        if len(texts) == 1:
            raise AbsentError("undefined: GenerationEval skips an empty last line, and the outputs have no other line")
        segments[-1] = Segment(())
    return segments
