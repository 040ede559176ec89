"""Encoding of rows, its cache, and the order of batches."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers
from support import TASKS, composed

from rosa_bench.core.schema import configured
from rosa_bench.core.task import IGNORED, Encoded, Example
from rosa_bench.data.batches import collate, epoch_order
from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import Split, load_split
from rosa_bench.errors import UsageError
from rosa_bench.system.files import cache_dir
from rosa_bench.tasks.glue import Glue


@pytest.mark.parametrize("task", TASKS)
def test_every_embedded_task_is_encoded(task, backbone):
    run = composed(f"task={task}")
    kind = "roberta" if run.task.num_labels else "gpt2"
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone(kind))
    rows = encode_split(run.task, tokenizer, load_split(run.task, run.data, "train", 50), 40)
    assert len(rows) >= 50 and all(0 < len(row.input_ids) <= 40 for row in rows)
    if run.task.kind.name == "generate":
        assert all(row.input_ids[-1] == tokenizer.eos_token_id for row in rows if len(row.input_ids) < 40)
    if not run.task.num_labels:
        assert all(len(row.labels) == len(row.input_ids) for row in rows)


def test_only_the_target_has_a_loss_by_default(backbone):
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("gpt2"))
    for loss_on in ("target", "sequence"):
        run = composed("task=e2e", f"task.loss_on={loss_on}")
        row = encode_split(run.task, tokenizer, load_split(run.task, run.data, "train", 1), 400)[0]
        prompt = row.input_ids.index(tokenizer.eos_token_id) + 1
        assert row.labels[prompt:] == row.input_ids[prompt:]
        silent = [label for label in row.labels[:prompt] if label == IGNORED]
        assert len(silent) == (prompt if loss_on == "target" else 1)


@pytest.mark.parametrize("loss_on", ["target", "sequence"])
def test_a_target_without_room_for_its_input_has_a_label_per_token(loss_on, backbone):
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("gpt2"))
    run = composed("task=e2e", f"task.loss_on={loss_on}")
    rows = encode_split(run.task, tokenizer, load_split(run.task, run.data, "train", 2), 5)
    assert all(row.cut_target and len(row.labels) == len(row.input_ids) == 5 for row in rows)
    assert all(row.labels == [IGNORED, *row.input_ids[1:]] for row in rows)  # nothing predicts the first token
    assert collate(rows, pad_id=1)["labels"].shape == (len(rows), 5)


def test_inputs_have_the_format_of_the_papers(backbone):
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("gpt2"))
    row = {"meaning_representation": "name[The Mill], eatType[pub]", "human_references": ["A pub."]}
    written = {}
    for form in ("lora", "rosa"):
        task = composed("task=e2e", f"task.linearization={form}").task
        written[form] = tokenizer.decode(task.prompt_ids(task.parse(row, "here"), tokenizer)).strip()
    assert written["lora"] == "name : The Mill | Type : pub<|endoftext|>"
    assert written["rosa"] == "Input: name[The Mill], eatType[pub] Output:"


def test_inputs_of_e2e_have_the_keys_of_lora():
    """A row with every key of the release, and a line of microsoft/LoRA's data/e2e, whose values are tokenised."""
    meaning = (
        "name[The Mill], eatType[restaurant], food[English], priceRange[high], customer rating[low], "
        "area[city centre], familyFriendly[no], near[Café Rouge]"
    )
    line = (
        "name : The Mill | Type : restaurant | food : English | price : high | customer rating : low | "
        "area : city centre | family friendly : no | near : Café Rouge"
    )
    task, rosa = (composed("task=e2e", *more).task for more in ((), ("task.linearization=rosa",)))
    row = {"meaning_representation": meaning, "human_references": ["x"]}
    assert task.parse(row, "r").texts == (line,) and rosa.parse(row, "r").texts == (meaning,)
    tokenised = {"meaning_representation": "Type[pub], price[£ 20 - 25]", "human_references": ["x"]}
    assert task.parse(tokenised, "r").texts == ("Type : pub | price : £ 20 - 25",)


def test_triples_have_the_format_of_loras_experiments(backbone):
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("gpt2"))
    rows = {
        "webnlg": {"triples": ["Aarhus | leaderName | Jacob", "Aarhus | country | Denmark"], "references": ["A."]},
        "dart": {"tripleset": [["Aarhus", "LEADER_NAME", "Jacob"], ["Aarhus", "COUNTRY", "Denmark"]]},
    }
    wanted = {
        "webnlg": "Aarhus : leaderName : Jacob | Aarhus : country : Denmark",
        "dart": "Aarhus : leader_name : Jacob | Aarhus : country : Denmark",
    }
    for name, row in rows.items():
        for form, shape in (("lora", "{}<|endoftext|>"), ("rosa", "Input: {} Output:")):
            task = composed(f"task={name}", f"task.linearization={form}").task
            example = task.parse({"references": ["A."], **row}, "here")
            assert tokenizer.decode(task.prompt_ids(example, tokenizer)).strip() == shape.format(wanted[name])


def test_inputs_are_truncated_before_targets_and_both_are_counted(backbone):
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("gpt2"))
    task = composed("task=e2e").task
    text = "The Mill is a pub by the river."
    row = {"meaning_representation": "name[The Mill], eatType[pub]", "human_reference": text}
    target = [*tokenizer(f" {text}")["input_ids"], tokenizer.eos_token_id]
    counted = {}
    for room in (100, len(target) + 3, len(target), len(target) - 1):
        result = task.encode(task.parse(row, "here"), tokenizer, room)
        assert result.input_ids[-len(target) :] == target[:room] and len(result.input_ids) <= room
        counted[room - len(target)] = (result.cut, result.cut_target)
    assert list(counted.values()) == [(False, False), (True, False), (True, False), (True, True)]


