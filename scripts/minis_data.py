"""Feeds the pre-training of the mini backbones: tokenizers trained on prose, batches that depend on the step only."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase, RobertaTokenizer

from rosa_bench.embedded import prose

if TYPE_CHECKING:
    from pretrain_minis import Mini

STRIDE = 32
POOL_BATCHES = 64  # batches that are cut from one stretch of prose
TOKENIZER_SEED, HELD_OUT_SEED, TRAIN_SEED = 1, 2, 1000  # prose seeds; pool k of training reads TRAIN_SEED + k
TOKENIZER_DOCUMENTS = 20_000
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
SHARES = {"single": 0.3, "pair": 0.8}  # cumulative; the rest are passages
VERDICT_WORDS, VERDICT_SHARE = 6, 0.5  # a second sentence so short is hidden as a whole in this share of its pairs
DECODER_WIDTHS = (128, 128, 128, 256)  # every position gets trained, most of the work stays in short rows


class Batch(NamedTuple):
    """Rows of one step: what the model reads, which positions of the flattened rows it predicts, and their words."""

    inputs: torch.Tensor
    attention: torch.Tensor | None
    predicted: torch.Tensor
    targets: torch.Tensor


def load_or_train_tokenizer(mini: Mini, folder: Path) -> PreTrainedTokenizerBase:
    """Give the byte-level BPE tokenizer of a run; the first call trains it on prose and keeps it in ``folder``."""
    home = folder / "tokenizer"
    if not (home / "done").exists():
        special = ROBERTA_SPECIAL if mini.kind == "encoder" else ["<|endoftext|>"]
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        raw.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=mini.vocab,
            min_frequency=2,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        texts = list(islice(prose(mini.kind, TOKENIZER_SEED), TOKENIZER_DOCUMENTS))
        raw.train_from_iterator(texts, trainer)
        raw.model.save(str(folder))
        wrap: Any = RobertaTokenizer if mini.kind == "encoder" else GPT2Tokenizer
        wrapped = wrap(
            vocab=str(folder / "vocab.json"),
            merges=str(folder / "merges.txt"),
            add_prefix_space=True,
            model_max_length=mini.positions - 2 if mini.kind == "encoder" else mini.positions,
            clean_up_tokenization_spaces=False,
            **({} if mini.kind == "encoder" else {"pad_token": "<|endoftext|>"}),
        )
        wrapped.save_pretrained(home)
        (home / "done").touch()
    return AutoTokenizer.from_pretrained(home)


def prose_seeds(mini: Mini) -> dict[str, int]:
    """Say which seeds of the prose a run reads."""
    return {"tokenizer": TOKENIZER_SEED, "held_out": HELD_OUT_SEED, "train_from": TRAIN_SEED + mini.seed * 1_000_000}


def sentences_of(document: str) -> list[str]:
    """Cut a document at its sentence boundaries."""
    return [part for part in SENTENCE_END.split(document.strip()) if part]


def piece_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Tokenize texts without special tokens."""
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def encoder_rows(mini: Mini, tokenizer: PreTrainedTokenizerBase, seed: int, chunk: int = 64) -> Iterator[list[int]]:
    """Stream rows shaped like the encoder's later inputs: single sentences, pairs of neighbours, whole passages."""
    begin, end, widest = tokenizer.bos_token_id, tokenizer.eos_token_id, mini.positions - 2
    rng, stream = random.Random(f"rows {mini.name} {seed}"), prose(mini.kind, seed)
    while True:
        documents = [sentences_of(document) for document in islice(stream, chunk)]
        ids = iter(piece_ids(tokenizer, [s for document in documents for s in document]))
        for document in documents:
            queue = [next(ids) for _ in document]
            while queue:
                draw = rng.random()
                if draw < SHARES["single"] or len(queue) == 1:
                    row = [begin, *queue.pop(0)]
                elif draw < SHARES["pair"]:
                    row = [begin, *queue.pop(0), end, end, *queue.pop(0)]
                else:
                    row = [begin]
                    while queue and len(row) + len(queue[0]) < widest:
                        row += queue.pop(0)
                    if len(row) == 1:
                        row += queue.pop(0)
                yield [*row[: widest - 1], end]


def encoder_batches(mini: Mini, rows: list[list[int]]) -> list[list[list[int]]]:
    """Put rows of like length together, so that next to nothing is padding."""
    batches: list[list[list[int]]] = [[]]
    for row in sorted(rows, key=len):
        if batches[-1] and (len(batches[-1]) + 1) * len(row) > mini.tokens_per_batch:
            batches.append([])
        batches[-1].append(row)
    return batches


