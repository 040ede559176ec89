"""Scores at epoch ends and at the end of a run. Nothing is evaluated twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rosa_bench.config import Precision, Run
from rosa_bench.core.task import Encoded, Example, Prediction
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import Split
from rosa_bench.evaluation import predict
from rosa_bench.evaluation.journal import Journal
from rosa_bench.metrics import scores as metrics
from rosa_bench.models import hashing
from rosa_bench.records import checkpoints
from rosa_bench.records.best_epoch import best_epoch, chosen_by
from rosa_bench.records.recorder import Recorder
from rosa_bench.system import progress
from rosa_bench.system.console import warn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Scores = dict[str, dict[str, float]]


class Scorer:
    """Scores one model on a run's splits. Predictions of the last epoch end are reused for the final scores."""

    def __init__(
        self,
        run: Run,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        splits: Mapping[str, Split],
        max_length: int,
    ) -> None:
        self.run, self.task, self.model, self.tokenizer = run, run.task, model, tokenizer
        self.splits, self.max_length = splits, max_length
        self._encoded: dict[str, list[Encoded]] = {}
        self._rows: dict[str, list[Encoded]] = {}
        self._loss_rows: list[Encoded] | None = None
        self._own_rows = False  # whether the kind of task evaluates its own rows
        self._latest: dict[str, list[Prediction]] = {}
        if self.task.kind.decodes:
            predict.check_room(run.task, model, run.method.extra_tokens)

    def encoded(self, split: str) -> list[Encoded]:
        """Token ids of a split, cached."""
        if split not in self._encoded:
            self._encoded[split] = encode_split(self.task, self.tokenizer, self.splits[split], self.max_length)
        return self._encoded[split]

    def rows(self, split: str) -> list[Encoded]:
        """The rows to evaluate of a split, as defined by the kind of task, cached.

        Rows that the kind encodes itself may be as long as the model allows, not only `train.max_length`: truncating a
        choice would inflate its likelihood.
        """
        if split not in self._rows:
            limit = predict.tokens_held(self.model, self.run.method.extra_tokens)
            rows = self.task.kind.rows(self.task, self.splits[split].examples, self.tokenizer, limit)
            self._rows[split] = self.encoded(split) if rows is None else rows
            self._own_rows |= rows is not None
        return self._rows[split]

    def loss_rows(self) -> list[Encoded]:
        """The rows whose mean loss is that of the selection split, as defined by the task, cached."""
        if self._loss_rows is None:
            split = self.splits[self.task.select_split]
            examples = [target for example in split.examples for target in self.task.loss_targets(example)]
            if examples == list(split.examples):
                self._loss_rows = self.encoded(self.task.select_split)
            else:
                several = replace(split, examples=examples)
                self._loss_rows = encode_split(self.task, self.tokenizer, several, self.max_length)
        return self._loss_rows

    def encode_all(self) -> None:
        """Encode every row that will be scored, so that an unusable row ends a run before training.

        Raises:
            UsageError: if a row cannot be encoded; names the row.
        """
        task: Any = self.task
        for split in dict.fromkeys([task.select_split, *task.scored_splits]):
            if not task.kind.decodes or split == task.select_split:
                self.rows(split)
            if task.kind.decodes and split == task.select_split:
                self.loss_rows()
            if task.kind.decodes and split in task.scored_splits:
                examples = self.splits[split].examples
                for example in progress.each(examples, f"tokenizing {split}", len(examples)):
                    task.prompt_ids(example, self.tokenizer)

    def _precision(self) -> AbstractContextManager[None]:
        """The precision of evaluation: bf16 by default for a model stored in bf16."""
        stored: Precision | None = "bf16" if self.run.model.dtype == "bf16" else None
        return predict.in_precision(self.model, self.run.train.eval_precision or stored)

    def epoch_scores(self) -> Scores:
        """Scores that are cheap at every epoch end: all scored splits of a classifier, the loss of a generator."""
        main = self.run.method.variants()[-1]
        with self._precision():
            if self.task.kind.decodes:
                return {self.task.select_split: {"loss": self._losses([main])[main]}}
            self._latest = {}
            scores: Scores = {}
            for split in dict.fromkeys([self.task.select_split, *self.task.scored_splits]):
                self._latest[split] = self._classified(split, [main])[main]
                scores[split] = dict(self.task.score(split, self._latest[split]))
            return scores

    def finish(self, recorder: Recorder, history: Sequence[Mapping[str, Any]]) -> None:
        """Final scores and predictions of every variant, and the primary score at the best and the last epoch."""
        names = recorder.record.variant_names = self.run.method.variants()
        if facts := self.task.scoring_facts(self.splits[self.task.scored_splits[0]].examples):
            recorder.record.facts["scoring"] = facts
        with self._precision():
            if self.task.kind.decodes:
                self._finish_texts(recorder, names)
            else:
                self._finish_classes(recorder, names)
            recorder.record.primary = self._primary(recorder, names[-1], history)

    def _finish_classes(self, recorder: Recorder, names: Sequence[str]) -> None:
        """Reuse the main variant's predictions of the last epoch end; compute those of all others in one pass."""
        main = names[-1]
        reusable = bool(self._latest)
        for split in self.task.scored_splits:
            predictions = {main: self._latest[split]} if reusable else {}
            predictions |= self._classified(split, [name for name in names if name not in predictions])
            for name in names:
                recorder.predictions(split, name, predictions[name])
                recorder.scores(split, name, self.task.score(split, predictions[name]))
        if self._own_rows:
            cut = sum(row.cut_target for split in self.task.scored_splits for row in self.rows(split))
            recorder.record.facts["cut_choices"] = cut

    def _finish_texts(self, recorder: Recorder, names: Sequence[str]) -> None:
        journals = []
        recorder.record.facts["decoder"] = predict.decoder_of(self.task, self.model)
        state = hashing.tensor_hash(checkpoints.trained_state(self.model, self.run.method))
        for name in names:
            with self.run.method.active(self.model, name):
                for split in self.task.scored_splits:
                    journals.append(self._journal(recorder, state, split, name))
                    predictions = self._decoded(split, journals[-1])
                    recorder.predictions(split, name, predictions)
                    for part, scores in self.task.score_parts(split, predictions).items():
                        recorder.scores(part, name, scores)
        for line in samples(self.splits[split].examples, predictions):
            recorder.show(line)
        for journal in journals:
            journal.close()
        for name, loss in self._losses(names).items():
            recorder.scores(self.task.select_split, name, with_perplexity(loss))

    def predicted(self, split: str, variants: Sequence[str]) -> Iterator[tuple[str, list[Prediction]]]:
        """Yield the predictions of each variant on a split."""
        with self._precision():
            if not self.task.kind.decodes:
                yield from self._classified(split, variants).items()
                return
            for name in variants:
                with self.run.method.active(self.model, name):
                    yield name, self._decoded(split)

    def _predictor(self, split: str) -> predict.Predictor:
        pad, size = int(self.tokenizer.pad_token_id), self.run.train.eval_batch_size
        return predict.Predictor(self.model, size, pad, f"scoring {split}")

    def _actives(self, names: Sequence[str]) -> list[predict.Active]:
        return [partial(self.run.method.active, self.model, name) for name in names]

    def _classified(self, split: str, names: Sequence[str]) -> dict[str, list[Prediction]]:
        """Predictions of several variants in one pass over the split."""
        if not names:
            return {}
        kind = self.task.kind
        outputs = kind.outputs(self._predictor(split), self.rows(split), self._actives(names))
        if not all(torch.isfinite(values).all() for values in outputs):
            raise FloatingPointError(f"the model's outputs on {split} are not finite")
        examples = self.splits[split].examples
        return {
            name: kind.predictions(self.task, examples, values) for name, values in zip(names, outputs, strict=True)
        }

    def _losses(self, names: Sequence[str]) -> dict[str, float]:
        """The loss of several variants on the selection split, in one pass."""
        losses = self._predictor(self.task.select_split).mean_losses(self.loss_rows(), self._actives(names))
        if not all(map(math.isfinite, losses)):
            raise FloatingPointError(f"the loss on {self.task.select_split} is not finite")
        return dict(zip(names, losses, strict=True))

    def _journal(self, recorder: Recorder, state: str, split: str, variant: str) -> Journal:
        """The journal of a split's outputs, valid only for this state of the model."""
        name = "-".join(part for part in ("decoding", split, variant) if part)
        return Journal(recorder.folder / f"{name}.jsonl", f"{recorder.record.key} {state}")

    def _decoded(self, split: str, journal: Journal | None = None) -> list[Prediction]:
        limit = predict.tokens_held(self.model, self.run.method.extra_tokens)
        examples = self.splits[split].examples
        size = predict.decoding_batch(self.task, self.model, self.run.train.eval_batch_size)
        what = f"decoding {split}"
        return predict.decode(self.task, self.model, self.tokenizer, examples, size, limit, journal, what)

    def _primary(self, recorder: Recorder, main: str, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        task = self.task
        split = task.judged_split
        primary: dict[str, Any] = {"metric": task.primary, "higher_is_better": task.higher_is_better, "split": split}
        last = recorder.record.scores.get(split, {}).get(main, {}).get(task.primary)
        if last is not None:
            primary["last"] = last
        if (best := best_epoch(task, history)) is not None:
            metric = chosen_by(task)
            primary |= {"best_epoch": best["epoch"], "selected_by": f"{metric} on {task.select_split}"}
            if metric == task.primary:
                primary |= {"best": best["evaluation"][split][metric], "best_scores": best["evaluation"]}
            elif best is history[-1]:
                primary |= {} if last is None else {"best": last}
            elif (score := self._score_at(recorder.folder / f"checkpoint-{best['step']}", split, main)) is not None:
                primary["best"] = score
        return primary

    def _score_at(self, folder: Path, split: str, variant: str) -> float | None:
        """The primary metric of a variant at a checkpoint; None, with a warning, if the checkpoint is not complete."""
        if checkpoints.read_mark(folder) is None:
            warn(f"rosa_bench: {folder.name} of the best epoch is damaged or missing; its score is absent")
            return None
        method = self.run.method
        last = {name: tensor.clone() for name, tensor in checkpoints.trained_state(self.model, method).items()}
        checkpoints.load_state(self.model, method, folder / checkpoints.STATE)
        with method.active(self.model, variant):
            score = self.task.primary_score(split, self._decoded(split))
        checkpoints.copy_state(self.model, method, last)
        return score


def with_perplexity(loss: float) -> metrics.Scores:
    """A mean loss per token in nats, and its exponential unless that overflows."""
    scores = metrics.Scores()
    scores["loss"] = loss

    def perplexity() -> float:
        try:
            return math.exp(loss)
        except OverflowError as error:
            raise metrics.AbsentError(f"undefined: the exponential of {loss:g} is too large for a number") from error

    scores.enter("perplexity", perplexity)
    return scores


def samples(examples: Sequence[Example], predictions: Sequence[Prediction], count: int = 3) -> Iterator[str]:
    """Yield lines with a few inputs, their outputs, and the reference whose words are most similar to each output."""
    for example, prediction in list(zip(examples, predictions, strict=True))[:: max(1, len(examples) // count)][:count]:
        words = set(str(prediction.value).split())
        nearest = max(
            prediction.references, key=lambda text: len(words & set(text.split())) / len(words | set(text.split()))
        )
        yield f"input      {example.texts[0]}"
        yield f"output     {prediction.value}"
        yield f"reference  {nearest}"