def test_only_a_longer_text_is_counted_as_truncated(backbone):
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("roberta"))
    task = composed("task=rte").task
    example = task.parse({"sentence1": "The pub is old.", "sentence2": "It is new.", "label": 1}, "here")
    length = len(task.encode(example, tokenizer, 100).input_ids)
    assert [task.encode(example, tokenizer, length - fewer).cut for fewer in (0, 1)] == [False, True]


def test_a_pair_with_an_empty_text_is_still_a_pair(backbone):
    """As in rows 310121 and 362225 of QQP's training split."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("roberta"))
    task = composed("task=qqp").task
    example = task.parse({"question1": "Is it old?", "question2": "", "label": 0}, "here")
    assert task.encode(example, tokenizer, 64).input_ids == tokenizer(["Is it old?"], [""])["input_ids"][0]
    with pytest.raises(UsageError, match="here: field 'question2' is empty"):
        task.parse({"question1": " ", "question2": "", "label": 0}, "here")


def test_a_damaged_cache_is_ignored(backbone, monkeypatch):
    run = composed("task=cola")
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("roberta"))
    split = load_split(run.task, run.data, "train", 30)
    first = encode_split(run.task, tokenizer, split, 33)
    calls = []
    original = type(run.task).encode
    monkeypatch.setattr(type(run.task), "encode", lambda *a: calls.append(1) or original(*a))
    assert encode_split(run.task, tokenizer, split, 33) == first and not calls
    entries = list((cache_dir() / "tokens").iterdir())
    for entry in entries:
        entry.write_text(entry.read_text()[:-9] + "8" * 9)
    assert encode_split(run.task, tokenizer, split, 33) == first and calls
    assert encode_split(run.task, tokenizer, split, 12) != first


def test_a_changed_task_of_the_users_own_is_encoded_again(backbone):
    @configured
    class Own(Glue):
        pass

    run = composed("task=cola")
    task = Own(**dataclasses.asdict(run.task))
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("roberta"))
    before = load_split(task, run.data, "train", 5)
    texts = [dataclasses.replace(example, texts=("a cat",)) for example in before.examples]
    after = dataclasses.replace(before, examples=texts)  # the same rows by a changed `parse`
    assert encode_split(task, tokenizer, before, 30) != encode_split(task, tokenizer, after, 30)


def test_a_tokenizer_in_python_with_other_merges_encodes_again(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "<pad>": 1, "ca@@": 2, "c@@": 3, "a@@": 4, "t": 5}))
    ids = []
    for merges in ("c a\n", "x y\n"):
        (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}")
        files = str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
        tokenizer = transformers.CTRLTokenizer(*files, pad_token="<pad>")
        split = Split([Example("1", ("cat",), 1)], 1, "the same rows")
        ids.append(encode_split(composed("task=cola").task, tokenizer, split, 30)[0].input_ids)
    assert ids == [[2, 5], [3, 4, 5]]


def test_a_read_only_cache_is_harmless(backbone, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROSA_BENCH_CACHE", str(tmp_path / "file" / "below"))
    run = composed("task=cola")
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone("roberta"))
    assert len(encode_split(run.task, tokenizer, load_split(run.task, run.data, "train", 5), 30)) == 5


@pytest.mark.parametrize("bucket", [True, False])
def test_an_epoch_is_a_permutation_of_seed_and_epoch(bucket):
    lengths = [7 + (i * 37) % 50 for i in range(203)]
    orders = {(s, e): epoch_order(lengths, 8, s, e, bucket) for s in (1, 2) for e in (0, 1)}
    assert all(sorted(order) == list(range(203)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert orders[1, 1] == epoch_order(lengths, 8, 1, 1, bucket)


def test_bucketing_pads_less_and_starts_with_the_longest():
    lengths = [5 + (i * 7919) % 90 for i in range(1000)]

    def padding(order):
        batches = [[lengths[j] for j in order[i : i + 8]] for i in range(0, len(order), 8)]
        return sum(max(batch) * len(batch) for batch in batches) / sum(lengths)

    bucketed, plain = (epoch_order(lengths, 8, 1, 0, bucket) for bucket in (True, False))
    assert padding(bucketed) < 1.1 < 1.4 < padding(plain)
    assert max(lengths) in [lengths[j] for j in bucketed[:8]]


def test_batches_do_not_follow_length():
    lengths = [5 + (i * 7919) % 90 for i in range(1000)]
    order = epoch_order(lengths, 8, 1, 3, True)
    means = [sum(lengths[j] for j in order[i : i + 8]) / 8 for i in range(0, 1000, 8)]
    assert abs(torch.corrcoef(torch.tensor([means, list(range(len(means)))]))[0, 1]) < 0.3


def test_collate_pads_on_the_right_and_hides_padding():
    batch = collate([Encoded([5, 6, 7], 1), Encoded([8], 0)], pad_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    text = collate([Encoded([5, 6], [IGNORED, 6]), Encoded([8], [8])], pad_id=9)
    assert text["labels"].tolist() == [[IGNORED, 6], [8, IGNORED]]
