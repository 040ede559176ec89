"""Greedy and beam search over many inputs at a time; each input gets the same output as when decoded alone.

Shapes: N inputs, K beams per input, V words, P tokens of the longest input, T new tokens so far.

There are two sets of rules. If two scores are equal to the last bit, either may come first, as in the originals.

`transformers` 5 (`GenerationMixin._beam_search` with `early_stopping=False`; `_sample` without sampling): 2K candidates
per step; an end of text counts if it is among the first K; K finished texts are kept. An input is done when the score
of its best beam, divided by its length to the power of the penalty, is no better than the worst of K finished texts.
Scores are log-probabilities; penalties act on them and consider input and generated tokens.

`lora` (microsoft/LoRA c4593f0, `examples/NLG/src/gpt2_beam.py`): K candidates per step; penalties act on the logits,
before the softmax, and consider generated tokens only. When a beam ends, its score is divided by its length, including
the end token, to the power of the penalty; so are the scores of beams alive after the last step, and the best of all
wins. The authors always take every step. Here an input is done when none of its beams can still win, which changes no
output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch.nn.functional import log_softmax
from transformers import GenerationConfig, NoRepeatNGramLogitsProcessor

from rosa_bench.evaluation.tree_cache import Copies, Tree, plain_attention, supported
from rosa_bench.models.onednn import forward_only

NOTHING = -1.0e9  # the score of a missing hypothesis, as in `transformers`
GROUP = 32  # numbers per group, of which only the largest is compared at first


@dataclass(frozen=True, kw_only=True)
class Search:
    """Decoding options, with the meaning they have in `transformers.GenerationConfig`."""

    num_beams: int
    max_new_tokens: int
    no_repeat_ngram: int
    length_penalty: float
    repetition_penalty: float
    end: int  # the end-of-text token
    rules: str = "transformers"
    ngrams_over: Literal["all", "text"] = "all"  # what `no_repeat_ngram` sees; `text` excludes the input, as in `lora`

    @property
    def over_text(self) -> bool:
        """Whether n-grams of the input may be repeated."""
        return self.rules != "transformers" or self.ngrams_over == "text"


def search(model: Any, prompts: Sequence[Sequence[int]], settings: Search) -> list[list[int]]:
    """The best continuation of each input, as tokens before the end of text. The model must be in evaluation mode.

    Models without support for trees process inputs of equal length together.
    """
    if supported(model):
        with plain_attention(model), forward_only(model):
            return _searched(Tree(model, prompts, settings.num_beams), settings)
    texts: list[list[int]] = [[] for _ in prompts]
    for rows in _equal_lengths(prompts):
        copies = Copies(model, [prompts[i] for i in rows], settings.num_beams)
        for i, text in zip(rows, _searched(copies, settings), strict=True):
            texts[i] = text
    return texts


def _searched(tree: Tree | Copies, settings: Search) -> list[list[int]]:
    """The best continuation of each input of a tree. Finished inputs leave the batch at once."""
    beams = Beams if settings.rules == "transformers" else LoraBeams
    front: Front = Greedy(tree, settings) if settings.num_beams == 1 else beams(tree, settings)
    texts: list[list[int]] = [[] for _ in tree.prompts]
    logits = tree.begin()[:, None].repeat(1, settings.num_beams, 1)
    rows = torch.arange(len(texts), device=logits.device)
    while True:
        tokens, parents, active = front.advance(logits)
        if not bool(active.all()):
            closed = (~active).nonzero()[:, 0]
            for i, text in zip(rows[closed].tolist(), front.best(closed).tolist(), strict=True):
                texts[i] = text[: text.index(settings.end)] if settings.end in text else text
            remaining = _packed(active)
            if not len(remaining):
                return texts
            tree.keep(remaining)
            front.keep(remaining)
            rows, tokens, parents = rows[remaining], tokens[remaining], parents[remaining]
        logits = tree.step(tokens, parents)


def generated(model: Any, prompts: Sequence[Sequence[int]], settings: Search) -> list[list[int]]:
    """Decode with `generate` of `transformers`, for models without support for trees; much slower.

    Only inputs of equal length share a batch, because padding would count in n-grams.
    """
    options: dict[str, Any] = {"do_sample": False, "num_beams": settings.num_beams}
    options |= {"max_new_tokens": settings.max_new_tokens, "repetition_penalty": settings.repetition_penalty}
    options |= {"eos_token_id": settings.end, "pad_token_id": settings.end}
    if settings.num_beams > 1:
        options["length_penalty"] = settings.length_penalty
    texts: list[list[int]] = [[] for _ in prompts]
    for rows in _equal_lengths(prompts):
        inputs = torch.tensor([list(prompts[i]) for i in rows], device=model.device)
        length = inputs.shape[1]
        if settings.no_repeat_ngram and settings.over_text:
            options["logits_processor"] = [partial(_ban_ngrams, size=settings.no_repeat_ngram, input_length=length)]
        else:
            options["no_repeat_ngram_size"] = settings.no_repeat_ngram
        with _plain_generation(model):
            tokens = model.generate(input_ids=inputs, attention_mask=torch.ones_like(inputs), **options)
        for i, text in zip(rows, tokens[:, length:].tolist(), strict=True):
            texts[i] = text[: text.index(settings.end)] if settings.end in text else text
    return texts


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Hide the model's own generation settings, which `generate` would use where none are given."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _ban_ngrams(tokens: torch.Tensor, scores: torch.Tensor, size: int, input_length: int) -> torch.Tensor:
    """Ban tokens in scores [rows, V] that would repeat an n-gram of the tokens [rows, P + T] after the input."""
    text = cast(torch.LongTensor, tokens[:, input_length:])
    allowed: torch.Tensor = NoRepeatNGramLogitsProcessor(size)(text, cast(torch.FloatTensor, scores))
    return allowed


def _equal_lengths(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of the inputs, grouped by length."""
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(prompts):
        by_length.setdefault(len(ids), []).append(i)
    return list(by_length.values())


