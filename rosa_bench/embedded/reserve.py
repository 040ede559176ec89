"""Separates the scored texts of the embedded tasks from everything a model may train on, without a look-up.

One text in four is *reserved*, decided by a hash of its normalized form. Every text field of a scored split is
reserved; no text of a train split and no sentence of the pre-training prose is. Two texts that differ only in case,
spacing or closing punctuation are the same text.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

_CLOSING = " .!?;:,"


def normalize(text: str) -> str:
    """The normalized form of a text for the reservation: lower case, single spaces, no closing punctuation."""
    return " ".join(text.lower().split()).rstrip(_CLOSING)


def reserved(text: str) -> bool:
    """Whether a text belongs to the quarter of all texts that only scored splits may use."""
    # 64 of the 256 values of the first byte: one text in four
    return sha256(normalize(text).encode("utf-8")).digest()[0] < 64


def distinct(texts: Iterable[str], count: int, scored: bool) -> list[str]:
    """Up to ``count`` different texts, all of them reserved or all of them not; reads no further."""
    found: list[str] = []
    tried: set[str] = set()
    for text in texts:
        if text in tried:
            continue
        tried.add(text)
        if reserved(text) == scored:
            found.append(text)
            if len(found) == count:
                break
    return found
