"""Decoding: one output per distinct input, equal in batches and one by one, journaled batch by batch."""

from __future__ import annotations

import dataclasses
import json

import pytest
from support import EACH, composed, prepared, skip_refused, small, steps, without_cost

from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import predict, scorer
from rosa_bench.evaluation.beam_search import Search
from rosa_bench.evaluation.journal import Journal
from rosa_bench.records.run_key import config_key
from rosa_bench.run import run as run_experiment

BEAMS = ["task.num_beams=4", "task.no_repeat_ngram=4", "task.length_penalty=0.8", "task.repetition_penalty=1.1"]


def decoded(run, model, tokenizer, examples, batch_size, journal=None):
    return predict.decode(run.task, model, tokenizer, examples, batch_size, 256, journal)


@EACH
def test_beams_in_batches_equal_beams_one_by_one(method):
    skip_refused(method, "gpt2_mini")
    run, model, tokenizer, rows = prepared(method, "gpt2_mini", "task.max_new_tokens=16", *BEAMS)
    steps(run, model, rows, 2, 1e-4)
    examples = load_split(run.task, run.data, "test", 5).examples
    together = decoded(run, model, tokenizer, examples, 5)
    assert together == [decoded(run, model, tokenizer, [example], 1)[0] for example in examples]
    assert [prediction.id for prediction in together] == [example.id for example in examples]


def test_every_option_of_decoding_is_used(monkeypatch):
    run, model, tokenizer, _ = prepared("lora", "gpt2_mini", "task.max_new_tokens=9", *BEAMS)
    seen = []
    monkeypatch.setattr(predict, "search", lambda model, prompts, how: seen.append(how) or [[] for _ in prompts])
    examples = load_split(run.task, run.data, "test", 1).examples
    decoded(run, model, tokenizer, examples, 1)
    options = {"num_beams": 4, "max_new_tokens": 9, "no_repeat_ngram": 4, "length_penalty": 0.8}
    options |= {"repetition_penalty": 1.1, "end": tokenizer.eos_token_id}
    assert seen == [Search(**options)]
    for changed, wanted in (
        ({"search": "lora"}, {"rules": "lora"}),
        ({"no_repeat_ngram_over": "text"}, {"ngrams_over": "text"}),
    ):
        task = dataclasses.replace(run.task, **changed)
        decoded(dataclasses.replace(run, task=task), model, tokenizer, examples, 1)
        assert seen[-1] == Search(**options, **wanted)


@pytest.mark.parametrize("method", ["lora", "prefix_tuning", "prompt_tuning"])
def test_the_search_of_lora_with_virtual_tokens(method):
    """With one beam and no penalty it equals `transformers`, with and without tree support."""
    options = ("task.max_new_tokens=8", "task.search=lora")
    run, model, tokenizer, rows = prepared(method, "gpt2_mini", *options)
    steps(run, model, rows, 2, 1e-2)
    examples = load_split(run.task, run.data, "test", 4).examples
    plain = dataclasses.replace(run, task=dataclasses.replace(run.task, search="transformers"))
    result = decoded(run, model, tokenizer, examples, 4)
    assert result == decoded(plain, model, tokenizer, examples, 4)
    assert predict.decoder_of(run.task, model) == "rosa_bench.evaluation.beam_search.search"
    assert (predict.decoder_of(plain.task, model) == "transformers.generate") == (method != "lora")
    beams = dataclasses.replace(run, task=dataclasses.replace(run.task, num_beams=5, no_repeat_ngram=2))
    together = decoded(beams, model, tokenizer, examples, 4)
    assert together == [decoded(beams, model, tokenizer, [example], 1)[0] for example in examples]


def test_a_ban_over_the_input_is_not_a_rule_of_lora():
    with pytest.raises(UsageError, match=r"no_repeat_ngram_over=all is not supported with search=lora"):
        composed("task=e2e", "task.search=lora", "task.no_repeat_ngram_over=all")
    keys = {
        config_key(composed("task=e2e", *more)) for more in ((), ("task.search=transformers",), ("task.search=lora",))
    }
    assert len(keys) == 2


def test_equal_inputs_are_decoded_once(monkeypatch):
    run, model, tokenizer, _ = prepared("lora", "gpt2_mini", "task.max_new_tokens=8")
    examples = load_split(run.task, run.data, "test", 3).examples
    again = [dataclasses.replace(examples[0], id="again", references=("other",))]
    sizes = []
    original = predict._generated
    monkeypatch.setattr(predict, "_generated", lambda *a: sizes.append(len(a[3])) or original(*a))
    result = decoded(run, model, tokenizer, [*examples, *again], 9)
    assert sizes == [3] and result[3].value == result[0].value
    assert (result[3].id, result[3].references) == ("again", ("other",))


