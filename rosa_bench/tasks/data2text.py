"""Data-to-text: E2E (Dusek et al.), WebNLG 2017 (Gardent et al.) and DART (Nan et al.): structured input, text out."""

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
from rosa_bench.core.schema import NEUTRAL, Added, Count, FileName, Folder, configured
from rosa_bench.core.task import IGNORED, Encoded, Example, Hub, Prediction, Task, Upstream
from rosa_bench.errors import UsageError
from rosa_bench.metrics.conventions import Family
from rosa_bench.models.tokens import context_ids, pair_ids
from rosa_bench.tasks.kinds.generate import KIND

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rosa_bench.stats.bootstrap import Statistic

SEEN = {  # WebNLG's categories that training has
    "Airport", "Astronaut", "Building", "City", "ComicsCharacter", "Food", "Monument", "SportsTeam", "University",
    "WrittenWork",
}  # fmt: skip
LORA_KEYS = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}  # the others are the same
SLOT = re.compile(r"\s*([^\[\],]+?)\s*\[([^\]]*)\]\s*(?:,|$)")


@configured
class DataToText(Task):
    """Generation from a linearised input. Subclasses say how a raw row is read."""

    name: FileName
    folder: Annotated[Folder, NEUTRAL]
    primary: Literal["bleu"] = "bleu"
    scoring: str  # the convention of its metrics: rosa_bench/metrics/conventions.py
    select_split: FileName = "validation"  # the epoch with the least loss there is the best one
    scored_splits: list[FileName] = Field(default_factory=lambda: ["test"], min_length=1)
    epochs: Count = 3
    version: Count = 1
    loss_on: Literal["target", "sequence"] = "target"
    linearization: Literal["lora", "rosa"] = "lora"  # how an input is written, and parted from its text
    search: Annotated[Literal["transformers", "lora"], Added("transformers")] = "transformers"  # whose rules
    num_beams: Count = 1
    max_new_tokens: Count = 64
    no_repeat_ngram: int = Field(default=0, ge=0)  # 0: off
    no_repeat_ngram_over: Annotated[Literal["all", "text"] | None, Added(None)] = None  # null: all; of `lora` text
    length_penalty: float = 1.0  # exponent of the length that a beam's score is divided by
    repetition_penalty: float = Field(default=1.0, gt=0)  # 1: off

    family: ClassVar[Family]

    def __post_init__(self) -> None:
        if self.search == "lora" and self.no_repeat_ngram_over == "all":
            raise ValueError("no_repeat_ngram_over=all: search=lora looks at the generated text alone")

    @property
    def kind(self) -> Kind:
        """Always generation."""
        return KIND

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
        identity, text = identity_field(row, ("id", "eid"), where), self.linearize(row, where)
        references = tuple(self.references(row, where))
        return Example(identity, (text,), references=references, subset=self.subset(row, where))

    def subset(self, row: Mapping[str, Any], where: str) -> str:
        """The part of its split that a row is scored with as well; none."""
        return ""

    def targets(self, example: Example) -> list[Example]:
        """One for each reference."""
        return [dataclasses.replace(example, references=(reference,)) for reference in example.references]

    def prompt_ids(self, example: Example, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Start tokens, the input, and what parts it from the target: the end-of-text token (`lora`) or words (`rosa`).

        Raises UsageError for an input that spells a special token which the tokenizer does not read as plain text.
        """
        return self._parted(context_ids(tokenizer, self._context(example), self._where(example)), tokenizer)

    def _parted(self, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
        return [*ids, end_id(tokenizer)] if self.linearization == "lora" else ids

    def _context(self, example: Example) -> str:
        return example.texts[0] if self.linearization == "lora" else f"Input: {example.texts[0]} Output:"

    def _where(self, example: Example) -> str:
        return f"{self.name}: row {example.id}"

    def encode(self, example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
        """Input, separator, first reference, end of text. An input that is too long loses its head, not the target.

        The reference is read after the input, as it would be without the separator between them.
        A target that is longer than all there may be loses its end, and is counted.
        """
        text = " " + example.references[0].strip()
        prompt, whole = pair_ids(tokenizer, self._context(example), text, self._where(example))
        whole.append(end_id(tokenizer))
        target = whole[:max_length]
        prompt = self._parted(prompt, tokenizer)
        kept = prompt[max(0, len(prompt) + len(target) - max_length) :]
        silent = (
            [IGNORED] * len(kept) if self.loss_on == "target" else [IGNORED, *kept[1:]]
        )  # nothing predicts the first
        cut, cut_target = len(kept) < len(prompt), len(target) < len(whole)
        return Encoded([*kept, *target], [*silent, *target], cut=cut, cut_target=cut_target)

    def score(self, split: str, predictions: Sequence[Prediction]) -> Mapping[str, float]:
        """The metrics of the family by the convention `scoring` against all references."""
        return self._scores(predictions, None)

    def primary_score(self, split: str, predictions: Sequence[Prediction]) -> float | None:
        """BLEU in points."""
        return self._scores(predictions, [self.primary]).get(self.primary)

    def statistic(self, metric: str, predictions: Sequence[Prediction]) -> Statistic:
        """A metric by the convention `scoring`. Raises NoStatisticError as the base class."""
        from rosa_bench.metrics.segments import text_metric
        from rosa_bench.stats.bootstrap import NoStatisticError

        texts, references = [str(p.value) for p in predictions], [p.references for p in predictions]
        try:
            found = text_metric(self.family, self.scoring, metric)
        except KeyError:
            raise NoStatisticError(f"{metric} is not a metric of generated text") from None
        return found.statistic(texts, references)

    def _scores(self, predictions: Sequence[Prediction], wanted: Sequence[str] | None) -> Mapping[str, float]:
        from rosa_bench.metrics.conventions import score

        texts, references = [str(p.value) for p in predictions], [p.references for p in predictions]
        return score(self.family, self.scoring, texts, references, wanted)

    def missing_metrics(self) -> Mapping[str, str]:
        """METEOR, where there is no Java."""
        from rosa_bench.metrics import meteor

        reason = meteor.missing()
        return {} if reason is None else {"meteor": reason}

    def scoring_facts(self, examples: Sequence[Example]) -> Mapping[str, Any]:
        """The convention, what each metric is by it, and whether the references are raw texts or tokenised ones."""
        from rosa_bench.metrics.conventions import SIGNATURES

        form = reference_form([reference for example in examples for reference in example.references])
        return {"convention": self.scoring, "references": form, "metrics": SIGNATURES[self.family, self.scoring]}


def reference_form(references: Sequence[str]) -> Literal["raw", "tokenised"]:
    """`tokenised` if punctuation stands alone nearly everywhere, as in the files LoRA ships; that moves BLEU."""
    joined = sum(len(re.findall(r"\w[.,!?;](?=\s|$)", text)) for text in references)
    alone = sum(len(re.findall(r"(?:^|\s)[.,!?;](?=\s|$)", text)) for text in references)
    return "tokenised" if alone > 9 * joined else "raw"


def seen(row: Mapping[str, Any], where: str) -> str:
    """`seen` or `unseen` by a row's field `seen`, which test rows of WebNLG have; nothing without it."""
    if "seen" not in row:
        return ""
    return "seen" if field(row, "seen", bool, where) else "unseen"


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The end-of-text token. Raises UsageError for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise UsageError("the tokenizer has no end-of-text token, which generation needs")
    return int(tokenizer.eos_token_id)


@configured
class E2E(DataToText):
    """Restaurant descriptions from attribute lists such as `name[Blue Spice], area[city centre]`."""

    scoring: Literal["official", "lora"] = "official"
    version: Count = 2  # LoRA's keys in inputs of `linearization=lora`

    family: ClassVar[Family] = "e2e"

    @property
    def hub(self) -> Hub:
        """The hub's conversion of the 2017 release, else its files in the authors' repository."""
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
        """A row per reference, in columns `mr` and `ref`."""
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        renamed = ({"meaning_representation": row["mr"], "human_reference": row["ref"]} for row in rows)
        yield from self.from_hub(renamed, split)

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        """The input and its references."""
        names = ("meaning_representation", "human_reference", "human_references")
        return [row[name] for name in names if name in row]

    def from_hub(self, rows: Iterable[Mapping[str, Any]], split: str) -> Iterator[Mapping[str, Any]]:
        """The hub has a row per reference; scored splits need them together, inputs in first-seen order."""
        if split == "train":
            yield from rows
            return
        grouped: dict[str, list[str]] = {}
        for row in rows:
            grouped.setdefault(row["meaning_representation"], []).append(row["human_reference"])
        for meaning, references in grouped.items():
            yield {"meaning_representation": meaning, "human_references": references}

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`name : Blue Spice | Type : pub` with LoRA's keys, or `name[Blue Spice], eatType[pub]` as ROSA has it."""
        text = text_field(row, "meaning_representation", where)
        slots = SLOT.findall(text)
        if not slots or SLOT.sub("", text).strip():
            raise UsageError(f"{where}: field 'meaning_representation' is not a list of key[value]: {text[:80]!r}")
        if self.linearization == "rosa":
            return text.strip()
        return " | ".join(f"{LORA_KEYS.get(key, key)} : {value}" for key, value in slots)

    def references(self, row: Mapping[str, Any], where: str) -> list[str]:
        """Training rows have one reference each, the others a list."""
        if "human_references" in row:
            return texts_field(row, "human_references", where)
        return [text_field(row, "human_reference", where)]


Triples = Literal["lora", "webnlg2017", "dart"]


@configured
class WebNlg(DataToText):
    """Short texts from DBpedia triples, some of categories that training never shows."""

    scoring: Triples = "lora"

    family: ClassVar[Family] = "triples"

    @property
    def hub(self) -> Upstream:
        """The files in the repository of LoRA; hubs have the 2017 set only as a script."""
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
        """Entries under running numbers; test rows say whether training has their category."""
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
        """The triples and their references."""
        return [row.get("triples"), row.get("references")]

    def subset(self, row: Mapping[str, Any], where: str) -> str:
        """Whether training has rows of its category."""
        return seen(row, where)

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`subject : predicate : object`, triples joined by ` | `, as LoRA's experiments write them; ROSA has none."""
        triples = [triple.split(" | ") for triple in texts_field(row, "triples", where)]
        if not all(len(triple) == 3 for triple in triples):
            raise UsageError(f"{where}: field 'triples' is not a list of 'subject | predicate | object'")
        return " | ".join(" : ".join(part.strip() for part in triple) for triple in triples)


@configured
class Dart(DataToText):
    """Texts from sets of triples of open domains."""

    scoring: Triples = "lora"

    family: ClassVar[Family] = "triples"

    @property
    def hub(self) -> Hub:
        """The hub's conversion of version 1.1.1, else its files in the authors' repository."""
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
        """References are in `annotations`, a struct of lists or a list of structs; an empty one is left out."""
        for row in rows:
            notes = row["annotations"]
            texts = notes["text"] if isinstance(notes, Mapping) else [note["text"] for note in notes]
            yield {"tripleset": row["tripleset"], "references": [text for text in texts if text.strip()]}

    def from_upstream(self, content: bytes, split: str) -> Iterator[Mapping[str, Any]]:
        """A list of rows like the hub's."""
        yield from self.from_hub(json.loads(content), split)

    def released_fields(self, row: Mapping[str, Any]) -> list[Any]:
        """The triples and their references."""
        return [row.get("tripleset"), row.get("references")]

    def linearize(self, row: Mapping[str, Any], where: str) -> str:
        """`subject : predicate : object` with the predicate in lower case, triples joined by ` | `."""
        triples = field(row, "tripleset", list, where)
        if not triples or not all(
            isinstance(t, list) and len(t) == 3 and all(isinstance(p, str) for p in t) for t in triples
        ):
            raise UsageError(f"{where}: field 'tripleset' is not a list of [subject, predicate, object]")
        return " | ".join(f"{s} : {p.lower()} : {o}" for s, p, o in triples)
