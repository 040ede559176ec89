"""Multiple choice: prompts, likelihoods, both accuracies, stored predictions, real rows."""

from __future__ import annotations

import gzip
import json

import pytest
import torch
from beside import SHARED
from support import composed, prepared, small

from rosa_bench import embedded, score
from rosa_bench.core.task import IGNORED, Example, Prediction
from rosa_bench.data.source import Split, load_split
from rosa_bench.errors import UsageError
from rosa_bench.evaluation.predict import Predictor, evaluating
from rosa_bench.evaluation.scorer import Scorer
from rosa_bench.models.load import load
from rosa_bench.records import predictions
from rosa_bench.run import run as run_experiment
from rosa_bench.tables import paired_tests

KEYED = {"question": "Why?", "choices": {"label": ["1", "2", "3"], "text": ["a", "b", "c"]}, "answerKey": "2"}
ROWS = {
    "openbookqa": (KEYED | {"question": "Ice is"}, "Ice is", ("a", "b", "c"), 1),
    "arc_easy": (KEYED, "Question: Why?\nAnswer:", ("a", "b", "c"), 1),
    "piqa": ({"goal": "Dry it", "sol1": "x", "sol2": "y ", "label": 1}, "Question: Dry it\nAnswer:", ("x", "y "), 1),
    "sciq": (
        {"support": "", "question": "Q?", "correct_answer": "r"} | {f"distractor{i}": f"d{i}" for i in (1, 2, 3)},
        "Question: Q?\nAnswer:",
        ("d1", "d2", "d3", "r"),
        3,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_become_prompt_choices_and_label(name):
    row, prompt, choices, label = ROWS[name]
    assert composed(f"task={name}").task.parse(row, "here") == Example("here", (prompt, *choices), label)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("arc_easy", {"answerKey": "D"}, "'answerKey' is 'D', not one of 1, 2, 3"),
        ("arc_easy", {"answerKey": None}, "'answerKey' is NoneType"),
        ("arc_easy", {"choices": {"label": ["1"], "text": ["a", "b"]}}, "2 texts and 1 different labels"),
        ("arc_easy", {"choices": {"label": ["1", "2"], "text": ["a", " "]}}, "is not a list of non-empty strings"),
        ("piqa", {"label": -1}, "'label' is -1, not one of 0..1"),
        ("piqa", {"sol1": " "}, "'sol1' is empty"),
        ("openbookqa", {"question": " "}, "'question' is empty"),
    ],
)
def test_a_malformed_row_is_one_line(name, change, words):
    with pytest.raises(UsageError, match="file:3") as error:
        composed(f"task={name}").task.parse(ROWS[name][0] | change, "file:3")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override", ["task.prompt='no field'", "task.prompt='{'", "task.prompt='{}'", "task.answers=[a]", "task.right=b"]
)
def test_an_invalid_task_is_refused(override):
    with pytest.raises(UsageError, match=r"task\.?"):
        composed("task=piqa", override)


def test_a_hub_s_fields_get_the_names_of_the_files():
    task = composed("task=openbookqa").task
    row = KEYED | {"question_stem": "Ice is"}
    (result,) = task.from_hub([{k: v for k, v in row.items() if k != "question"}], "train")
    assert task.parse(result, "here").texts[0] == "Ice is" and task.hub.repository == "allenai/openbookqa"
    with pytest.raises(UsageError, match="has no hub repository"):
        _ = composed("task=openbookqa", "task.hub_repository=null").task.hub


@pytest.mark.parametrize("revision", ["''", "main", "388097e"])
def test_a_hub_repository_needs_a_commit(revision):
    with pytest.raises(UsageError, match=r"hub_revision='.*' is not a commit of allenai/openbookqa"):
        composed("task=openbookqa", f"task.hub_revision={revision}")
    composed("task=openbookqa", f"task.hub_revision={revision}", "task.hub_repository=null")


