"""Tokenize texts, with special tokens in them as plain characters and continuations together with their context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = "a"


@dataclass(frozen=True)
class Frame:
    """What a tokenizer adds around a text, and which of its tokens are special."""

    start: tuple[int, ...]  # ids before a text
    special: frozenset[int]  # ids of special tokens (start, end, padding, mask, ...), which a text must not contain
    added: frozenset[int]  # ids of other tokens marked as special, such as byte tokens, which texts contain
    around: tuple[int, int]  # number of special tokens around a single text, and around a pair
    unknown: str  # the unknown token, if its name in a text is tokenized as that token; else empty


_FRAMES: WeakKeyDictionary[Any, tuple[Any, Frame]] = WeakKeyDictionary()


def frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """The frame of a tokenizer, cached until its special tokens change."""
    state = (len(tokenizer), tuple(sorted(map(str, tokenizer.special_tokens_map.items()))))
    cached = _FRAMES.get(tokenizer)
    if cached is None or cached[0] != state:
        cached = _FRAMES[tokenizer] = (state, _frame(tokenizer))
    return cached[1]


def _frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    special = {int(i) for i in tokenizer.all_special_ids}
    added = {int(i) for i, token in tokenizer.added_tokens_decoder.items() if token.special} - special
    unknown = tokenizer.unk_token_id
    names = [n for n, token in tokenizer.special_tokens_map.items() if token == tokenizer.unk_token]
    if unknown is not None and names == ["unk_token"]:
        special -= {unknown}
    body = _ids(tokenizer, SAMPLE)
    framed = [int(i) for i in tokenizer(SAMPLE)["input_ids"]]
    pair = tokenizer(SAMPLE, SAMPLE)["input_ids"]
    start = next((i for i in range(len(framed)) if framed[i : i + len(body)] == body), len(framed))
    around = (sum(i in special for i in framed), sum(i in special for i in pair))
    spelled = unknown is not None and unknown in _ids(tokenizer, str(tokenizer.unk_token))
    name = str(tokenizer.unk_token) if spelled else ""
    return Frame(tuple(framed[:start]), frozenset(special), frozenset(added), around, name)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str, where: str) -> list[int]:
    """Token ids of a text, with none added. A special token spelled out in it is tokenized as plain characters.

    Raises:
        UsageError: if the tokenizer still reads it as the special token; the message names `where`.
    """
    ids = _ids(tokenizer, text)
    _check(tokenizer, [text], ids, 0, where)
    return ids


def _check(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ids: Sequence[int], own: int, where: str) -> None:
    """Raise UsageError if `ids` contain more special tokens than the `own` ones that the tokenizer added."""
    framing = frame(tokenizer)
    suspects = [i for i in ids if i in framing.special or i in framing.added]
    spelled = [framing.unknown] if framing.unknown and any(framing.unknown in text for text in texts) else []
    if suspects:
        tokens = map(str, tokenizer.convert_ids_to_tokens(sorted(set(suspects))))
        in_texts = [token for token in tokens if any(token in text for text in texts)]
        if sum(i in framing.special for i in suspects) > own:
            spelled += in_texts or ["a special token"]
        elif not framing.added.isdisjoint(suspects):
            others = {str(t) for t in tokenizer.convert_ids_to_tokens(sorted(framing.added.intersection(suspects)))}
            spelled += [token for token in in_texts if token in others]
    if spelled:
        raise UsageError(
            f"{where}: the text contains {spelled[0]!r}, which {type(tokenizer).__name__} reads as its special "
            "token; change the text or remove the row"
        )


def text_inputs(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, where: str
) -> dict[str, list[int]]:
    """Encode a text or a pair with the tokenizer's special tokens; the longer text of a pair is truncated first.

    Raises UsageError like `plain_ids`.
    """
    out = tokenizer(
        *([text] for text in texts),  # lists, because an empty string alone would not count as the second text
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
        split_special_tokens=True,
    )
    inputs: dict[str, list[int]] = {name: rows[0] for name, rows in out.items()}
    _check(tokenizer, texts, inputs["input_ids"], frame(tokenizer).around[len(texts) - 1], where)
    return inputs


def context_ids(tokenizer: PreTrainedTokenizerBase, context: str, where: str) -> list[int]:
    """Encode a prompt: the tokenizer's start tokens and the text without trailing white space.

    Trailing white space belongs to the continuation. Raises UsageError like `plain_ids`.
    """
    return _started(tokenizer, plain_ids(tokenizer, context.rstrip(), where))


def pair_ids(
    tokenizer: PreTrainedTokenizerBase, context: str, continuation: str, where: str
) -> tuple[list[int], list[int]]:
    """Return `context_ids` and the tokens that `continuation` adds when both texts are tokenized together.

    Like lm-evaluation-harness (`_encode_pair`). Raises UsageError like `plain_ids`, or if the continuation adds none.
    """
    before = plain_ids(tokenizer, context.rstrip(), where)
    added = plain_ids(tokenizer, context + continuation, where)[len(before) :]
    if not added:
        raise UsageError(f"{where}: {continuation.strip()[:80]!r} adds no token to the text before it; remove the row")
    return _started(tokenizer, before), added


def _started(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Prepend the start tokens; if the result is empty, use one bos or eos token, as lm-evaluation-harness does."""
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [*frame(tokenizer).start, *ids] or ([] if first is None else [int(first)])
