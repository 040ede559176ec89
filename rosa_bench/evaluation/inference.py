"""Inference cost: latency and throughput of the trained model as deployed, relative to its plain backbone.

The two models alternate on the same batch, so that fluctuations in the machine's speed affect both. The cost of the
method is the median of the ratios of neighboring passes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rosa_bench.config import Precision
from rosa_bench.core.task import Encoded, Example
from rosa_bench.data.batches import collate
from rosa_bench.evaluation import predict
from rosa_bench.evaluation.beam_search import Search

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUDGET_S = 1.5  # seconds for both batch sizes together, unless the fewest pairs take longer
SHARE = 0.03  # the budget of a short run, as a share of its training time
OF_SINGLE = 0.3  # the share of the budget for batches of one
FEWEST = 3  # pairs per batch size
FEWEST_STEPS = 50  # of a run that is measured; shorter ones are trials, which the measurement would slow down
NEW_TOKENS = 16  # generated per input, unless the task generates fewer
Pass = Callable[[], object]


def budget(train_s: float) -> float:
    """Seconds that the measurement may take after `train_s` seconds of training."""
    return min(BUDGET_S, SHARE * train_s)


@dataclass(frozen=True)
class Inference:
    """What a run's task computes for its first evaluation rows: texts of `NEW_TOKENS` tokens, or logits."""

    task: Any
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    rows: Sequence[Encoded]  # as evaluated, of these examples
    batch_size: int
    token_limit: int  # of the model: inputs and outputs
    precision: Precision

    @property
    def new_tokens(self) -> int:
        """Tokens to generate per input."""
        return min(NEW_TOKENS, int(self.task.max_new_tokens))

    def compare(self, model: PreTrainedModel, backbone: PreTrainedModel, seconds: float) -> dict[str, Any]:
        """Measure both models on one row and on a batch, for about `seconds` in all.

        Returns:
            `precision`; `unit`, which is `examples` (in multiple choice, inputs with one choice each) or `tokens`, with
            `new_tokens` per input; and for `batch_1` and `batch_eval` the `size` and what `compared` returns.
        """
        decodes = self.task.kind.decodes
        size = min(self._largest(model), len(self.examples if decodes else self.rows))
        facts: dict[str, Any] = {"precision": self.precision, "unit": "examples"}
        if decodes:
            facts |= {"unit": "tokens", "new_tokens": self.new_tokens}
        with ExitStack() as stack:
            for each in (model, backbone):
                stack.enter_context(_castable_once(each))
                stack.enter_context(predict.in_precision(each, self.precision))
                stack.enter_context(predict.evaluating(each))
            for name, count, share in (("batch_1", 1, OF_SINGLE), ("batch_eval", size, 1 - OF_SINGLE)):
                units = count * (self.new_tokens if decodes else 1)
                passes = self._pass(model, count), self._pass(backbone, count)
                facts[name] = {"size": count} | compared(*passes, units, model.device, share * seconds)
        return facts

    def _largest(self, model: PreTrainedModel) -> int:
        if self.task.kind.decodes:
            return predict.decoding_batch(self.task, model, self.batch_size)
        return self.batch_size if self.task.num_labels else predict.scoring_batch(model, self.rows, self.batch_size)

    def _pass(self, model: PreTrainedModel, count: int) -> Pass:
        """A pass over the first `count` rows; encoding, collating and copying, equal for all models, come first."""
        if not self.task.kind.decodes:
            inputs = predict.to_device(collate(self.rows[:count], int(self.tokenizer.pad_token_id)), model)
            inputs.pop("labels")
            return lambda: model(**inputs)
        room = max(1, self.token_limit - self.task.max_new_tokens)
        prompts = [self.task.prompt_ids(example, self.tokenizer)[-room:] for example in self.examples[:count]]
        greedy = Search(
            num_beams=1,
            max_new_tokens=self.new_tokens,
            no_repeat_ngram=0,
            length_penalty=1.0,
            repetition_penalty=1.0,
            end=int(model.config.vocab_size),  # no token, so that no text ends early
            rules=self.task.search,
        )
        decoder = predict.decoder(self.task, model)
        return lambda: decoder(model, prompts, greedy)


def compared(model: Pass, backbone: Pass, units: int, device: torch.device, seconds: float) -> dict[str, Any]:
    """Time two passes alternately, for about `seconds` but at least `FEWEST` times each, after an untimed one.

    Returns:
        `pairs`, their number; `model_ms` and `backbone_ms`, the median milliseconds of a pass; `model_per_s` and
        `backbone_per_s`, `units` per second; `ratio`, the median over pairs of the model's time over the backbone's;
        `ratio_quartiles`, the first and the third quartile of these ratios.
    """
    end = time.perf_counter() + seconds
    model(), backbone()
    pairs: list[tuple[float, float]] = []
    while len(pairs) < FEWEST or time.perf_counter() < end:
        if len(pairs) % 2:  # every other pair in reverse, so that neither model always runs second
            last, first = timed(backbone, device), timed(model, device)
            pairs.append((first, last))
        else:
            pairs.append((timed(model, device), timed(backbone, device)))
    ratios = [of_model / of_backbone for of_model, of_backbone in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
    of_model, of_backbone = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "pairs": len(pairs),
        "model_ms": 1000 * of_model,
        "backbone_ms": 1000 * of_backbone,
        "model_per_s": units / of_model,
        "backbone_per_s": units / of_backbone,
        "ratio": ratio,
        "ratio_quartiles": [low, high],
    }


def timed(run: Pass, device: torch.device) -> float:
    """Seconds of a pass: by the device's events on a GPU, else by the clock."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


@contextmanager
def _castable_once(model: torch.nn.Module) -> Iterator[None]:
    """Let autocast keep lower-precision copies of all weights; by default, only of weights that require gradients.

    Otherwise a frozen weight would be cast in every pass, and a method that freezes weights would seem slower.
    """
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