@pytest.mark.parametrize("loss_on", ["target", "sequence"])
def test_training_sees_the_right_answer(loss_on):
    run = composed("task=arc_easy", f"task.loss_on={loss_on}")
    _, tokenizer = load(run.model, run.task, 1)
    example = Example("1", ("Question: what is a robin?\nAnswer:", "a bird", "a cow"), 0)
    row = run.task.encode(example, tokenizer, 64)
    assert tokenizer.decode(row.input_ids).strip() == "Question: what is a robin?\nAnswer: a bird"
    target = tokenizer(" a bird")["input_ids"]
    silent = len(row.input_ids) - len(target) if loss_on == "target" else 1
    assert row.labels == [IGNORED] * silent + row.input_ids[silent:]
    short = run.task.encode(example, tokenizer, len(target) + 2)
    assert short.cut and not short.cut_target and short.input_ids == row.input_ids[-len(target) - 2 :]
    first, second = run.task.candidates(example, tokenizer, 64)
    assert first.input_ids == row.input_ids and tokenizer.decode(second.input_ids).endswith("Answer: a cow")
    assert first.labels == [IGNORED] * (len(row.input_ids) - len(target)) + target


def test_a_special_token_in_a_prompt_is_plain_text():
    run = composed("task=openbookqa")
    _, tokenizer = load(run.model, run.task, 1)
    end = tokenizer.eos_token
    target = tokenizer(" a bird")["input_ids"]
    for question in (end, f"What is it?{end}"):
        (row, _) = run.task.candidates(Example("1", (question, "a bird", "a cow"), 0), tokenizer, 64)
        requested = tokenizer(question, split_special_tokens=True)["input_ids"]
        assert row.input_ids == requested + target and tokenizer.eos_token_id not in requested
        assert row.labels == [IGNORED] * len(requested) + target


@pytest.mark.parametrize(("kind", "before", "behind"), [("roberta", 1, 1), ("gpt2", 0, 0)])
def test_a_prompt_keeps_what_a_tokenizer_puts_in_front_of_it(backbone, kind, before, behind):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(backbone(kind))
    requested = tokenizer("the cat")["input_ids"]
    assert len(requested) == len(tokenizer("the cat", add_special_tokens=False)["input_ids"]) + before + behind
    task = composed("task=openbookqa").task
    (row, _) = task.candidates(Example("1", ("the cat", "a dog", "a fox"), 0), tokenizer, 64)
    assert row.labels.count(IGNORED) == len(requested) - behind
    assert row.input_ids[: len(requested) - behind] == requested[: len(requested) - behind]


def test_scored_choices_may_use_all_positions(tmp_path):
    """A choice of 41 tokens after a prompt of 93 is scored completely, although training truncates to 16 tokens."""
    row = KEYED | {"question": "why " * 40, "choices": {"label": ["1", "2"], "text": ["cold " * 20, "ice"]}}
    run = small(tmp_path, "task=arc_easy", "train.max_length=16")
    model, tokenizer = load(run.model, run.task, 1)
    example = run.task.parse(row, "here")
    scorer = Scorer(run, model, tokenizer, {"test": Split([example], 1, "")}, 16)
    first, second = scorer.rows("test")
    assert len(first.input_ids) == 134 and len(second.input_ids) == 95
    assert not any(item.cut or item.cut_target for item in (first, second))
    assert run.task.encode(example, tokenizer, 16).cut
    record = run_experiment(small(tmp_path, "task=piqa", "train.max_steps=1", "train.max_length=16"))
    assert record.facts["cut_choices"] == 0 and record.facts["cut_examples"] > 0


