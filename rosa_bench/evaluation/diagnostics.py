"""Checks after training: whether the merged model equals the trained one, and how training changed the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from rosa_bench import methods
from rosa_bench.core.task import Encoded, Example, Task
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict
from rosa_bench.models.roles import find_sites, weight_IO

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MERGE_BOUND = 1e-3  # allowed difference of merged and unmerged logits, relative to the largest logit (at least 1)
MERGE_BOUND_BF16 = 3e-2
Start = tuple[torch.Tensor, float | None]  # final hidden states [tokens, width], and the score or loss


def start_outputs(
    model: PreTrainedModel, task: Task, examples: Sequence[Example], rows: Sequence[Encoded], pad_id: int
) -> Start:
    """Final hidden states [tokens, width] of the first examples of a split, and their score (or loss)."""
    first_rows, first_examples = rows[: task.kind.start_examples], examples[: task.kind.start_examples]
    with predict.full_precision(model):
        return _hidden(model, first_rows, pad_id), _outputs(model, task, first_examples, first_rows, pad_id)[1]


def _hidden(model: PreTrainedModel, rows: Sequence[Encoded], pad_id: int) -> torch.Tensor:
    hidden = [
        model.base_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        .last_hidden_state.float()
        .cpu()[inputs["attention_mask"].bool().cpu()]
        for _, inputs in predict.Predictor(model, len(rows), pad_id).batches(rows)
    ]
    return torch.cat(hidden)


def start_facts(before: Start, after: Start) -> dict[str, float]:
    """Distance from the backbone before training: mean cosine of final hidden states, and score difference."""
    cosine = torch.nn.functional.cosine_similarity(before[0], after[0], dim=-1).mean()
    return {"start_cosine": float(cosine)} | _score_difference("start_score_abs_diff", before[1], after[1])


def merge_checked(
    model: PreTrainedModel, task: Task, examples: Sequence[Example], rows: Sequence[Encoded], pad_id: int
) -> dict[str, Any]:
    """Merge the model in place; compare logits and score before and after on the first examples of a split.

    Returns facts: `merge_max_abs_diff` of the fp32 logits; `merge_score_abs_diff` of the primary metric if it is
    defined (for a language model, of its loss); `merge_within_bound`, whether the logits satisfy `MERGE_BOUND`, or
    `MERGE_BOUND_BF16` for a model with bf16 weights.
    """
    low = any(p.dtype == torch.bfloat16 for p in model.parameters())
    count = task.kind.merge_examples
    first_rows, first_examples = rows[:count], examples[:count]
    with predict.full_precision(model):
        before, score = _outputs(model, task, first_examples, first_rows, pad_id)
        methods.merge(model)
        after, merged_score = _outputs(model, task, first_examples, first_rows, pad_id)
    difference = max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
    largest = max(1.0, *(float(values.abs().max()) for values in before))
    return {
        "merge_max_abs_diff": difference,
        "merge_within_bound": difference <= (MERGE_BOUND_BF16 if low else MERGE_BOUND) * largest,
    } | _score_difference("merge_score_abs_diff", score, merged_score)


def _score_difference(name: str, before: float | None, after: float | None) -> dict[str, float]:
    """The absolute difference of two scores as a fact; empty if one is undefined."""
    return {} if before is None or after is None else {name: abs(before - after)}


def _outputs(
    model: PreTrainedModel, task: Task, examples: Sequence[Example], rows: Sequence[Encoded], pad_id: int
) -> tuple[list[torch.Tensor], float | None]:
    """The outputs and the primary metric, or a language model's loss; None in its place if it is undefined."""
    predictor = predict.Predictor(model, len(rows), pad_id)
    if task.num_labels:
        values = predictor.logits(rows)[0]
        predictions = task.kind.predictions(task, examples, values)
        return [values], task.score(task.select_split, predictions).get(task.primary)
    outputs = []
    for _, inputs in predictor.batches(rows):
        inputs.pop("labels")
        outputs.append(model(**inputs).logits.float().cpu()[inputs["attention_mask"].bool().cpu()])
    return outputs, predictor.mean_losses(rows)[0]


@torch.no_grad()
def update_facts(before: PreTrainedModel, after: PreTrainedModel) -> dict[str, Mapping[str, float]]:
    """How the weights of transformer layers changed, by site; unchanged sites are left out.

    `update_rank`: singular values of W_end - W_0 above rounding noise (eps times the larger Frobenius norm).
    `update_effective_rank`: exp of the entropy of the normalized singular values (Roy and Vetterli, 2007).
    `update_relative_norm`: Frobenius norm of the difference over that of W_0, unless W_0 is zero.
    """
    ranks: dict[str, float] = {}
    effective: dict[str, float] = {}
    norms: dict[str, float] = {}
    try:
        sites = find_sites(before, ["all"])
    except UsageError:  # a backbone with unknown layer names
        return {}
    for site in sites:
        old, new = (site.take(weight_IO(model.get_submodule(site.name))) for model in (before, after))
        rounding = torch.finfo(new.dtype).eps
        old, new = old.double(), new.double()
        difference = new.to(old.device) - old
        if not difference.any():
            continue
        values, norm = torch.linalg.svdvals(difference), float(old.norm())
        shares = values / values.sum()
        noise = rounding * max(norm, float(new.norm()))
        ranks[site.label] = int((values > noise).sum())
        effective[site.label] = float(torch.exp(-torch.xlogy(shares, shares).sum()))
        if norm:
            norms[site.label] = float(difference.norm()) / norm
    if not ranks:
        return {}
    return {"update_rank": ranks, "update_effective_rank": effective, "update_relative_norm": norms}
