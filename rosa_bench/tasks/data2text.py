"""Data-to-text: E2E (Dusek et al.), WebNLG 2017 (Gardent et al.) and DART (Nan et al.): structured input, text out."""

from __future__ import annotations

import dataclasses
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rosa_bench.errors import UsageError
from rosa_bench.schema import Count, Name, configured
from rosa_bench.tasks.base import IGNORED, Encoded, Example, Kind, Prediction, Task, field, text_field, texts_field

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLOT = re.compile(r"\s*([^\[\],]+?)\s*\[([^\]]*)\]\s*(?:,|$)")


@configured
class DataToText(Task):
    """Generation from a linearised input. Subclasses say how a raw row is read."""

    name: Name
    folder: Name
    primary: Literal["bleu"] = "bleu"
    select_split: Name = "validation"  # the epoch with the least loss there is the best one
    scored_splits: list[str] = Field(default_factory=lambda: ["test"], min_length=1)
    epochs: Count = 5
    version: Count = 1
    loss_on: Literal["target", "sequence"] = "target"
    num_beams: Count = 1
    max_new_tokens: Count = 64
    no_repeat_ngram: int = Field(default=0, ge=0)  # 0: off
    length_penalty: float = 1.0

    @property
    def kind(self) -> Kind:
        """Always generation."""
        return "generate"

    @property
    def num_labels(self) -> int:
        """None: the language model's own head speaks."""
        return 0

    @abstractmethod
    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """The input of a raw row as one line of text."""

    def references(self, row: Mapping[str, Any], where: str) -> list[str]:
        """The reference texts of a raw row."""
        return texts_field(row, "references", where)

    def parse(self, row: Mapping[str, Any], where: str) -> Example:
        """An example with all its references."""
        identity = str(row.get("id", row.get("eid", where)))
        return Example(identity, (self.linearize(row, where),), references=tuple(self.references(row, where)))

    def targets(self, example: Example) -> list[Example]:
        """One for each reference."""
        return [dataclasses.replace(example, references=(reference,)) for reference in example.references]

    def prompt_ids(self, example: Example, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The input, closed by the end-of-text token that separates it from the target."""
        ids: list[int] = tokenizer(example.texts[0], add_special_tokens=False)["input_ids"]
        return [*ids, end_id(tokenizer)]

    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Input, separator, first reference, end of text. An input that is too long loses its head, not the target."""
        target = tokenizer(" " + example.references[0].strip(), add_special_tokens=False)["input_ids"]
        target = [*target, end_id(tokenizer)][:max_length]
        prompt = self.prompt_ids(example, tokenizer)
        kept = prompt[max(0, len(prompt) + len(target) - max_length) :]
        silent = (
            [IGNORED] * len(kept) if self.loss_on == "target" else [IGNORED, *kept[1:]]
        )  # nothing predicts the first
        return Encoded([*kept, *target], [*silent, *target], cut=len(kept) < len(prompt))

    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """Corpus BLEU in points against all references."""
        from rosa_bench.metrics.text import bleu

        return {"bleu": bleu([str(p.value) for p in predictions], [p.references for p in predictions])}


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The end-of-text token. Raises UsageError for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise UsageError("the tokenizer has no end-of-text token, which generation needs")
    return int(tokenizer.eos_token_id)


@configured
class E2E(DataToText):
    """Restaurant descriptions from attribute lists such as `name[Blue Spice], area[city centre]`."""

    @property
    def hub(self) -> tuple[str, str, str]:
        """None: hubs hold a cleaned copy, which is another set, or a script that builds this one."""
        raise UsageError(
            "task=e2e has no script-free hub copy that is pinned; use data=embedded or data=local data.dir=FOLDER"
        )

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`name : Blue Spice | area : city centre`, as LoRA's experiments write it."""
        text = text_field(row, "meaning_representation", where)
        slots = SLOT.findall(text)
        if not slots or SLOT.sub("", text).strip():
            raise UsageError(f"{where}: field 'meaning_representation' is not a list of key[value]: {text[:80]!r}")
        return " | ".join(f"{key} : {value}" for key, value in slots)

    def references(self, row: Mapping[str, Any], where: str) -> list[str]:
        """Training rows have one reference each, the others a list."""
        if "human_references" in row:
            return texts_field(row, "human_references", where)
        return [text_field(row, "human_reference", where)]


@configured
class WebNlg(DataToText):
    """Short texts from DBpedia triples, some of categories that training never shows."""

    @property
    def hub(self) -> tuple[str, str, str]:
        """See E2E."""
        raise UsageError(
            "task=webnlg has no script-free hub copy that is pinned; use data=embedded or data=local data.dir=FOLDER"
        )

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`subject : predicate : object`, triples joined by ` | `, as LoRA's experiments write it."""
        triples = [triple.split(" | ") for triple in texts_field(row, "triples", where)]
        if not all(len(triple) == 3 for triple in triples):
            raise UsageError(f"{where}: field 'triples' is not a list of 'subject | predicate | object'")
        return " | ".join(" : ".join(part.strip() for part in triple) for triple in triples)


@configured
class Dart(DataToText):
    """Texts from sets of triples of open domains."""

    @property
    def hub(self) -> tuple[str, str, str]:
        """See E2E."""
        raise UsageError(
            "task=dart has no script-free hub copy that is pinned; use data=embedded or data=local data.dir=FOLDER"
        )

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`subject : predicate : object` with the predicate in lower case, triples joined by ` | `."""
        triples = field(row, "tripleset", list, where)
        if not triples or not all(
            isinstance(t, list) and len(t) == 3 and all(isinstance(p, str) for p in t) for t in triples
        ):
            raise UsageError(f"{where}: field 'tripleset' is not a list of [subject, predicate, object]")
        return " | ".join(f"{s} : {p.lower()} : {o}" for s, p, o in triples)
