"""Data for pre-training the mini backbones: tokenizers trained on prose, and batches that depend only on the step."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase, RobertaTokenizer

from rosa_bench.embedded import prose

if TYPE_CHECKING:
    from pretrain_minis import Mini

POOL_BATCHES = 64  # batches from one stretch of prose
TOKENIZER_SEED, HELD_OUT_SEED, TRAIN_SEED = 1, 2, 1000  # prose seeds; pool k of training reads TRAIN_SEED + k
TOKENIZER_DOCUMENTS = 20_000
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
SHARES = {"single": 0.3, "pair": 0.8}  # cumulative; the rest are passages
SUCCESSORS, SUCCESSOR_ROWS, SUCCESSOR_SEED = 64, 30_000, 3  # table of the words that follow a word, and its prose
MASKED, REPLACED = 0.15, 0.12  # shares of the words; REPLACED only in rows that are not clean
CLEAN_ROWS, REORDERED_ROWS = 0.3, 0.2  # shares of the rows
DECODER_WIDTHS = (128, 128, 128, 256)  # trains every position with mostly short rows


class Batch(NamedTuple):
    """Rows of one step: inputs, predicted positions of the flattened rows, and their words.

    For the encoder, ``altered`` is 1.0 for each position in ``judged`` whose word was altered, else 0.0.
    """

    inputs: torch.Tensor
    attention: torch.Tensor | None
    predicted: torch.Tensor
    targets: torch.Tensor
    judged: torch.Tensor | None = None
    altered: torch.Tensor | None = None


def load_or_train_tokenizer(mini: Mini, folder: Path) -> PreTrainedTokenizerBase:
    """The byte-level BPE tokenizer of a run; the first call trains it on prose and stores it in ``folder``."""
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
    """The seeds of the prose that a run reads."""
    return {"tokenizer": TOKENIZER_SEED, "held_out": HELD_OUT_SEED, "train_from": TRAIN_SEED + mini.seed * 1_000_000}


def sentences_of(document: str) -> list[str]:
    """Split a document into sentences."""
    return [part for part in SENTENCE_END.split(document.strip()) if part]


def piece_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Tokenize texts without special tokens."""
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def encoder_rows(mini: Mini, tokenizer: PreTrainedTokenizerBase, seed: int, chunk: int = 64) -> Iterator[list[int]]:
    """Yield rows like the encoder's later inputs: single sentences, neighboring pairs, and passages."""
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
    """Batches of rows of similar length, with little padding."""
    batches: list[list[list[int]]] = [[]]
    for row in sorted(rows, key=len):
        if batches[-1] and (len(batches[-1]) + 1) * len(row) > mini.tokens_per_batch:
            batches.append([])
        batches[-1].append(row)
    return batches


def decoder_rows(mini: Mini, tokenizer: PreTrainedTokenizerBase, seed: int, width: int) -> Iterator[list[int]]:
    """Yield rows of ``width`` tokens that begin with a document; the end-of-text token joins documents."""
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
    """Shuffled batches of rows from one stretch of prose. Pools are independent, so a run can resume at any of them."""
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


@lru_cache(maxsize=1)
def successors(mini: Mini, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """A sample [pieces, SUCCESSORS] of the pieces that follow each piece in prose."""
    rng = random.Random(f"successors {mini.name}")
    followers: dict[int, list[int]] = {}
    for row in islice(encoder_rows(mini, tokenizer, SUCCESSOR_SEED), SUCCESSOR_ROWS):
        for before, after in pairwise(row):
            sample = followers.setdefault(before, [])
            if len(sample) < SUCCESSORS:
                sample.append(after)
            elif rng.random() < 0.1:
                sample[rng.randrange(SUCCESSORS)] = after
    unknown = [tokenizer.unk_token_id]
    lists = [followers.get(piece, unknown) for piece in range(len(tokenizer))]
    return torch.tensor([[sample[i % len(sample)] for i in range(SUCCESSORS)] for sample in lists])


def reorder(row: list[int], special: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Swap two neighboring words of a row, delete one, or insert one elsewhere; mark the changed positions."""
    row, marks = list(row), [0] * len(row)
    words = [i for i in range(1, len(row) - 2) if row[i] >= special and row[i + 1] >= special]
    if len(words) < 3:
        return row, marks
    place, draw = rng.choice(words), rng.random()
    if draw < 0.5 and row[place] != row[place + 1]:
        row[place], row[place + 1] = row[place + 1], row[place]
        marks[place] = marks[place + 1] = 1
    elif draw < 0.75:
        del row[place], marks[place]
        marks[place] = 1
    else:
        row.insert(place, row[rng.choice(words)])
        marks.insert(place, 1)
    return row, marks


def encoder_batch(mini: Mini, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], seed: int) -> Batch:
    """A batch of the two tasks: predict masked words, and detect altered words.

    A replacement is a word that follows the preceding word in prose, so only the rest of the sentence reveals it.
    """
    special, rng = len(ROBERTA_SPECIAL), random.Random(f"reorder {seed}")
    touched = [reorder(row, special, rng) if rng.random() < REORDERED_ROWS else (row, [0] * len(row)) for row in rows]
    width = max(len(row) for row, _ in touched)
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row, _ in touched])
    marks = torch.tensor([marked + [0] * (width - len(marked)) for _, marked in touched])
    generator = torch.Generator().manual_seed(seed)
    draw, clean = torch.rand(ids.shape, generator=generator), torch.rand(len(rows), 1, generator=generator) < CLEAN_ROWS
    words = ids >= special
    masked = words & (draw < MASKED)
    choice = torch.randint(SUCCESSORS, (ids.numel(),), generator=generator)
    other = successors(mini, tokenizer)[ids.roll(1, 1).flatten(), choice].view_as(ids)
    replaced = words & (draw > 1 - REPLACED) & ~clean & (marks == 0) & (other >= special)
    inputs = torch.where(replaced, other, ids)
    altered = ((inputs != ids) | (marks == 1)).float()
    predicted = masked.flatten().nonzero().squeeze(1)
    judged = (words & ~masked).flatten().nonzero().squeeze(1)
    attention = (ids != tokenizer.pad_token_id).long()
    return Batch(
        inputs.masked_fill(masked, tokenizer.mask_token_id),
        attention if bool((attention == 0).any()) else None,
        predicted,
        ids.flatten()[predicted],
        judged,
        altered.flatten()[judged],
    )


def to_batch(mini: Mini, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], seed: int) -> Batch:
    """Tensors of rows: masked and altered for the encoder, shifted by one for the decoder."""
    if mini.kind == "encoder":
        return encoder_batch(mini, tokenizer, rows, seed)
    ids = torch.tensor(rows)
    predicted = torch.arange(ids.numel()).view_as(ids)[:, :-1].flatten()
    return Batch(ids, None, predicted, ids[:, 1:].flatten())


def batch_at(mini: Mini, tokenizer: PreTrainedTokenizerBase, step: int) -> Batch:
    """The batch of a step, the same for every run of a recipe, interrupted or not."""
    rows = pool(mini, tokenizer, TRAIN_SEED + mini.seed * 1_000_000 + step // POOL_BATCHES)[step % POOL_BATCHES]
    return to_batch(mini, tokenizer, rows, mini.seed * 1_000_000_007 + step)


def held_out_batches(mini: Mini, tokenizer: PreTrainedTokenizerBase, count: int) -> Iterator[Batch]:
    """Yield batches of held-out prose: ``count`` single sentences, or ``count // 5`` rows of 128 tokens."""
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
