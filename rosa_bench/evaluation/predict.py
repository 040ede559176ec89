"""Predictions of a trained model: classes and scores from logits, losses over references, and decoded texts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rosa_bench.config import Precision
from rosa_bench.core.task import IGNORED, Encoded, Example, Prediction
from rosa_bench.data.batches import collate
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import tree_cache
from rosa_bench.evaluation.beam_search import Search, generated, search
from rosa_bench.models import casts
from rosa_bench.models.evaluation_mode import evaluation_mode
from rosa_bench.models.traits import max_length
from rosa_bench.system import progress
from rosa_bench.tasks.kinds import generate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rosa_bench.core.method import Method
    from rosa_bench.evaluation.journal import Journal


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode with `torch.inference_mode`. Restores the training mode."""
    with evaluation_mode(model), torch.inference_mode():
        yield


@contextmanager
def full_precision(model: torch.nn.Module) -> Iterator[None]:
    """Compute in fp32 whatever the training precision, or in bf16 if the model has bf16 weights."""
    with in_precision(model, "bf16" if any(p.dtype == torch.bfloat16 for p in model.parameters()) else "fp32"):
        yield


@contextmanager
def attaching(model: PreTrainedModel, method: Method) -> Iterator[None]:
    """A context for attaching a method, which may run the model. Tensors it adds to a bf16 backbone train in fp32.

    Raises UsageError if the method changes weights that are stored in bf16.
    """
    with full_precision(model), casts.trained_in_fp32(model, method.moved, method.name):
        yield


