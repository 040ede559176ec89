"""Training steps recorded and replayed by stand-ins for CUDA graphs are bitwise equal to eager steps."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import Again, Frozen
from safetensors.torch import load_file
from support import EACH, METHODS, interrupt, prepared, small, without_cost
from torch import nn

from rosa_bench.core.method import Step
from rosa_bench.data.batches import collate, padded_length, padding_multiple
from rosa_bench.errors import UsageError
from rosa_bench.models.casts import Casts
from rosa_bench.run import refuse
from rosa_bench.run import run as run_experiment
from rosa_bench.training import graphs
from rosa_bench.training.graphs import CLOSE, MOST, Graphs, RefusedError, as_if_capturing, reason_against

CPU = torch.device("cpu")
FEW = ("train.max_length=16", "train.limit_train=32", "train.max_steps=7", "train.log_steps=1", "train.limit_eval=8")
SPLITS = "method.every_steps=3"
RUNS = [
    ("lora", Frozen, ()),
    ("lora", Frozen, ("train.micro_batch_size=4",)),
    ("lora", Frozen, ("train.precision=bf16",)),
    ("lora", Again, ("train.gradient_checkpointing=true",)),
    ("dylora", Frozen, ("method.rank_max=3",)),
    ("dylora", Frozen, ("train.precision=bf16", "train.micro_batch_size=4", "method.rank_max=3")),
    ("rosa", Frozen, (SPLITS,)),
    ("rosa", Frozen, (SPLITS, "train.micro_batch_size=4", "train.precision=bf16")),
    ("full", Frozen, ()),
    ("full", Frozen, ("train.precision=bf16",)),
    ("bitfit", Frozen, ()),
    ("adapter", Frozen, ()),
    ("ia3", Frozen, ()),
    ("adalora", Frozen, ()),
    ("prompt_tuning", Frozen, ()),
    ("prefix_tuning", Frozen, ()),
    ("meft", Again, ()),
    ("meft", Again, ("method.variant=meft3", "train.precision=bf16")),
]


def trained(run, record) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of all steps and the tensors that the run saved."""
    folder = Path(run.output_dir) / record.run_id
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (path,) = folder.glob("adapter/*.safetensors")
    return [line["loss"] for line in lines if "loss" in line], load_file(path)


def same(one, other) -> bool:
    return (
        one[0] == other[0]
        and one[1].keys() == other[1].keys()
        and all(torch.equal(one[1][k], other[1][k]) for k in one[1])
    )


@pytest.fixture
def recording(monkeypatch):
    """Record steps on the CPU by a stand-in. Masks are always built as within a capture."""

    def use(backend: type) -> None:
        monkeypatch.setitem(graphs.BACKENDS, "cpu", backend)

    with as_if_capturing():
        yield use


def both(folder: Path, *overrides: str):
    """The same run without and with recordings."""
    out = []
    for mode in ("off", "auto"):
        run = small(folder / mode, *FEW, "save=adapter", f"train.graphs={mode}", *overrides)
        out.append((run, run_experiment(run)))
    return out


@pytest.mark.parametrize(("method", "backend", "options"), RUNS)
def test_a_run_with_graphs_equals_the_eager_one(method, backend, options, backbone, tmp_path, recording):
    recording(backend)
    runs = both(tmp_path, f"method={method}", f"model.path={backbone('roberta')}", *options)
    (eager, other) = (trained(*one) for one in runs)
    assert same(eager, other) and len(eager[0]) == 7
    assert without_cost(runs[0][1]) == without_cost(runs[1][1])
    if "train.precision=bf16" not in options:  # in which recorded steps hold copies of trained weights, as weights
        assert runs[0][1].cost["memory"] == runs[1][1].cost["memory"]
    made = [record.env["graphs"] for _, record in runs]
    assert made[0] == {"none": "train.graphs=off"} and made[1]["recorded"] >= 1


