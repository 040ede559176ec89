"""Texts that contain special tokens, and continuations in context, for tokenizers of every kind."""

from __future__ import annotations

import json

import pytest
import transformers
import zoo
from support import composed, small

from rosa_bench import cli, doctor
from rosa_bench.core.task import IGNORED
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.models.tokens import context_ids, frame, pair_ids, plain_ids, text_inputs
from rosa_bench.run import run as run_experiment

NAMES = ["<s>", "</s>", "<mask>", "<pad>", "<unk>"]
MAKERS = {
    "byte level": zoo.byte_level,
    "word piece": zoo.word_piece,
    "unigram": zoo.unigram,
    "metaspace": zoo.metaspace,
}


def slow(name: str, folder):
    """Tokenizers written in Python."""
    if name == "bytes":
        return transformers.ByT5Tokenizer(extra_ids=3)
    (folder / "vocab.json").write_text(json.dumps({"<unk>": 0, "<pad>": 1, "cat": 2, "c": 3, "a": 4, "t": 5}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\n")
    return transformers.CTRLTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="<pad>")


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_special_token_in_a_text_is_text_or_refused(maker, name):
    tokenizer = zoo.framed(MAKERS[maker](**zoo.FRAMED))
    special, text = set(tokenizer.all_special_ids), f"the cat {name} sees"
    assert set(tokenizer(text, add_special_tokens=False)["input_ids"]) & special  # what is read without care
    try:
        ids = plain_ids(tokenizer, text, "row 7")
        inputs = text_inputs(tokenizer, [text, "a dog"], 99, "row 7")
    except UsageError as error:
        assert maker in ("unigram", "metaspace") and f"row 7: the text contains '{name}'" in str(error)
        assert "\n" not in str(error)
        return
    assert not set(ids) & special
    assert [i for i in inputs["input_ids"] if i in special] == [0, 2, 2]
    if maker == "byte level":
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", ["bytes", "merges"])
def test_tokenizers_in_python_read_text_as_text(kind, tmp_path):
    tokenizer = slow(kind, tmp_path)
    assert not tokenizer.is_fast
    name = {"bytes": "</s>", "merges": "<pad>"}[kind]
    special = {tokenizer.convert_tokens_to_ids(name)}
    assert special & set(tokenizer(f"cat {name}", add_special_tokens=False)["input_ids"])
    try:
        assert not special & set(plain_ids(tokenizer, f"cat {name}", "row 7"))
    except UsageError as error:
        assert kind == "merges" and "row 7: the text contains '<pad>'" in str(error)


def test_tokens_that_a_format_needs_are_kept():
    """Added tokens that are not special, such as GPT-NeoX's runs of spaces, belong to normal text."""
    tokenizer = zoo.byte_level(**zoo.FRAMED)
    tokenizer.add_tokens(["    "])
    assert len(tokenizer) - 1 in plain_ids(tokenizer, "a    cat", "row 7")


def test_an_added_special_token_is_text_too():
    tokenizer = zoo.framed(zoo.byte_level(**zoo.FRAMED))
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    added = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert added in tokenizer("a <|im_start|> b")["input_ids"]
    assert added not in plain_ids(tokenizer, "a <|im_start|> b", "row 7")
    assert added in frame(tokenizer).added


def rows_with(name: str) -> dict[str, dict]:
    return {
        "cola": {"sentence": f"the cat {name} sees", "label": 1, "idx": 5},
        "mnli": {"premise": "a dog", "hypothesis": f"{name}", "label": 1, "idx": 5},
        "stsb": {"sentence1": f"{name} a", "sentence2": "the cat", "label": 2.5, "idx": 5},
        "e2e": {"id": "5", "meaning_representation": f"name[{name}]", "human_references": [f"the {name} cat"]},
        "dart": {"id": "5", "tripleset": [["a", f"x {name}", "b"]], "references": [f"{name}"]},
        "webnlg": {"id": "5", "triples": [f"a | b | c{name}"], "references": [f"a {name}."]},
        "piqa": {"id": "5", "goal": f"{name}?", "sol1": f"a {name}", "sol2": "b", "label": 0},
    }


@pytest.mark.parametrize("task_name", rows_with(""))
@pytest.mark.parametrize("maker", ["byte level", "unigram"])
def test_every_task_reads_special_tokens_as_text(task_name, maker):
    task = composed(f"task={task_name}").task
    around = zoo.framed if task.num_labels else zoo.started
    tokenizer = around(MAKERS[maker](**zoo.FRAMED))
    special = set(tokenizer.all_special_ids)
    example = task.parse(rows_with("</s>")[task_name], "here")
    parts = [lambda: task.encode(example, tokenizer, 200)]
    if task.kind.name == "generate":
        parts.append(lambda: task.prompt_ids(example, tokenizer))
    if task.kind.name == "choice":
        parts.append(lambda: task.candidates(example, tokenizer, 200))
    for part in parts:
        if maker == "unigram":
            with pytest.raises(UsageError, match=rf"{task_name}: row 5: the text contains '</s>'"):
                part()
            continue
        result = part()
        for row in result if isinstance(result, list) and not isinstance(result[0], int) else [result]:
            ids = row if isinstance(row, list) else row.input_ids
            if task.num_labels:
                own = [0, 2] + [2] * (len(example.texts) == 2)
            else:  # start, separator, end
                own = (
                    [0]
                    + ([2] if task.kind.name == "generate" else [])
                    + ([2] if row is not ids and task.kind.name != "choice" else [])
                )
            assert [i for i in ids if i in special] == own


def test_an_unreadable_row_ends_a_run_before_training(tmp_path, capsys):
    data = tmp_path / "data" / "glue" / "cola"
    data.mkdir(parents=True)
    row = {"sentence": "the cat sees a dog", "label": 1}
    for split in ("train", "validation"):
        rows = [row | {"idx": i, "label": i % 2} for i in range(16)]
        if split == "validation":
            rows[9]["sentence"] = "the </s> sees"
        (data / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    folder = zoo.saved("xlm-roberta", tmp_path / "model", tokenizer=zoo.framed(zoo.unigram(**zoo.FRAMED)))
    options = [
        f"model.path={folder}",
        "data=local",
        f"data.dir={tmp_path / 'data'}",
        "tracker=none",
        "train.max_steps=1",
    ]
    options.append(f"output_dir={tmp_path / 'runs'}")
    assert doctor.main(options) == 2
    output = "cola: row 9: the text contains '</s>', which "
    assert output in capsys.readouterr().out
    assert cli.main(options) == 2
    out = capsys.readouterr()
    assert output in out.err and "loss" not in out.out
    byte_level = zoo.saved("roberta", tmp_path / "bytes", tokenizer=zoo.framed(zoo.byte_level(**zoo.FRAMED)))
    run = small(tmp_path / "fine", *options[1:3], f"model.path={byte_level}", "train.max_steps=1")
    assert run_experiment(run).status == "done"


def harness(tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """`_encode_pair` of lm-evaluation-harness: trailing spaces move to the continuation; encodes both, then splits."""
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole = tokenizer.encode(context + continuation)
    before = tokenizer.encode(context)
    return before, whole[len(before) :]


@pytest.mark.parametrize("maker", ["byte level", "metaspace", "unigram"])
@pytest.mark.parametrize("task_name", ["piqa", "openbookqa", "arc_easy", "sciq"])
def test_choices_are_encoded_as_in_the_harness(maker, task_name):
    tokenizer = zoo.started(MAKERS[maker](**zoo.SPECIAL))
    run = composed(f"task={task_name}")
    for example in load_split(run.task, run.data, "validation", 60).examples:
        result = run.task.candidates(example, tokenizer, 10_000)
        for row, choice in zip(result, example.texts[1:], strict=True):
            before, added = harness(tokenizer, example.texts[0], f" {choice}")
            assert row.input_ids == before + added and row.input_ids[0] == 0
            assert row.labels == [IGNORED] * len(before) + added
        right = run.task.encode(example, tokenizer, 10_000)
        assert right.input_ids == result[example.label].input_ids


def test_a_metaspace_choice_has_no_extra_space():
    tokenizer = zoo.started(zoo.metaspace(**zoo.SPECIAL))
    alone = tokenizer(" cat", add_special_tokens=False)["input_ids"]
    _, added = pair_ids(tokenizer, "Question: Why?\nAnswer:", " cat", "row 7")
    assert tokenizer.convert_ids_to_tokens(added) == ["▁cat"] and alone != added
    assert pair_ids(tokenizer, "Answer: ", "cat", "row 7")[1] == added  # white space goes to what follows


@pytest.mark.parametrize("form", ["lora", "rosa"])
@pytest.mark.parametrize("maker", ["byte level", "metaspace"])
@pytest.mark.parametrize("task_name", ["e2e", "dart", "webnlg"])
def test_targets_are_encoded_in_context(form, maker, task_name):
    tokenizer = zoo.started(MAKERS[maker](**zoo.SPECIAL))
    run = composed(f"task={task_name}", f"task.linearization={form}")
    for example in load_split(run.task, run.data, "train", 20).examples:
        text = example.texts[0] if form == "lora" else f"Input: {example.texts[0]} Output:"
        before, added = harness(tokenizer, text, " " + example.references[0].strip())
        prompt = before + [2] * (form == "lora")
        row = run.task.encode(example, tokenizer, 10_000)
        assert row.input_ids == [*prompt, *added, 2] and row.labels == [IGNORED] * len(prompt) + [*added, 2]
        assert run.task.prompt_ids(example, tokenizer) == prompt and prompt[0] == 0


def test_start_tokens_are_those_of_the_tokenizer():
    bare, with_start, around = zoo.byte_level(**zoo.FRAMED), zoo.started(zoo.byte_level(**zoo.FRAMED)), None
    around = zoo.framed(zoo.byte_level(**zoo.FRAMED))
    for tokenizer, start in ((bare, []), (with_start, [0]), (around, [0])):
        body = tokenizer("the cat", add_special_tokens=False)["input_ids"]
        assert context_ids(tokenizer, "the cat", "row 7") == start + body
    assert context_ids(bare, "", "row 7") == [bare.bos_token_id]  # something has to come before a continuation


def test_a_continuation_without_a_token_is_refused():
    tokenizer = zoo.word_piece(**zoo.FRAMED)
    with pytest.raises(UsageError, match=r"row 7: .* adds no token"):
        pair_ids(tokenizer, "the cat", " \u200b", "row 7")


def test_the_cache_depends_on_the_inputs_of_a_model(tmp_path):
    """Two models may share a vocabulary while only one uses token types."""
    run = composed("task=mnli")
    split = load_split(run.task, run.data, "train", 3)
    results = []
    for names in (["input_ids"], ["input_ids", "token_type_ids"]):
        tokenizer = zoo.framed(zoo.byte_level(**zoo.FRAMED, model_input_names=names))
        results.append(encode_split(run.task, tokenizer, split, 40)[0].token_type_ids is None)
    assert results == [True, False]
