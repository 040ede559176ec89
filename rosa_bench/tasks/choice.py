"""Multiple choice by likelihood: a causal decoder answers with the choice that is likeliest after the question.

OpenBookQA (Mihaylov et al., arXiv 1809.02789), PIQA (Bisk et al., arXiv 1911.11641), ARC (Clark et al., arXiv
1803.05457) and SciQ (Welbl et al., arXiv 1707.06209). Training uses the prompt and the right answer; evaluation scores
every choice after the prompt, as `acc` and `acc_norm` of the lm-evaluation-harness do.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.fields import class_field, field, identity_field, texts_field
from rosa_bench.core.kind import Kind
from rosa_bench.core.schema import configured
from rosa_bench.core.task import IGNORED, Encoded, Example, Hub, Prediction, Task
from rosa_bench.errors import UsageError
from rosa_bench.models.tokens import pair_ids
from rosa_bench.system.hub import COMMIT
from rosa_bench.system.strict_json import short
from rosa_bench.tasks.kinds.choose import KIND

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rosa_bench.stats.summary import Numbers


@configured
class Choice(Task):
    """Multiple-choice questions with one right answer each.

    With `answers`, the named fields hold the answers, and the right one is the field `right` or, if that is null, the
    one at the integer `label`. Otherwise `choices` has lists `label` and `text`, and `answerKey` is the right label.
    """

    prompt: str  # template with fields of a row in braces; a space and a choice follow it
    # fields that hold the answers; empty: rows have `choices` and `answerKey`
    answers: list[str] = Field(default_factory=list)
    right: str | None = None  # field among `answers` that holds the right one; null: `label` is its index
    renamed: dict[str, str] = Field(default_factory=dict)  # fields to rename in hub rows: {hub name: our name}
    hub_repository: str | None = None  # repository that `data=hub` reads; null: none
    hub_revision: str = ""  # commit of `hub_repository`
    hub_files: str = ""  # pattern of its files; {split} is replaced by the split's name
    primary: Literal["accuracy", "accuracy_norm"] = "accuracy"
    loss_on: Literal["target", "sequence"] = "target"  # loss on the output text or answer only, or on all tokens

    kind: ClassVar[Kind] = KIND
    num_labels: ClassVar[int] = 0  # the task uses the language model's own head

    def __post_init__(self) -> None:
        try:
            names = self._fields
        except ValueError as error:
            raise ValueError(f"prompt={short(self.prompt)} is not a valid format string ({error})") from error
        if not names or not all(name.isidentifier() for name in names):
            raise ValueError(f"prompt={short(self.prompt)} must name fields of a row in braces, such as {{question}}")
        if any(form or conversion for _, _, form, conversion in string.Formatter().parse(self.prompt)):
            raise ValueError(f"prompt={short(self.prompt)} must have only field names in braces")
        if len(self.answers) == 1 or (self.right is not None and self.right not in self.answers):
            answers, right = short(list(self.answers)), short(self.right)
            raise ValueError(f"answers={answers} must name at least two fields, and right={right} one of them")
        if self.hub_repository is not None and not COMMIT.fullmatch(self.hub_revision):
            shown = short(self.hub_revision)
            raise ValueError(f"hub_revision={shown} is not a commit of {self.hub_repository} (40 hexadecimal digits)")

    @property
    def _fields(self) -> list[str]:
        return [name for _, name, _, _ in string.Formatter().parse(self.prompt) if name is not None]

    @property
    def classes(self) -> int | None:
        """Number of `answers`; None if there are none, since the number of choices then differs between rows."""
        return len(self.answers) or None

    @property
    def hub(self) -> Hub:
        """Parquet files at the yaml's revision. Raises UsageError if the yaml has no repository."""
        if self.hub_repository is None:
            raise UsageError(
                f"task={self.name} has no hub repository; use data=embedded, or data=local data.dir=FOLDER"
            )
        return Hub(self.hub_repository, self.hub_revision, self.hub_files)

    def from_hub(self, rows: Iterable[Mapping[str, Any]], split: str) -> Iterator[Mapping[str, Any]]:
        """The rows, with fields renamed as in `data=local`."""
        for row in rows:
            yield {self.renamed.get(name, name): value for name, value in row.items()}

    def parse(self, row: Mapping[str, Any], where: str) -> Example:
        """The prompt and the choices as texts, and the index of the right choice as label."""
        values = {name: field(row, name, str, where) for name in self._fields}
        prompt = self.prompt.format_map(values).strip()
        if not any(value.strip() for value in values.values()):
            raise UsageError(f"{where}: field {self._fields[-1]!r} is empty")
        choices, label = self._answers(row, where) if self.answers else _keyed(row, where)
        return Example(identity_field(row, ("id", "idx"), where), (prompt, *choices), label)

    def _answers(self, row: Mapping[str, Any], where: str) -> tuple[list[str], int]:
        choices = [field(row, name, str, where) for name in self.answers]
        for name, text in zip(self.answers, choices, strict=True):
            if not text.strip():
                raise UsageError(f"{where}: field {name!r} is empty")
        return choices, self.answers.index(self.right) if self.right else class_field(row, "label", len(choices), where)

    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Token ids of the prompt and the right answer.

        Raises UsageError if a text contains a special token that the tokenizer does not read as plain text.
        """
        return self._joined(
            example, example.texts[1 + example.label], tokenizer, max_length, self.loss_on == "sequence"
        )

    def candidates(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Encoded]:
        """Token ids of prompt and answer for each choice; only answers have labels. Raises UsageError like `encode`."""
        return [self._joined(example, text, tokenizer, max_length, False) for text in example.texts[1:]]

    def _joined(
        self, example: Example, choice: str, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt_loss: bool
    ) -> Encoded:
        """Truncate the start of the prompt first, then the end of the choice. At least one prompt token remains."""
        prompt, answer = pair_ids(tokenizer, example.texts[0], f" {choice}", self.row_name(example))
        target = answer[: max_length - 1]
        context = prompt[max(0, len(prompt) + len(target) - max_length) :]
        prompt_labels = [IGNORED, *context[1:]] if prompt_loss else [IGNORED] * len(context)
        cut, cut_target = len(context) < len(prompt), len(target) < len(answer)
        return Encoded([*context, *target], [*prompt_labels, *target], cut=cut, cut_target=cut_target)

    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """Accuracy in points: by log-likelihood, and by log-likelihood per character of a choice."""
        from rosa_bench import metrics
        from rosa_bench.metrics.metric import score_all

        scores = score_all([metrics.find("accuracy")], *self.columns(predictions, "accuracy"))
        if all(p.logits for p in predictions):
            norm = [metrics.find("accuracy_norm")]
            scores |= score_all(norm, *self.columns(predictions, "accuracy_norm"))
        return scores

    def columns(self, predictions: Sequence[Prediction], metric: str) -> tuple[Numbers, Numbers]:
        """Indices of the predicted choices, per character if `metric` is `accuracy_norm`, and of the right ones."""
        import numpy as np

        values, labels = super().columns(predictions, metric)
        return (np.array(normalized(predictions)) if metric == "accuracy_norm" else values), labels


def normalized(predictions: Sequence[Prediction]) -> list[float]:
    """Indices of the choices with the largest log-likelihood per character, the first one on a tie."""
    indices = []
    for p in predictions:
        per_character = [value / length for value, length in zip(p.logits, p.lengths, strict=True)]
        indices.append(float(per_character.index(max(per_character))))
    return indices


def _keyed(row: Mapping[str, Any], where: str) -> tuple[list[str], int]:
    """The choices and the index of the right one from fields `choices` and `answerKey`."""
    choices = field(row, "choices", dict, where)
    texts, keys = (texts_field(choices, name, f"{where}: field 'choices'") for name in ("text", "label"))
    key = field(row, "answerKey", str, where).strip()
    if len(texts) < 2 or len(texts) != len(keys) or len(set(keys)) < len(keys):
        raise UsageError(f"{where}: field 'choices' has {len(texts)} texts and {len(set(keys))} different labels")
    if key not in keys:
        raise UsageError(f"{where}: field 'answerKey' is {short(key)}, not one of {', '.join(keys)[:80]}")
    return texts, keys.index(key)