def test_a_language_model(recording):
    _, model, _, rows = prepared("lora", "gpt2_mini")
    model.train()
    made = Graphs(
        model,
        lambda inputs, items: model(**inputs).loss / items,
        Frozen(CPU),
        Casts(model, None),
        single=True,
        tolerance=CLOSE["fp32"],
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    recording(Frozen)
    for part in (rows[:4], rows[4:8], rows[:4]):
        batch = collate(part, pad_id=1, multiple=64, limit=64)
        torch.manual_seed(3)
        loss = model(**batch).loss / ITEMS
        expected = torch.autograd.grad(loss, trained)
        torch.manual_seed(3)
        model.zero_grad()
        assert torch.equal(made.step(batch, ITEMS, ()), loss)
        assert all(torch.equal(p.grad, gradient) for p, gradient in zip(trained, expected, strict=True))
    assert made.recorded == 1


RANKS = ("method.rank_max=2",)


@pytest.mark.parametrize(
    ("method", "backend", "more"), [("lora", Frozen, ()), ("dylora", Frozen, RANKS), ("meft", Again, ())]
)
def test_a_resumed_run_equals_an_uninterrupted_one(method, backend, more, backbone, tmp_path, recording):
    recording(backend)
    options = (*FEW, *more, "save=adapter", f"method={method}", f"model.path={backbone('roberta')}")
    whole = small(tmp_path / "whole", *options)
    expected = trained(whole, run_experiment(whole))
    parts = small(tmp_path / "parts", *options)
    interrupt(parts, 5)
    assert same(trained(parts, run_experiment(parts)), expected)


class Drawing(nn.Module):
    """A layer that skips itself at random, using a host generator."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.linear, self.draw = nn.Linear(3, 3), draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if self.draw() < 2 else x


def graphs_of(model: nn.Module, backend: graphs.Backend, single: bool = True) -> Graphs:
    def compute(inputs, items):
        return model(inputs["x"]).square().sum() / items

    return Graphs(model, compute, backend, Casts(model, None), single=single, tolerance=CLOSE["fp32"])


INPUTS = {"x": torch.arange(6.0).view(2, 3)}
ITEMS = torch.tensor(2)


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_a_step_that_draws_on_the_host_is_refused(draw):
    made = graphs_of(Drawing(draw), Frozen(CPU))
    assert made.step(INPUTS, ITEMS, ()) is None and "draws random numbers on the host" in str(made.refused)
    assert made.step(INPUTS, ITEMS, ()) is None and made.summary() == {"none": made.refused}


def test_a_step_that_reads_the_device_is_refused_before_it_is_recorded():
    class Strict(Frozen):
        def strict(self):
            raise RuntimeError("called a synchronizing CUDA operation\nand more")

        def record(self, step):
            raise AssertionError("recorded")

    made = graphs_of(nn.Linear(3, 3), Strict(CPU))
    assert made.step(INPUTS, ITEMS, ()) is None
    assert made.refused == "a step reads the device on the host: called a synchronizing CUDA operation"


def test_a_replay_that_differs_from_the_eager_step_is_refused():
    class Wrong(Again):
        def record(self, step):
            return lambda: (step(), made.shared[0].mul_(1.1))

    made = graphs_of(nn.Linear(3, 3), Wrong(CPU))
    assert made.step(INPUTS, ITEMS, ()) is None and made.refused == "a replayed step differs from the eager one"


def test_a_replaced_parameter_is_noticed():
    model = nn.Linear(3, 3)
    made = graphs_of(model, Frozen(CPU))
    first = made.step(INPUTS, ITEMS, ()).clone()
    model.weight = nn.Parameter(model.weight.detach() * 2)
    model.zero_grad()
    second = made.step(INPUTS, ITEMS, ()).clone()
    assert torch.equal(second, model(INPUTS["x"]).square().sum() / 2) and not torch.equal(first, second)
    model.zero_grad()
    model.bias.data = torch.ones(3)
    assert torch.equal(made.step(INPUTS, ITEMS, ()), model(INPUTS["x"]).square().sum() / 2)
    assert made.recorded == 3


@pytest.mark.parametrize("single", [True, False])
def test_gradients_add_up_as_in_autograd(single):
    model, plain = nn.Linear(3, 3), nn.Linear(3, 3)
    plain.load_state_dict(model.state_dict())
    made = graphs_of(model, Frozen(CPU), single)
    for step in range(3):
        for part in range(1 if single else 2):
            x = INPUTS["x"] + step + part
            made.step({"x": x}, ITEMS, ())
            (plain(x).square().sum() / 2).backward()
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), plain.parameters(), strict=True))
        model.zero_grad()
        plain.zero_grad()
    assert made.recorded == 1


def test_a_step_advances_the_generator_like_an_eager_one():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    made = graphs_of(model, Frozen(CPU))
    for seed in (3, 4):
        torch.manual_seed(seed)
        model.zero_grad()
        loss = made.step(INPUTS, ITEMS, ()).clone()
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(loss, model(INPUTS["x"]).square().sum() / 2) and torch.equal(after, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"mode": "off"}, "train.graphs=off"),
        ({"device": torch.device("meta")}, "the device is meta"),
        ({"processes": 2}, "2 processes"),
        ({"precision": "fp16"}, "fp16"),
        ({"shapes": MOST + 1}, f"{MOST + 1} graphs"),
        ({}, None),
    ],
)
def test_unsupported_settings_are_refused_in_advance(changed, because, recording):
    recording(Again)
    given = {"mode": "auto", "device": CPU, "precision": "bf16", "processes": 1, "shapes": MOST} | changed
    output = reason_against(**given)
    assert output is None if because is None else because in str(output)


def test_requiring_graphs_without_a_gpu_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"train\.graphs=on needs a GPU"):
        refuse(small(tmp_path, "train.graphs=on"))


def test_requiring_graphs_is_an_error_if_a_step_cannot_be_recorded(backbone, tmp_path, recording, monkeypatch):
    class Strict(Again):
        def strict(self):
            raise RuntimeError("it reads")

    recording(Strict)
    monkeypatch.setattr("rosa_bench.run.refuse", lambda run: None)
    options = (*FEW, "method=lora", f"model.path={backbone('roberta')}")
    with pytest.raises(RefusedError, match=r"train\.graphs=on: a step reads the device on the host: it reads"):
        run_experiment(small(tmp_path / "on", *options, "train.graphs=on"))
    record = run_experiment(small(tmp_path / "auto", *options))
    assert record.env["graphs"] == {"none": "a step reads the device on the host: it reads"}


def test_a_refusal_holds_for_a_resumed_run(backbone, tmp_path, recording):
    class Late(Again):
        """Refuses the second recording and fails the test on a third."""

        made = 0

        def record(self, step):
            Late.made += 1
            if Late.made == 2:
                raise RefusedError("the second")
            assert Late.made < 2
            return step

    recording(Late)
    options = (*FEW, "train.max_length=48", "method=dylora", f"model.path={backbone('roberta')}")
    run = small(tmp_path, *options)
    interrupt(run, 5)
    assert run_experiment(run).env["graphs"] == {"none": "the second"} and Late.made == 2


def test_padding_is_minimal_for_few_shapes():
    lengths = range(1, 129)
    assert [padded_length(n, 8, 128) for n in (1, 8, 9, 128)] == [8, 8, 16, 128]
    assert padded_length(125, 8, 126) == 126 and padded_length(126, 8, 126) == 126
    assert padding_multiple(lengths, 1, 128) == padding_multiple(lengths, 4, 128) == 8
    assert padding_multiple(lengths, 8, 128) == 16 and padding_multiple(lengths, 9, 128) == 32


@pytest.mark.parametrize("name", ["roberta_mini", "gpt2_mini"])
def test_padding_changes_no_loss(name):
    """Without dropout, because padding changes the shape of its masks."""
    _, model, _, rows = prepared("lora", name)
    model.eval()
    plain, padded = (collate(rows[:4], pad_id=1, multiple=m, limit=128) for m in (1, 24))
    assert padded["input_ids"].shape[1] % 24 == 0 and padded["input_ids"].shape[1] > plain["input_ids"].shape[1]
    assert padded.keys() == plain.keys()
    assert torch.allclose(model(**plain).loss, model(**padded).loss, rtol=1e-5)


def scalars(model: nn.Module) -> list[tuple[str, str, object]]:
    """Attributes of modules, other than tensors and modules, on which a forward pass may depend."""
    kinds = (bool, int, float, str, type(None))
    return [
        (name, key, value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, kinds)
    ]


@EACH
def test_steps_of_one_phase_have_equal_attributes(method):
    """Attributes other than tensors are frozen in a recording, so they must be equal for all steps of a phase."""
    run, model, _, _ = prepared(method, "roberta_mini")
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    seen: dict[object, list[tuple[str, str, object]]] = {}
    for index in range(24):
        step = Step(model, optimizer, index, per_epoch=10, seed=3, total=400)
        run.method.before_step(step)
        assert seen.setdefault(run.method.phase(step), scalars(model)) == scalars(model)
    assert len(seen) <= run.method.phases and METHODS