def test_a_journal_keeps_complete_batches_of_the_same_decoding(tmp_path):
    path = tmp_path / "decoding.jsonl"
    journal = Journal(path, "this")
    journal.add({3: "three\nlines", 1: "é"})
    with path.open("a") as stream:
        stream.write('{"2": "half a li')
    assert Journal(path, "this").texts == {3: "three\nlines", 1: "é"}
    assert Journal(path, "another").texts == {}
    path.write_text('"this"\n[1, 2]\n')
    assert Journal(path, "this").texts == {}
    journal.close()
    assert not path.exists()


@pytest.mark.parametrize("search", [(), ("task.search=lora", "task.num_beams=3", "task.no_repeat_ngram=2")])
def test_a_stopped_decoding_resumes(tmp_path, monkeypatch, search):
    overrides = ("task=e2e", "method=dylora", "method.rank_max=2", "train.eval_batch_size=8", "task.max_new_tokens=12")
    overrides += search
    whole = run_experiment(small(tmp_path / "whole", *overrides))
    original, calls = predict._generated, []

    def stopping(*arguments):
        calls.append(len(arguments[3]))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(predict, "_generated", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(small(tmp_path / "parts", *overrides))
    resumed = run_experiment(small(tmp_path / "parts", *overrides, "resume=must"))
    assert len(calls) == 7  # three batches for each of two variants, the fifth one twice
    assert without_cost(resumed) == without_cost(whole)
    assert resumed.params == whole.params and resumed.cost["memory"] == whole.cost["memory"]
    assert resumed.cost["train_s"] > 0 and resumed.cost["examples_per_s"] > 0
    for path in (tmp_path / "whole" / whole.run_id).glob("predictions*"):
        assert path.read_bytes() == (tmp_path / "parts" / whole.run_id / path.name).read_bytes()
    assert not list((tmp_path / "parts").rglob("decoding*"))


def test_webnlg_is_scored_overall_seen_and_unseen(tmp_path):
    """The last embedded test rows are of unseen categories."""
    record = run_experiment(
        small(
            tmp_path, "task=webnlg", "method=lora", "train.max_steps=2", "task.max_new_tokens=8", "train.limit_eval=500"
        )
    )
    assert set(record.scores) == {"test", "test_seen", "test_unseen", "validation"}
    assert all({"bleu", "ter"} <= set(record.scores[split][""]) for split in ("test", "test_seen", "test_unseen"))
    scoring_facts = json.loads((tmp_path / record.run_id / "record.json").read_text())["facts"]["scoring"]
    assert scoring_facts["convention"] == "lora" and scoring_facts["references"] == "raw"


def test_the_loss_is_that_of_the_first_or_of_all_references():
    losses = {}
    for references in ("first", "all"):
        run, model, tokenizer, _ = prepared("lora", "gpt2_mini", f"task.loss_references={references}")
        split = load_split(run.task, run.data, "validation", 4)
        targets = [target for example in split.examples for target in run.task.targets(example)]
        assert len(targets) > len(split.examples)
        (scores,) = scorer.Scorer(run, model, tokenizer, {"validation": split}, 128).epoch_scores().values()
        rows = [run.task.encode(one, tokenizer, 128) for one in (targets if references == "all" else split.examples)]
        assert [scores["loss"]] == pytest.approx(predict.Predictor(model, 5, tokenizer.pad_token_id).mean_losses(rows))
        losses[references] = scores["loss"]
    assert abs(losses["first"] - losses["all"]) > 1e-3
    assert config_key(composed("task=e2e", "task.loss_references=first")) == config_key(composed("task=e2e"))


def test_truncated_texts_are_counted_and_reported(tmp_path, capsys):
    options = ("method=lora", "train.max_steps=2", "task.max_new_tokens=4", "train.limit_eval=3")
    record = run_experiment(small(tmp_path, "task=e2e", *options, "train.max_length=24"))
    assert 0 < record.facts["cut_targets"] < record.facts["cut_examples"]
    assert f"{record.facts['cut_targets']} of" in capsys.readouterr().out
    assert record.facts["decoder"] == "rosa_bench.evaluation.beam_search.search"


def test_two_scored_splits(tmp_path):
    options = ("method=lora", "train.max_steps=2", "task.max_new_tokens=4", "task.scored_splits=[test,validation]")
    record = run_experiment(small(tmp_path, "task=e2e", *options, "train.limit_eval=3"))
    assert {"bleu", "cider"} <= set(record.scores["test"][""]) & set(record.scores["validation"][""])
    assert record.primary["split"] == "test"


def test_samples_show_the_nearest_reference():
    run, *_ = prepared("lora", "gpt2_mini")
    examples = load_split(run.task, run.data, "test", 4).examples
    predictions = [
        scorer.Prediction(example.id, example.references[-1], references=example.references) for example in examples
    ]
    lines = list(scorer.samples(examples, predictions))
    assert len(lines) == 9
    assert lines[2].split(maxsplit=1)[1] == lines[1].split(maxsplit=1)[1] == examples[0].references[-1]