def test_likelihoods_equal_those_of_single_choices():
    run, model, tokenizer, _ = prepared("lora", "gpt2_mini", "task=sciq")
    examples = load_split(run.task, run.data, "test", 5).examples
    rows = [item for e in examples for item in run.task.candidates(e, tokenizer, 128)]
    (together,) = Predictor(model, 7, tokenizer.pad_token_id).likelihoods(rows)
    for row, result in zip(rows, together, strict=True):
        with evaluating(model):
            scores = model(input_ids=torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        wanted = sum(scores[i - 1, t] for i, t in enumerate(row.labels) if t != IGNORED)
        assert result == pytest.approx(float(wanted), abs=1e-3)
    predictions = run.task.kind.predictions(run.task, examples, together)
    assert [len(p.logits) for p in predictions] == [4] * 5
    assert all(p.logits[p.value] == max(p.logits) for p in predictions)
    assert predictions[1].lengths == tuple(len(text) for text in examples[1].texts[1:])


def test_both_accuracies_by_hand():
    task = composed("task=piqa").task
    output = [
        Prediction("1", 0, 0, logits=(-2.0, -3.0), lengths=(2, 6)),  # per character -1 and -0.5: the second
        Prediction("2", 0, 0, logits=(-2.0, -3.0), lengths=(4, 4)),
        Prediction("3", 1, 0, logits=(-9.0, -3.0), lengths=(9, 3)),  # equal per character: the first
        Prediction("4", 1, 0, logits=(-9.0, -3.0), lengths=(4, 3)),
    ]
    assert task.score("", output) == {"accuracy": 50.0, "accuracy_norm": 50.0}
    for metric, correct in (("accuracy", [1, 1, 0, 0]), ("accuracy_norm", [0, 1, 1, 0])):
        statistic = task.statistic(metric, output)
        assert statistic.score == 50.0 and statistic.correct.tolist() == correct
    assert task.score("", [Prediction("1", 0, 0)]) == {"accuracy": 100.0}  # from a file of answers alone


def test_a_run_scores_stores_and_can_be_compared(tmp_path):
    records = []
    for seed in (1, 2):
        run = small(tmp_path, "task=openbookqa", "method=lora", f"seed={seed}", "train.max_steps=6")
        records.append(run_experiment(run))
    for record in records:
        assert set(record.scores["test"][""]) == {"accuracy", "accuracy_norm"}
        assert record.primary["split"] == "test" and record.primary["selected_by"] == "accuracy on validation"
        assert record.primary["last"] == record.scores["test"][""]["accuracy"]
        assert record.facts["merge_within_bound"] and record.facts["cut_targets"] == 0
    paths = [tmp_path / r.run_id / "predictions-test.jsonl.gz" for r in records]
    rows = [json.loads(line) for line in gzip.decompress(paths[0].read_bytes()).splitlines()]
    assert all(len(row["logits"]) == len(row["lengths"]) == 4 for row in rows)
    first, second = (predictions.read_predictions(path, 1) for path in paths)
    for metric in ("accuracy", "accuracy_norm"):
        comparison = paired_tests.compare(run.task, metric, [first], [second])
        expected = [record.scores["test"][""][metric] for record in records]
        assert comparison.test == "exact McNemar" and comparison.difference == pytest.approx(expected[0] - expected[1])
    rows[0]["lengths"] = [1, 2]
    (tmp_path / "bad.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(UsageError, match="as many log-likelihoods as lengths"):
        predictions.read_predictions(tmp_path / "bad.jsonl", 1)


def test_answers_of_any_system_are_scored(tmp_path, capsys):
    labels = [int(row["label"]) for row in embedded.rows("piqa", "validation")]
    (tmp_path / "out.txt").write_text("".join(f"{label if i % 2 else 1 - label}\n" for i, label in enumerate(labels)))
    assert score.main(["--task", "piqa", "--predictions", str(tmp_path / "out.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == {"validation": {"accuracy": 50.0}}


def test_an_encoder_is_refused():
    run = composed("task=sciq", "model=roberta_mini")
    with pytest.raises(UsageError, match="task=sciq needs a causal decoder"):
        load(run.model, run.task, 1)
    run = composed("task=sciq", "method=head")
    with pytest.raises(UsageError, match="method=head"):
        run.method.check(run.task)


COUNTS = {"openbookqa": (4957, 500, 500), "arc_easy": (2251, 570, 2376), "arc_challenge": (1119, 299, 1172)}


@pytest.mark.parametrize("task", COUNTS)
def test_a_few_steps_on_real_rows(task, shared_data, tmp_path):
    run = small(tmp_path, f"task={task}", "data=local", f"data.dir='{shared_data}'", "train.max_steps=2")
    splits = [load_split(run.task, run.data, split) for split in ("train", "validation", "test")]
    assert tuple(len(split.examples) for split in splits) == COUNTS[task]
    record = run_experiment(run)
    assert record.status == "done" and set(record.scores["test"][""]) == {"accuracy", "accuracy_norm"}


@pytest.mark.parametrize(
    ("task", "words"),
    [("piqa", "train.jsonl.*is missing; the folder has validation.jsonl"), ("sciq", "sciq is not a folder")],
)
def test_a_missing_data_set_is_one_line(task, words, shared_data):
    run = composed(f"task={task}", "data=local", f"data.dir='{SHARED / 'data'}'")
    with pytest.raises(UsageError, match=words):
        load_split(run.task, run.data, "train")


def test_the_real_piqa_rows_are_read(shared_data):
    run = composed("task=piqa", "data=local", f"data.dir='{shared_data}'")
    loaded = load_split(run.task, run.data, "validation").examples
    assert [sum(e.label == i for e in loaded) for i in (0, 1)] == [910, 928]
