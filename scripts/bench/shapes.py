"""Randomly initialized backbones of RoBERTa's shape, as folders for `model.path`, and rows for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers

from rosa_bench.config.compose import compose
from rosa_bench.core.task import Encoded
from rosa_bench.models.identity import source_of

# width, layers, heads, inner width
SIZES = {
    "toy": (32, 2, 2, 64),
    "mini": (128, 4, 4, 512),
    "small": (384, 6, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
}
VOCABULARY, POSITIONS = 50265, 514


def size_of(size: str, quick: bool) -> str:
    """The size to build: `toy` with --quick."""
    return "toy" if quick else size


@contextmanager
def folder(size: str, layers: int | None = None) -> Iterator[Path]:
    """A temporary folder with a classifier of this size (or with `layers` layers) and the embedded tokenizer.

    Its weights, including the head, are drawn once and saved, so every contender loads the same ones.
    """
    width, depth, heads, inner = SIZES[size]
    config = transformers.RobertaConfig(
        hidden_size=width, num_hidden_layers=layers or depth, num_attention_heads=heads, intermediate_size=inner,
        vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, type_vocab_size=1, num_labels=2,
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(source_of(compose(["task=cola"]).model))
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="rosa_bench-") as name:
        torch.manual_seed(0)
        transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(name)
        tokenizer.save_pretrained(name)
        yield Path(name)


def even_rows(count: int, length: int) -> list[Encoded]:
    """Random rows of one length, labeled 0 and 1, so that nothing is padded."""
    ids = torch.randint(10, 4900, (count, length), generator=torch.Generator().manual_seed(0))
    return [Encoded(row, index % 2) for index, row in enumerate(ids.tolist())]
