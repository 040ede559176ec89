"""Fast composing gives the same runs and errors as Hydra."""

from __future__ import annotations

import time

import pytest

from rosa_bench.config import fast_compose
from rosa_bench.config.compose import compose
from rosa_bench.config.fast_compose import composer
from rosa_bench.errors import UsageError
from rosa_bench.suite import plan

RUNS = [
    (),
    ("task=mrpc", "method=lora", "method.rank=4", "seed=3", "train.lr=5e-4"),
    ("method=dylora", "task=e2e", "method.frozen=true", "task.num_beams=10", "train.max_steps=null", "data=hub"),
    ("method=rosa", "method=lora", "method.targets=[q,v,o]", "tracker.tags=[a,'b c']", "data=hub", "data=embedded"),
    ("model=roberta_base", "model.revision='x y'", "output_dir='a b/ü'", "train.warmup=500"),
    ("task=synthetic", "task.layers=2", "method.rank=0.05"),
    ("model.name=abc", "train.batch_size=8", "train.batch_size=16"),
    ("output_dir=${task.name}", "train.epochs=${seed}"),  # only Hydra knows
    ("+tracker.entity=me",),
    ("hydra.run.dir=x",),
    ("method=dora", "method.config.r=4", "method.config.target_modules=[query]", "save=adapter"),
    ("method=peft", "method.type=LOHA", "method.config={r: 2}"),
    ("method=peft", "method.type=LOHA", "method.config.r=2", "method.config.module_dropout=0.5", "save=adapter"),
    ("method=dora", "method.config.zzz=4"),
    ("method=dora", "method.config.rank_pattern.a=4"),
    ("train.optimizer_args.momentum=0.9",),
    ("data.sha256.x=1",),
]


@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_runs_equal_those_of_hydra(overrides):
    try:
        expected = compose(overrides)
    except UsageError as error:
        with pytest.raises(UsageError) as result:
            composer()(overrides)
        assert str(result.value) == str(error)
    else:
        assert composer()(overrides) == expected


def test_overrides_of_suites_need_no_hydra(monkeypatch):
    monkeypatch.setattr(fast_compose, "compose", None)
    for overrides in RUNS[:7]:
        assert composer()(overrides).seed in (1, 3)


@pytest.mark.parametrize("wrong", ["method.rnak=3", "train.lr=-1", "task=colla", "method={a: 1}", "seed=a b", "x=1,2"])
def test_faults_equal_those_of_hydra(wrong):
    with pytest.raises(UsageError) as expected:
        compose(["method=lora", wrong])
    with pytest.raises(UsageError) as result:
        composer()(["method=lora", wrong])
    assert str(result.value) == str(expected.value)


def test_runs_share_no_values():
    first, second = (composer()(["method=lora"]) for _ in range(2))
    first.method.targets.append("k")
    assert second.method.targets == composer()(["method=lora"]).method.targets == ["q", "v"]


def test_hundreds_of_cells_are_planned_in_about_a_second():
    suite = plan.load("embedded_more")
    plan.plan(suite)
    began = time.process_time()
    cells = plan.plan(suite)
    assert len(cells) >= 250 and time.process_time() - began < 3  # 0.3 s alone; Hydra takes 60 s