def decoder_rows(mini: Mini, tokenizer: PreTrainedTokenizerBase, seed: int, width: int) -> Iterator[list[int]]:
    """Stream rows of ``width`` that start at a document's start, with documents joined by the end-of-text token."""
    end = tokenizer.eos_token_id
    rng, stream = random.Random(f"rows {mini.name} {seed} {width}"), prose(mini.kind, seed)
    row: list[int] = []
    while True:
        for ids in piece_ids(tokenizer, list(islice(stream, 64))):
            if not row and rng.random() < 0.5:
                row = [end]
            row += [*ids, end]
            if len(row) >= width:
                yield row[:width]
                row = []


@lru_cache(maxsize=2)
def pool(mini: Mini, tokenizer: PreTrainedTokenizerBase, seed: int) -> list[list[list[int]]]:
    """Cut one stretch of prose into shuffled batches of rows; pools are independent, so a run can enter at any."""
    rng, batches = random.Random(f"pool {mini.name} {seed}"), []
    if mini.kind == "encoder":
        stream, rows, size = encoder_rows(mini, tokenizer, seed), [], 0
        while size < (POOL_BATCHES + 4) * mini.tokens_per_batch:
            rows.append(next(stream))
            size += len(rows[-1])
        batches = encoder_batches(mini, rows)[:-1]  # the last one is not full
        rng.shuffle(batches)
        return batches[:POOL_BATCHES]
    for number in range(POOL_BATCHES):
        width = DECODER_WIDTHS[number % len(DECODER_WIDTHS)]
        batches.append((width, mini.tokens_per_batch // width))
    streams = {width: decoder_rows(mini, tokenizer, 2 * seed + (width == 256), width) for width in set(DECODER_WIDTHS)}
    shuffled = [list(islice(streams[width], count)) for width, count in batches]
    rng.shuffle(shuffled)
    return shuffled


def short_seconds(rows: list[list[int]], width: int, end: int, seed: int) -> list[int]:
    """List the places of some short second sentences of pairs, which are guessed from the first sentence alone."""
    rng, places = random.Random(f"seconds {seed}"), []
    for number, row in enumerate(rows):
        first = row.index(end)
        words = range(first + 2, len(row) - 1)
        if 0 < len(words) <= VERDICT_WORDS and rng.random() < VERDICT_SHARE:
            places += [number * width + place for place in words]
    return places


def to_batch(mini: Mini, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], seed: int) -> Batch:
    """Make tensors of rows: the encoder's with a fresh draw of masked words, the decoder's shifted by one."""
    if mini.kind == "decoder":
        ids = torch.tensor(rows)
        predicted = torch.arange(ids.numel()).view_as(ids)[:, :-1].flatten()
        return Batch(ids, None, predicted, ids[:, 1:].flatten())
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    attention = (ids != tokenizer.pad_token_id).long()
    words = (ids > max(tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)).flatten()
    # a whole multiple of STRIDE positions: few different shapes, so the CPU library reuses its compiled kernels
    number = max(1, int(mini.mask_rate * int(words.sum())) // STRIDE) * STRIDE
    draw = torch.rand(words.shape, generator=torch.Generator().manual_seed(seed))
    draw[short_seconds(rows, width, tokenizer.eos_token_id, seed)] -= 1.0
    draw = draw.masked_fill(~words, 2.0)
    predicted = draw.topk(min(number, int(words.sum())), largest=False).indices.sort().values
    targets = ids.flatten()[predicted]
    inputs = ids.flatten().index_fill(0, predicted, tokenizer.mask_token_id).view_as(ids)
    return Batch(inputs, attention if bool((attention == 0).any()) else None, predicted, targets)


def batch_at(mini: Mini, tokenizer: PreTrainedTokenizerBase, step: int) -> Batch:
    """Give the batch of a step; the same for every run of a recipe, interrupted or not."""
    rows = pool(mini, tokenizer, TRAIN_SEED + mini.seed * 1_000_000 + step // POOL_BATCHES)[step % POOL_BATCHES]
    return to_batch(mini, tokenizer, rows, mini.seed * 1_000_000_007 + step)


def held_out_batches(mini: Mini, tokenizer: PreTrainedTokenizerBase, count: int) -> Iterator[Batch]:
    """Give batches of prose that training never reads: ``count`` single sentences, or rows of 128 tokens."""
    if mini.kind == "encoder":
        texts = (s for document in prose(mini.kind, HELD_OUT_SEED) for s in sentences_of(document))
        ids = piece_ids(tokenizer, list(islice(texts, count)))
        begin, end, widest = tokenizer.bos_token_id, tokenizer.eos_token_id, mini.positions - 2
        batches = encoder_batches(mini, [[begin, *row[: widest - 2], end] for row in ids])
    else:
        rows = list(islice(decoder_rows(mini, tokenizer, HELD_OUT_SEED, 128), max(1, count // 5)))
        batches = [rows[i : i + 16] for i in range(0, len(rows), 16)]
    for number, rows in enumerate(batches):
        yield to_batch(mini, tokenizer, rows, number)