@contextmanager
def in_precision(model: torch.nn.Module, precision: Precision | None) -> Iterator[None]:
    """Compute in `precision`; None keeps the training precision, whose autocast wraps the model's `forward`."""
    if precision is None:
        yield
        return
    wrapped = model.__dict__.pop("forward", None)
    lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    kind = next(model.parameters()).device.type
    try:
        with tf32(precision == "tf32"), torch.autocast(kind, lower, enabled=lower is not None):
            yield
    finally:
        if wrapped is not None:
            model.__dict__["forward"] = wrapped


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Set whether fp32 matrix products on a GPU round their inputs to the 10 bits of TF32."""
    before, precision = torch.get_float32_matmul_precision(), "high" if on else "highest"
    if before != precision:
        torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        if before != precision:
            torch.set_float32_matmul_precision(before)


def sorted_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


SCORES = 2**28  # logits to compute at a time
Active = Callable[[], AbstractContextManager[None]]  # a context in which the model acts as one of its variants


@dataclass(frozen=True)
class Predictor:
    """Runs a model on encoded rows in padded batches, in evaluation mode, once per variant."""

    model: PreTrainedModel
    batch_size: int
    pad_id: int
    what: str = "scoring"  # describes the work where its progress is shown

    def logits(self, rows: Sequence[Encoded], variants: Sequence[Active] = (nullcontext,)) -> list[torch.Tensor]:
        """The head's outputs [rows, outputs] of each variant, in fp32 on the CPU, in the order of `rows`."""
        outputs: list[torch.Tensor] = []
        for i, batch, inputs, _ in self.passes(rows, variants):
            values = self.model(**inputs).logits.float().cpu()
            if len(outputs) == i:
                outputs.append(torch.empty(len(rows), values.shape[-1]))
            outputs[i][batch] = values
        return outputs

    def mean_losses(self, rows: Sequence[Encoded], variants: Sequence[Active] = (nullcontext,)) -> list[float]:
        """The mean negative log-likelihood per target token of each variant, in nats."""
        totals, tokens = [0.0] * len(variants), 0
        for i, _, inputs, labels in self.passes(rows, variants):
            tokens += int((labels[:, 1:] != IGNORED).sum()) if i == 0 else 0
            totals[i] += float(generate.KIND.loss(self.model(**inputs).logits.float(), labels, 0.0))
        return [total / tokens for total in totals]

    def likelihoods(self, rows: Sequence[Encoded], variants: Sequence[Active] = (nullcontext,)) -> list[torch.Tensor]:
        """The log-likelihood [rows] of each row's target tokens by each variant, in nats, in fp32 on the CPU."""
        totals = [torch.empty(len(rows)) for _ in variants]
        size = scoring_batch(self.model, rows, self.batch_size)
        for i, batch, inputs, labels in replace(self, batch_size=size).passes(rows, variants):
            targets = labels[:, 1:]
            scored = targets != IGNORED
            scores = self.model(**inputs).logits[:, :-1][scored].float()
            by_token = scores.log_softmax(-1).gather(1, targets[scored][:, None])[:, 0]
            sums = by_token.new_zeros(len(batch)).index_add_(0, scored.nonzero()[:, 0], by_token)
            totals[i][batch] = sums.cpu()
        return totals

    def passes(
        self, rows: Sequence[Encoded], variants: Sequence[Active]
    ) -> Iterator[tuple[int, list[int], dict[str, torch.Tensor], torch.Tensor]]:
        """Yield each batch once per variant, with that variant active: variant index, row indices, inputs, labels."""
        for batch, inputs in self.batches(rows):
            labels = inputs.pop("labels")
            for i, active in enumerate(variants):
                with active():
                    yield i, batch, inputs, labels

    def batches(self, rows: Sequence[Encoded]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Yield row indices and padded tensors of each batch, on the model's device."""
        with evaluating(self.model):
            task = progress.Task(self.what, len(rows))
            for batch in sorted_batches([len(row.input_ids) for row in rows], self.batch_size):
                yield batch, to_device(collate([rows[i] for i in batch], self.pad_id), self.model)
                task.advance(len(batch))


def to_device(inputs: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def scoring_batch(model: PreTrainedModel, rows: Sequence[Encoded], batch_size: int) -> int:
    """Number of rows to score at a time by their likelihoods, limited by the memory for logits."""
    longest, config = max(len(row.input_ids) for row in rows), model.config
    return max(1, min(batch_size, SCORES // (longest * int(config.vocab_size))))


def decoding_batch(task: Any, model: PreTrainedModel, batch_size: int) -> int:
    """Number of inputs to decode at a time, limited by the memory for keys, values and scores."""
    on_cpu = model.device.type == "cpu"
    beams: int = task.num_beams
    if not tree_cache.supported(model):  # `generate` copies the keys and values of every beam at every step
        return max(1, min(batch_size, 64, (160 if on_cpu else 640) // beams))
    config: Any = model.config
    floats: int = 2 * config.num_hidden_layers * config.hidden_size * (64 + 8 * beams) + 3 * beams * config.vocab_size
    return max(1, min(batch_size, 64, (2**28 if on_cpu else 2**31) // (4 * floats)))


def decoder_of(task: Any, model: PreTrainedModel) -> str:
    """The search that decodes this model's outputs, for the record."""
    return "transformers.generate" if decoder(task, model) is generated else "rosa_bench.evaluation.beam_search.search"


def decoder(task: Any, model: PreTrainedModel) -> Callable[..., list[list[int]]]:
    """Our search, or `generate` if ours is slow for the model and `generate` follows the task's rules."""
    return search if tree_cache.supported(model) or task.search != "transformers" else generated


def tokens_held(model: PreTrainedModel, extra: int = 0) -> int:
    """The maximum number of tokens, input and output, of a model with `extra` virtual tokens."""
    return max_length(model, sys.maxsize, extra)


def check_room(task: Any, model: PreTrainedModel, extra: int = 0) -> None:
    """Raise UsageError if the longest output leaves no room for an input."""
    if task.max_new_tokens >= (capacity := tokens_held(model, extra)):
        raise UsageError(
            f"task.max_new_tokens={task.max_new_tokens} leaves no room for an input: the model holds {capacity} tokens"
        )


def decode(
    task: Any,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    batch_size: int,
    limit: int,
    journal: Journal | None = None,
    what: str = "decoding",
) -> list[Prediction]:
    """Decode one output per example, in order, with greedy or beam search over batches of similar length.

    Equal inputs are decoded once. `limit` is the maximum number of tokens of the model; an input longer than
    `limit - max_new_tokens` loses its beginning. Outputs that the journal has are not decoded again. `what` describes
    the work where its progress is shown.
    """
    room = max(1, limit - task.max_new_tokens)
    inputs = [tuple(task.prompt_ids(example, tokenizer)[-room:]) for example in examples]
    prompts = list(dict.fromkeys(inputs))
    texts = dict(journal.texts) if journal else {}
    shown = progress.Task(what, len(prompts))
    with evaluating(model):
        for batch in sorted_batches([len(ids) for ids in prompts], batch_size):
            if not all(i in texts for i in batch):
                new_texts = dict(
                    zip(batch, _generated(task, model, tokenizer, [prompts[i] for i in batch]), strict=True)
                )
                texts |= new_texts
                if journal:
                    journal.add(new_texts)
            shown.advance(len(batch))
    by_prompt = {prompt: texts[i] for i, prompt in enumerate(prompts)}
    return [
        Prediction(e.id, by_prompt[prompt], references=e.references, subset=e.subset)
        for e, prompt in zip(examples, inputs, strict=True)
    ]


def search_settings(task: Any, tokenizer: PreTrainedTokenizerBase) -> Search:
    return Search(
        num_beams=task.num_beams,
        max_new_tokens=task.max_new_tokens,
        no_repeat_ngram=task.no_repeat_ngram,
        length_penalty=task.length_penalty,
        repetition_penalty=task.repetition_penalty,
        end=int(tokenizer.eos_token_id),
        rules=task.search,
        ngrams_over=task.no_repeat_ngram_over or "all",
    )


def _generated(
    task: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]
) -> Iterator[str]:
    for tokens in decoder(task, model)(model, prompts, search_settings(task, tokenizer)):
        yield str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
