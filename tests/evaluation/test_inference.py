"""The inference cost of the deployed model: what is timed, how pairs become a ratio, and what it leaves unchanged."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from made import record
from support import composed, on, small, without_cost

from rosa_bench.data.encode import encode_split
from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.evaluation import inference, predict
from rosa_bench.models.load import load
from rosa_bench.modules.bottleneck import Adapter
from rosa_bench.modules.lowrank import LowRank
from rosa_bench.records.validate import checked
from rosa_bench.run import Experiment
from rosa_bench.run import run as run_experiment

CPU = torch.device("cpu")
TINY = ("train.max_steps=2", "train.limit_train=16", "train.limit_eval=8")


@pytest.fixture
def measured(monkeypatch):
    """Measure runs of any number of steps."""
    monkeypatch.setattr(inference, "FEWEST_STEPS", 1)


def task_of(name: str, *overrides: str, rows: int = 6):
    """The inference task of an embedded backbone, and two loaded copies of the backbone."""
    run = composed(*on(name), *overrides)
    models = [load(run.model, run.task, 3)[0] for _ in range(2)]
    tokenizer = load(run.model, run.task, 3)[1]
    split = load_split(run.task, run.data, run.task.select_split, rows)
    encoded = encode_split(run.task, tokenizer, split, 64)
    limit = predict.tokens_held(models[0])
    task = inference.Inference(run.task, tokenizer, split.examples, encoded, 4, limit, "fp32")
    return task, *models


def test_the_ratio_is_the_median_over_pairs_in_alternating_order(monkeypatch):
    clock, order = [0.0], []
    durations = {"model": itertools.cycle([9.0, 3.0, 3.0, 8.0, 3.0]), "backbone": itertools.cycle([9.0, 1.0, 2.0, 1.0])}

    def run(name):
        order.append(name)
        clock[0] += next(durations[name])

    monkeypatch.setattr(inference.time, "perf_counter", lambda: clock[0])
    result = inference.compared(lambda: run("model"), lambda: run("backbone"), 12, CPU, seconds=0.0)
    assert order == ["model", "backbone", "model", "backbone", "backbone", "model", "model", "backbone"]
    # untimed 9 and 9; pairs (3, 1), (3, 2), (8, 1): ratios 3, 1.5, 8; model 3, 3, 8; backbone 1, 2, 1
    assert result["pairs"] == 3 and result["ratio"] == 3.0 and result["ratio_quartiles"] == [2.25, 5.5]
    assert (result["model_ms"], result["backbone_ms"]) == (3000.0, 1000.0)
    assert (result["model_per_s"], result["backbone_per_s"]) == (4.0, 12.0)
    more = inference.compared(lambda: run("model"), lambda: run("backbone"), 12, CPU, seconds=200.0)
    assert more["pairs"] > 12


def test_a_gpu_is_timed_by_its_events_after_queued_work(monkeypatch):
    calls = []

    class Event:
        def __init__(self, enable_timing):
            self.made = len([call for call in calls if call == "event"])
            calls.append("event")

        def record(self):
            calls.append(f"record {self.made}")

        def synchronize(self):
            calls.append(f"wait for {self.made}")

        def elapsed_time(self, other):
            return 250.0 * (other.made - self.made)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("synchronize"))
    assert inference.timed(lambda: calls.append("run"), torch.device("cuda")) == 0.25
    assert calls[2:] == ["synchronize", "record 0", "run", "record 1", "wait for 1"]


def test_a_module_that_sleeps_is_as_much_slower_as_it_sleeps():
    task, model, backbone = task_of("roberta_mini")
    model.base_model.register_forward_pre_hook(lambda *_: time.sleep(0.1))
    result = task.compare(model, backbone, seconds=0.0)
    assert result["unit"] == "examples" and result["precision"] == "fp32"
    for name, size in (("batch_1", 1), ("batch_eval", 4)):
        batch = result[name]
        assert batch["size"] == size and batch["pairs"] == inference.FEWEST
        assert batch["model_ms"] - batch["backbone_ms"] > 50
        assert 1 < batch["ratio_quartiles"][0] <= batch["ratio"] <= batch["ratio_quartiles"][1]
        assert batch["model_per_s"] == pytest.approx(1000 * size / batch["model_ms"])
    assert all(p.requires_grad for p in model.parameters()) and model.training == backbone.training


@pytest.mark.parametrize("decoder", ["search", "generated"])
def test_every_text_has_the_same_number_of_tokens(decoder, monkeypatch):
    task, model, backbone = task_of("gpt2_mini", "task.max_new_tokens=5")
    find, texts = getattr(predict, decoder), []

    def decode(model, prompts, how):
        texts.append((model, len(prompts), result := find(model, prompts, how)))
        return result

    monkeypatch.setattr(predict, "decoder", lambda *_: decode)
    result = task.compare(model, backbone, seconds=0.0)
    assert result["unit"] == "tokens" and result["new_tokens"] == 5
    assert {(of is model, count) for of, count, _ in texts} == {(True, 1), (False, 1), (True, 4), (False, 4)}
    assert all(len(text) == 5 for *_, batch in texts for text in batch)
    batch = result["batch_eval"]
    assert batch["model_per_s"] == pytest.approx(1000 * 4 * 5 / batch["model_ms"])


def test_frozen_weights_are_cast_as_often_as_trained_ones(monkeypatch):
    task, model, backbone = task_of("roberta_mini")
    backbone.requires_grad_(False)
    seen = []
    monkeypatch.setattr(inference, "compared", lambda *_: seen.append([p.requires_grad for p in backbone.parameters()]))
    with pytest.raises(TypeError):
        task.compare(model, backbone, 0.0)  # the replacement returns no mapping
    assert all(seen[0]) and not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(("method", "module"), [("lora", None), ("rosa", None), ("adapter", Adapter)])
def test_the_model_as_deployed_is_measured(method, module, measured, tmp_path, monkeypatch):
    compare, seen = inference.Inference.compare, []

    def watched(self, model, backbone, seconds):
        seen.append(
            [{type(m) for m in each.modules() if isinstance(m, (Adapter, LowRank))} for each in (model, backbone)]
        )
        return compare(self, model, backbone, seconds)

    monkeypatch.setattr(inference.Inference, "compare", watched)
    result = run_experiment(small(tmp_path, *TINY, f"method={method}"))
    ((of_model, of_backbone),) = seen
    assert of_model == ({module} if module else set()) and not of_backbone
    facts = result.cost["inference"]
    assert facts["merged"] == (module is None) and facts["batch_1"]["size"] == 1 and facts["batch_eval"]["size"] == 8
    checked(record(cost={"inference": facts}), tmp_path)


def test_the_measurement_changes_nothing_else(tmp_path, monkeypatch):
    measure, states = Experiment.measure_inference, []

    def watched(self):
        def state():
            return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

        before = state()
        measure(self)
        states.append(state() == before)

    monkeypatch.setattr(Experiment, "measure_inference", watched)
    results = []
    for steps in (1, 3):  # measured, and too short to be
        monkeypatch.setattr(inference, "FEWEST_STEPS", steps)
        results.append(run_experiment(small(tmp_path / str(steps), *TINY, "method=adapter", "save=adapter")))
    with_it, without = results
    assert ("inference" in with_it.cost, "inference" in without.cost) == (True, False)
    assert states == [True, True] and without_cost(with_it) == without_cost(without) and with_it.facts == without.facts
    files = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.suffix in (".gz", ".safetensors")}
        for root in (Path(tmp_path / steps / with_it.run_id) for steps in ("1", "3"))
    ]
    assert files[0] == files[1] and len(files[0]) == 2


def test_a_failed_measurement_is_absent(measured, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nMore text")

    monkeypatch.setattr(inference, "compared", fail)
    result = run_experiment(small(tmp_path, *TINY))
    assert result.status == "done" and "inference" not in result.cost and result.error is None
    assert "cost.inference is absent (OutOfMemoryError: CUDA out of memory.)\n" in capsys.readouterr().out


def test_a_search_for_a_learning_rate_is_not_measured(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(inference.Inference, "compare", lambda *_: {"compared": True})
    plain, search = (run_experiment(small(tmp_path, *TINY, *more)) for more in ((), ("task.tune_share=0.2",)))
    assert plain.cost["inference"] == {"merged": True, "compared": True} and "inference" not in search.cost


def batch(**more):
    values = {"size": 1, "pairs": 3, "model_ms": 2.0, "backbone_ms": 1.0, "model_per_s": 500.0, "backbone_per_s": 1e3}
    return values | {"ratio": 2.0, "ratio_quartiles": [1.9, 2.1]} | more


@pytest.mark.parametrize(
    ("inference", "fault"),
    [
        ([], "not a mapping with merged"),
        ({"merged": True, "batch_1": batch()}, "batch_eval is not a mapping"),
        ({"merged": True, "batch_1": batch(ratio=0), "batch_eval": batch()}, r"batch_1\.ratio is 0"),
        ({"merged": True, "batch_1": batch(), "batch_eval": batch(ratio_quartiles=[1])}, r"ratio_quartiles is \[1\]"),
        ({"merged": True, "batch_1": batch(), "batch_eval": batch(model_ms="1")}, r"batch_eval\.model_ms is '1'"),
    ],
)
def test_records_with_another_form_are_refused(inference, fault, tmp_path):
    with pytest.raises(UsageError, match=fault):
        checked(record(cost={"inference": inference}), tmp_path)


def test_the_budget_grows_with_the_run():
    assert inference.budget(10.0) == pytest.approx(0.3) and inference.budget(1000.0) == inference.BUDGET_S