def _packed(active: torch.Tensor) -> torch.Tensor:
    """Remaining rows in an order that moves few: those at the end take the places of finished ones."""
    count = int(active.sum())
    rows = torch.arange(count, device=active.device)
    rows[~active[:count]] = active[count:].nonzero()[:, 0] + count
    return rows


class Front(ABC):
    """The beams of a search: tokens [N, K, P + T] of every beam, and their scores in subclasses."""

    per_input: tuple[str, ...] = ("tokens", "padding")  # tensors with a row per input

    def __init__(self, tree: Tree | Copies, settings: Search) -> None:
        n, self.width = tree.prompts.shape
        self.settings, self.length = settings, 0
        self.padding = self.width - tree.lengths
        self.tokens = tree.prompts.new_empty(n, settings.num_beams, self.width + settings.max_new_tokens)
        self.tokens[:, :, : self.width] = tree.prompts[:, None]

    @abstractmethod
    def advance(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From logits [N, K, V]: next tokens [N, K], the beams [N, K] they continue, and which inputs [N] continue."""

    @abstractmethod
    def best(self, rows: torch.Tensor) -> torch.Tensor:
        """The texts [rows, T] of finished inputs."""

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with these inputs only."""
        for name in self.per_input:
            setattr(self, name, getattr(self, name)[rows])

    def penalized(self, scores: torch.Tensor) -> torch.Tensor:
        """Apply the repetition penalty and ban repeated n-grams in scores [N * K, V]; in place.

        Padding repeats the first token of its input, which adds no word; n-grams that include padding do not count.
        """
        all_tokens = self.tokens[:, :, : self.width + self.length].flatten(0, 1)
        text = all_tokens[:, self.width :]
        if self.settings.repetition_penalty != 1.0:
            counted = all_tokens if self.settings.rules == "transformers" else text
            factor, values = self.settings.repetition_penalty, scores.gather(1, counted)
            scores.scatter_(1, counted, torch.where(values < 0, values * factor, values / factor))
        size, counted = self.settings.no_repeat_ngram, text if self.settings.over_text else all_tokens
        if 0 < size <= counted.shape[1]:
            ends = counted[:, size - 1 :]
            repeats = torch.ones_like(ends, dtype=torch.bool)
            if not self.settings.over_text:
                starts = torch.arange(ends.shape[1], device=counted.device)
                repeats = starts >= self.padding.repeat_interleave(self.settings.num_beams)[:, None]
            for i in range(size - 1):
                last = counted.shape[1] - size + 1 + i
                repeats = repeats & (counted[:, i : i + ends.shape[1]] == counted[:, last : last + 1])
            scores.scatter_add_(1, ends, torch.zeros_like(ends, dtype=scores.dtype).masked_fill_(repeats, -torch.inf))
        return scores


class Greedy(Front):
    """Takes the likeliest word at every step."""

    def advance(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Penalties act on logits, and a text ends at its first end token, under both sets of rules."""
        tokens = self.penalized(logits[:, 0].clone()).argmax(-1, keepdim=True)
        self.tokens[:, :, self.width + self.length] = tokens
        self.length += 1
        going = tokens[:, 0] != self.settings.end
        if self.length == self.settings.max_new_tokens:
            going = torch.zeros_like(going)
        return tokens, torch.zeros_like(tokens), going

    def best(self, rows: torch.Tensor) -> torch.Tensor:
        return self.tokens[rows, 0, self.width : self.width + self.length]


class Beams(Front):
    """The K best beams and the K best finished texts of each input, by the rules of `transformers`."""

    per_input = (*Front.per_input, "scores", "finished", "finished_scores", "is_finished")

    def __init__(self, tree: Tree | Copies, settings: Search) -> None:
        super().__init__(tree, settings)
        n, beams, _ = self.tokens.shape
        self.scores = torch.full((n, beams), NOTHING, device=self.tokens.device)
        self.scores[:, 0] = 0.0  # all beams are equal at first, so only one may be continued
        self.finished = self.tokens.new_full((n, beams, settings.max_new_tokens), settings.end)
        self.finished_scores = torch.full_like(self.scores, NOTHING)
        self.is_finished = torch.zeros_like(self.scores, dtype=torch.bool)

    def advance(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores are sums of log-probabilities."""
        n, beams, words = logits.shape
        log_probs = self.penalized(log_softmax(logits.reshape(n * beams, words), -1))
        values, index = largest(log_probs.view(n, beams, words), self.scores, 2 * beams)
        parents, tokens = index // words, index % words
        self.length += 1
        if self.length < self.settings.max_new_tokens:
            ends = tokens == self.settings.end
        else:
            ends = torch.ones_like(tokens, dtype=torch.bool)
        texts = _gathered(self.tokens[:, :, self.width : self.width + self.length], parents)
        texts[:, :, -1] = tokens
        running = values + ends * NOTHING
        selected = running.topk(beams).indices
        self.scores = running.gather(1, selected)
        self.tokens[:, :, self.width : self.width + self.length] = _gathered(texts, selected)
        self._finish(values, texts, ends)
        return tokens.gather(1, selected), parents.gather(1, selected), self._improvable() & ~ends.all(1)

    def _finish(self, values: torch.Tensor, texts: torch.Tensor, ends: torch.Tensor) -> None:
        """Add candidates that end here to the finished texts, if they are among the first K candidates."""
        beams = self.settings.num_beams
        ends = ends & (torch.arange(2 * beams, device=ends.device) < beams)
        values = values / self.length**self.settings.length_penalty + ~ends * NOTHING
        self.finished_scores, selected = torch.cat([self.finished_scores, values], 1).topk(beams)
        self.is_finished = torch.cat([self.is_finished, ends], 1).gather(1, selected)
        texts = torch.cat([self.finished[:, :, : self.length], texts], 1)
        self.finished[:, :, : self.length] = _gathered(texts, selected)

    def _improvable(self) -> torch.Tensor:
        """Whether the best beam, if it ended now, would be better than the worst of K finished texts."""
        best: torch.Tensor = self.scores[:, :1] / self.length**self.settings.length_penalty
        worst = torch.where(self.is_finished, self.finished_scores.amin(1, keepdim=True), NOTHING)
        better: torch.Tensor = best > worst
        return better.any(1)

    def best(self, rows: torch.Tensor) -> torch.Tensor:
        return self.finished[rows, 0, : self.length]


class LoraBeams(Front):
    """The K best beams and the best finished text of each input, by the rules of `lora`."""

    per_input = (*Front.per_input, "scores", "finished", "finished_score")

    def __init__(self, tree: Tree | Copies, settings: Search) -> None:
        super().__init__(tree, settings)
        n, beams, _ = self.tokens.shape
        self.scores = torch.full((n, beams), -torch.inf, device=self.tokens.device)
        self.scores[:, 0] = 0.0  # all beams are equal at first, so only one may be continued
        self.finished = self.tokens.new_full((n, settings.max_new_tokens), settings.end)
        self.finished_score = self.scores.new_full((n,), -torch.inf)

    def advance(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A finished beam continues with a score of minus infinity, so no continuation of it is selected."""
        n, beams, words = logits.shape
        values = log_softmax(self.penalized(logits.reshape(n * beams, words)), -1)
        self.scores, index = largest(values.view(n, beams, words), self.scores, beams)
        parents, tokens = index // words, index % words
        self.length += 1
        texts = _gathered(self.tokens[:, :, self.width : self.width + self.length], parents)
        texts[:, :, -1] = tokens
        self.tokens[:, :, self.width : self.width + self.length] = texts
        ends = tokens == self.settings.end
        self._finish(ends)
        self.scores = self.scores.masked_fill(ends, -torch.inf)
        if self.length == self.settings.max_new_tokens:
            self._finish(~ends)
            return tokens, parents, torch.zeros_like(ends[:, 0])
        return tokens, parents, self._improvable()

    def _finish(self, mask: torch.Tensor) -> None:
        """Replace the finished text by the best of some beams [N, K], if that is better."""
        scores = self.scores.masked_fill(~mask, -torch.inf) / self.length**self.settings.length_penalty
        score, beam = scores.max(1)
        better = score > self.finished_score
        texts = self.tokens[torch.arange(len(beam), device=beam.device), beam, self.width : self.width + self.length]
        self.finished[:, : self.length] = torch.where(better[:, None], texts, self.finished[:, : self.length])
        self.finished_score = torch.where(better, score, self.finished_score)

    def _improvable(self) -> torch.Tensor:
        """Whether the best beam would win if its remaining words were certain and its length optimal."""
        length = self.settings.max_new_tokens if self.settings.length_penalty > 0 else self.length + 1
        better: torch.Tensor = self.scores.amax(1) / length**self.settings.length_penalty > self.finished_score
        return better

    def best(self, rows: torch.Tensor) -> torch.Tensor:
        return self.finished[rows, : self.length]


def _gathered(texts: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
    """The texts [N, J, T] of beams [N, J] from texts [N, K, T]."""
    return texts.gather(1, beams[..., None].expand(*beams.shape, texts.shape[2]))


def largest(values: torch.Tensor, offsets: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of values [N, K, V] + offsets [N, K] per input, in order, and their indices in [K * V].

    The largest numbers are in the groups with the largest maxima, so most numbers are read only once.
    """
    n, beams, words = values.shape
    groups_per_beam = words // GROUP
    if beams * groups_per_beam < count:
        best = (values + offsets[..., None]).flatten(1).topk(count)
        return best.values, best.indices
    maxima = values[..., : groups_per_beam * GROUP].unflatten(2, (GROUP, groups_per_beam)).amax(2) + offsets[..., None]
    groups = maxima.flatten(1).topk(count).indices
    inside = groups // groups_per_beam * words + groups % groups_per_beam
    device = values.device
    index = (inside[..., None] + groups_per_beam * torch.arange(GROUP, device=device)).flatten(1)
    if ungrouped := words - groups_per_beam * GROUP:
        rows = torch.arange(beams, device=device)[:, None] * words
        last = rows + torch.arange(words - ungrouped, words, device=device)
        index = torch.cat([index, last.flatten().expand(n, -1)], 1)
    candidates = values.flatten(1).gather(1, index) + offsets.gather(1, index // words)
    top, selected = candidates.topk(count)
    return top, index.gather(1, selected)
