"""Scores of generated texts against several references each."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def bleu(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU in points as the E2E challenge's mteval script computes it: 13a tokens after ASCII lower-casing.

    Raises:
        ValueError: if there are no outputs, the lengths differ, or an output has no reference.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    if not outputs or len(outputs) != len(references) or not all(references):
        raise ValueError(
            f"{len(outputs)} outputs for {len(references)} lists of references, none of which may be empty"
        )
    tokenize = Tokenizer13a()
    hypotheses = [tokenize(text.translate(_ASCII_LOWER)) for text in outputs]
    most = max(map(len, references))
    columns: list[Any] = [
        [tokenize(refs[i].translate(_ASCII_LOWER)) if i < len(refs) else None for refs in references]
        for i in range(most)
    ]
    metric = BLEU(tokenize="none", lowercase=False, smooth_method="exp", force=True)
    return float(metric.corpus_score(hypotheses, columns).score)
