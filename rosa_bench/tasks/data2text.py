"""Data-to-text: E2E (Dusek et al.), WebNLG 2017 (Gardent et al.) and DART (Nan et al.); texts from structured input."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rosa_bench.core.fields import field, identity_field, text_field, texts_field
from rosa_bench.core.kind import Kind
from rosa_bench.core.schema import Added, Count, configured
from rosa_bench.core.task import IGNORED, Encoded, Example, Hub, Prediction, Task, Upstream
from rosa_bench.errors import UsageError
from rosa_bench.metrics.conventions import Family
from rosa_bench.models.tokens import context_ids, pair_ids
from rosa_bench.tasks.kinds.generate import KIND

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rosa_bench.stats.bootstrap import Statistic

SEEN = {  # categories of WebNLG in the training split
    "Airport", "Astronaut", "Building", "City", "ComicsCharacter", "Food", "Monument", "SportsTeam", "University",
    "WrittenWork",
}  # fmt: skip
LORA_KEYS = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}  # others are unchanged
SLOT = re.compile(r"\s*([^\[\],]+?)\s*\[([^\]]*)\]\s*(?:,|$)")


@configured
class DataToText(Task):
    """Text generation from a linearized input. Subclasses parse the raw rows."""

    primary: Literal["bleu"] = "bleu"
    scoring: str  # convention for computing the metrics
    loss_on: Literal["target", "sequence"] = "target"  # loss on the output text or answer only, or on all tokens
    # references whose loss and perplexity are averaged on the selection split: the first of every input, or all
    loss_references: Annotated[Literal["first", "all"], Added("first")] = "first"
    linearization: Literal["lora", "rosa"] = "lora"  # format of the input and the separator before the output
    # follow the beam-search rules of `transformers` or of LoRA's code
    search: Annotated[Literal["transformers", "lora"], Added("transformers")] = "transformers"
    num_beams: Count = 1  # number of beams; 1: greedy search
    max_new_tokens: Count = 64  # maximum number of output tokens
    no_repeat_ngram: int = Field(default=0, ge=0)  # n-grams of this length may not occur twice; 0: off
    # all: no_repeat_ngram also covers the input; text: only the output; null: text with `search=lora`, else all
    no_repeat_ngram_over: Annotated[Literal["all", "text"] | None, Added(None)] = None
    length_penalty: float = 1.0  # a beam's score is divided by its length raised to this power
    repetition_penalty: float = Field(default=1.0, gt=0)  # penalty on tokens that already occurred; 1: off

    family: ClassVar[Family]
    kind: ClassVar[Kind] = KIND
    num_labels: ClassVar[int] = 0  # the task uses the language model's own head

    def __post_init__(self) -> None:
        if self.search == "lora" and self.no_repeat_ngram_over == "all":
            raise ValueError("no_repeat_ngram_over=all is not supported with search=lora, which sees only new text")

    @abstractmethod
    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """The input of a raw row as one line of text."""

    def references(self, row: Mapping[str, Any], where: str) -> list[str]:
        """The reference texts of a raw row."""
        return texts_field(row, "references", where)

    def parse(self, row: Mapping[str, Any], where: str) -> Example:
        """An example with all its references."""
        identity, text = identity_field(row, ("id", "eid"), where), self.linearize(row, where)
        references = tuple(self.references(row, where))
        return Example(identity, (text,), references=references, subset=self.subset(row, where))

    def subset(self, row: Mapping[str, Any], where: str) -> str:
        """The subset that a row is also scored with; empty by default."""
        return ""

    def targets(self, example: Example) -> list[Example]:
        """One example per reference."""
        return [dataclasses.replace(example, references=(reference,)) for reference in example.references]

    def loss_targets(self, example: Example) -> list[Example]:
        """The row with its first reference, or one example per reference, as `loss_references` says."""
        return self.targets(example) if self.loss_references == "all" else [example]

    def prompt_ids(self, example: Example, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of start tokens, input and separator: the end-of-text token (`lora`) or words (`rosa`).

        Raises UsageError if the input contains a special token that the tokenizer does not read as plain text.
        """
        return self._parted(context_ids(tokenizer, self._context(example), self.row_name(example)), tokenizer)

    def _parted(self, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
        return [*ids, end_id(tokenizer)] if self.linearization == "lora" else ids

    def _context(self, example: Example) -> str:
        return example.texts[0] if self.linearization == "lora" else f"Input: {example.texts[0]} Output:"

    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Token ids of input, separator, first reference and end of text. Truncates the start of the input first.

        The reference is tokenized as a continuation of the input, without the separator between them. The end of a
        target longer than `max_length` is truncated and counted.
        """
        text = " " + example.references[0].strip()
        prompt, reference = pair_ids(tokenizer, self._context(example), text, self.row_name(example))
        reference.append(end_id(tokenizer))
        target = reference[:max_length]
        prompt = self._parted(prompt, tokenizer)
        context = prompt[max(0, len(prompt) + len(target) - max_length) :]
        labels = [*([IGNORED] * len(context) if self.loss_on == "target" else context), *target]
        labels[0] = IGNORED  # the first token has no prediction
        cut, cut_target = len(context) < len(prompt), len(target) < len(reference)
        return Encoded([*context, *target], labels, cut=cut, cut_target=cut_target)

    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """The metrics of the task's family by the convention `scoring`, against all references."""
        return self._scores(predictions, None)

    def primary_score(self, split: str, predictions: Sequence[Prediction]) -> float | None:
        """BLEU in points; None if it is undefined."""
        return self._scores(predictions, [self.primary]).get(self.primary)

    def statistic(self, metric: str, predictions: Sequence[Prediction]) -> Statistic:
        """A metric by the convention `scoring`. Raises NoStatisticError as the base class does."""
        from rosa_bench.metrics.conventions import statistic

        texts, references = [str(p.value) for p in predictions], [p.references for p in predictions]
        return statistic(self.family, self.scoring, metric, texts, references)

    def _scores(self, predictions: Sequence[Prediction], metrics: Sequence[str] | None) -> Mapping[str, float]:
        from rosa_bench.metrics.conventions import score

        texts, references = [str(p.value) for p in predictions], [p.references for p in predictions]
        return score(self.family, self.scoring, texts, references, metrics)

    def missing_metrics(self) -> Mapping[str, str]:
        """METEOR, if Java is missing."""
        from rosa_bench.metrics import meteor

        reason = meteor.missing()
        return {} if reason is None else {"meteor": reason}

    def scoring_facts(self, examples: Sequence[Example]) -> Mapping[str, Any]:
        """The convention, its definition of each metric, and whether references are raw or tokenized."""
        from rosa_bench.metrics.conventions import SIGNATURES

        form = reference_form([reference for example in examples for reference in example.references])
        return {"convention": self.scoring, "references": form, "metrics": SIGNATURES[self.family, self.scoring]}


def reference_form(references: Sequence[str]) -> Literal["raw", "tokenised"]:
    """`tokenised` if nearly all punctuation stands alone, as in LoRA's published files, which changes BLEU."""
    joined = sum(len(re.findall(r"\w[.,!?;](?=\s|$)", text)) for text in references)
    alone = sum(len(re.findall(r"(?:^|\s)[.,!?;](?=\s|$)", text)) for text in references)
    return "tokenised" if alone > 9 * joined else "raw"


def seen(row: Mapping[str, Any], where: str) -> str:
    """`seen` or `unseen`, from the field `seen` of WebNLG's test rows; empty if a row lacks it."""
    if "seen" not in row:
        return ""
    return "seen" if field(row, "seen", bool, where) else "unseen"


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the end-of-text token. Raises UsageError if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UsageError("the tokenizer has no end-of-text token, which text generation needs")
    return int(tokenizer.eos_token_id)


@configured
class E2E(DataToText):
    """Restaurant descriptions from attribute lists such as `name[Blue Spice], area[city centre]`."""

    scoring: Literal["official", "lora"] = "official"
    version: Count = 2  # 2: inputs of `linearization=lora` use LoRA's key names

    family: ClassVar[Family] = "e2e"

    @property
    def hub(self) -> Hub:
        """The hub's conversion of the 2017 release, or the files in the authors' repository."""
        upstream = Upstream(
            "tuetschek/e2e-dataset",
            "ab0d967dd5729ce455ef14ba9ffafc456a335264",
            {
                "train": ("trainset.csv", "fa3a5e1124d2aa0d768881e38f8ee73e63d5880d"),
                "validation": ("devset.csv", "c45950a0771c769d787a33fdf56439cb890005d7"),
                "test": ("testset_w_refs.csv", "86733864c96dc18cbaa5f18042356296ef679302"),
            },
        )
        revision = "5061e4307d2e553f9b51ccb73998d7039fe6ed90"
        return Hub("tuetschek/e2e_nlg", revision, "default/{split}/*.parquet", upstream)

    def from_upstream(self, content: bytes, split: str) -> Iterator[Mapping[str, Any]]:
        """Rows of a CSV file with columns `mr` and `ref`, one per reference."""
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        renamed = ({"meaning_representation": row["mr"], "human_reference": row["ref"]} for row in rows)
        yield from self.from_hub(renamed, split)

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        names = ("meaning_representation", "human_reference", "human_references")
        return [row[name] for name in names if name in row]

    def from_hub(self, rows: Iterable[Mapping[str, Any]], split: str) -> Iterator[Mapping[str, Any]]:
        """Group the hub's rows, one per reference, by input in order of first appearance, except in training."""
        if split == "train":
            yield from rows
            return
        grouped: dict[str, list[str]] = {}
        for row in rows:
            grouped.setdefault(row["meaning_representation"], []).append(row["human_reference"])
        for meaning, references in grouped.items():
            yield {"meaning_representation": meaning, "human_references": references}

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`name : Blue Spice | Type : pub` with LoRA's keys, or `name[Blue Spice], eatType[pub]` as in ROSA."""
        text = text_field(row, "meaning_representation", where)
        slots = SLOT.findall(text)
        if not slots or SLOT.sub("", text).strip():
            raise UsageError(f"{where}: field 'meaning_representation' is not a list of key[value]: {text[:80]!r}")
        if self.linearization == "rosa":
            return text.strip()
        return " | ".join(f"{LORA_KEYS.get(key, key)} : {value}" for key, value in slots)

    def references(self, row: Mapping[str, Any], where: str) -> list[str]:
        """The single reference of a training row, or the list of any other row."""
        if "human_references" in row:
            return texts_field(row, "human_references", where)
        return [text_field(row, "human_reference", where)]


Triples = Literal["lora", "webnlg2017", "dart"]


@configured
class WebNlg(DataToText):
    """Short texts from DBpedia triples, some of categories that are not in the training split."""

    scoring: Triples = "lora"

    family: ClassVar[Family] = "triples"

    @property
    def hub(self) -> Upstream:
        """The files in LoRA's repository; the hub has the 2017 set only as a loading script."""
        folder = "examples/NLG/data/webnlg_challenge_2017"
        return Upstream(
            "microsoft/LoRA",
            "c4593f060e6a368d7bb5af5273b8e42810cdef90",
            {
                "train": (f"{folder}/train.json", "461766d1fe902bd659b821a03f49310c22403686"),
                "validation": (f"{folder}/dev.json", "180f096ff49a7e597dd7c507ea0c5441e839b770"),
                "test": (f"{folder}/test.json", "7f552799b7e3b5badf95b725c20d955e0886811e"),
            },
        )

    def from_upstream(self, content: bytes, split: str) -> Iterator[Mapping[str, Any]]:
        """Rows of a JSON file of numbered entries. In test rows, `seen` says whether training has the category."""
        for numbered in json.loads(content)["entries"]:
            for entry in numbered.values():
                triples = [
                    f"{triple['subject']} | {triple['property']} | {triple['object']}"
                    for triple in entry["modifiedtripleset"]
                ]
                row = {"triples": triples, "references": [text["lex"] for text in entry["lexicalisations"]]}
                row |= {"category": entry["category"], "eid": entry["xml_id"]}
                yield row | ({"seen": entry["category"] in SEEN} if split == "test" else {})

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        return [row.get("triples"), row.get("references")]

    def subset(self, row: Mapping[str, Any], where: str) -> str:
        """`seen` or `unseen`: whether the training split has rows of the category."""
        return seen(row, where)

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`subject : predicate : object`, joined by ` | `, as in LoRA's experiments; ROSA does not define a format."""
        triples = [triple.split(" | ") for triple in texts_field(row, "triples", where)]
        if not all(len(triple) == 3 for triple in triples):
            raise UsageError(f"{where}: field 'triples' is not a list of 'subject | predicate | object'")
        return " | ".join(" : ".join(part.strip() for part in triple) for triple in triples)


@configured
class Dart(DataToText):
    """Short texts from sets of open-domain triples."""

    scoring: Triples = "lora"
    version: Count = 2  # 2: `scoring=lora` scores one output per distinct input

    family: ClassVar[Family] = "triples"

    @property
    def hub(self) -> Hub:
        """The hub's conversion of version 1.1.1, or the files in the authors' repository."""
        start = "data/v1.1.1/dart-v1.1.1-full"
        upstream = Upstream(
            "Yale-LILY/dart",
            "bb644b12ec1d0264f96a31145534b9a94f6ff5f5",
            {
                "train": (f"{start}-train.json", "773adb6db19640ab5328eaddec7ba7495b1702cf"),
                "validation": (f"{start}-dev.json", "d11b7982aeafc0761d9805502e4ad7487c557da0"),
                "test": (f"{start}-test.json", "3b663ea2d25bc5e1a50c73b5b4db800d5dd517dd"),
            },
        )
        return Hub("Yale-LILY/dart", "3442009fce2df36a93d6081f03ad7be1433982ea", "default/{split}/*.parquet", upstream)

    def from_hub(self, rows: Iterable[Mapping[str, Any]], split: str) -> Iterator[Mapping[str, Any]]:
        """Take the non-empty references from `annotations`, a struct of lists or a list of structs."""
        for row in rows:
            annotations = row["annotations"]
            texts = annotations["text"] if isinstance(annotations, Mapping) else [note["text"] for note in annotations]
            yield {"tripleset": row["tripleset"], "references": [text for text in texts if text.strip()]}

    def from_upstream(self, content: bytes, split: str) -> Iterator[Mapping[str, Any]]:
        """Rows of a JSON list, like the hub's."""
        yield from self.from_hub(json.loads(content), split)

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        return [row.get("tripleset"), row.get("references")]

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`subject : predicate : object` with the predicate in lower case, joined by ` | `."""
        triples = field(row, "tripleset", list, where)
        if not triples or not all(
            isinstance(t, list) and len(t) == 3 and all(isinstance(p, str) for p in t) for t in triples
        ):
            raise UsageError(f"{where}: field 'tripleset' is not a list of [subject, predicate, object]")
        return " | ".join(f"{s} : {p.lower()} : {o}" for s, p, o in triples)

    def pooled(self, examples: Sequence[Example]) -> Sequence[Example]:
        """With `scoring=lora`, one example per distinct input with the references of all its rows, in order.

        LoRA's `gpt2_decode.py` does so after decoding and keeps the output of the last row; equal inputs have equal
        outputs.
        """
        if self.scoring != "lora":
            return examples
        pooled: dict[tuple[str, ...], Example] = {}
        for example in examples:
            first = pooled.get(example.texts, dataclasses.replace(example, references=()))
            pooled[example.texts] = dataclasses.replace(first, references=first.references + example.references)
        return list(pooled.values())
