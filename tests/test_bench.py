"""The benchmark scripts: counts, the contender `Ours`, and a toy pass of every part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import composed

from rosa_bench.models import onednn
from rosa_bench.records.checkpoints import trained_state
from rosa_bench.run import run as run_experiment

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
QUICK = {"limit"}  # the others are slow even in toy size
PARTS = ("decoding", "dylora", "limit", "memory", "refactor", "scale", "start", "steps", "training")


@pytest.fixture(autouse=True)
def _bench(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_contenders_take_turns_and_every_other_round_is_backwards():
    from bench.harness import alternate, ratios

    order: list[str] = []
    measured = alternate({name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert measured == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert ratios(measured, "c", "a") == [3, 4 / 6, 9 / 7]


def test_medians_and_targets():
    from bench.harness import Target, quartiles, spread

    assert quartiles([5, 1, 2, 3, 4]) == (2, 3, 4) and quartiles([7.0]) == (7, 7, 7)
    assert spread([1.0, 2.0, 1234.0]) == "2 (1.5 to 618)"
    assert Target("", 2, 2).met and not Target("", 1.99, 2).met
    assert Target("", 2, 2, at_least=False).met and "**missed**" in Target("", 2.1, 2, at_least=False).line()


def test_parts_are_added_to_one_file(tmp_path):
    from bench.harness import Options, Result, Target, run_part

    def measured(value):
        return lambda _: Result([[("a", "b"), ("1", str(value))]], [Target("c", value, 2)], ["d"], {"e": value})

    options = Options(threads=torch.get_num_threads())
    for name, value in (("one", 1), ("two", 2), ("one", 3)):
        path = run_part(name, measured(value), options, tmp_path)
    parts = json.loads(path.read_text())
    assert {name: part["numbers"]["e"] for name, part in parts.items()} == {"one": 3, "two": 2}
    assert parts["one"]["targets"] == [{"what": "c", "value": 3, "bound": 2, "at_least": True, "met": True}]
    page = path.with_suffix(".md").read_text()
    assert "| a | b |\n|---|---|\n| 1 | 3 |" in page and "| 1 | 2 |" in page and "load" in page


def test_operations_of_products_are_counted():
    from bench.limit import Operations

    x, W = torch.randn(7, 9, requires_grad=True), torch.randn(9, 11, requires_grad=True)
    with Operations() as counter:
        (x @ W).sum().backward()
    assert counter.by.total() == 3 * 2 * 7 * 9 * 11  # the product, and one for each gradient
    if onednn.available():
        with Operations() as counter:
            torch.ops.mkldnn._linear_pointwise(torch.randn(2, 5, 9), torch.randn(4, 9), None, "none", [], "")
        assert counter.by.total() == 2 * 2 * 5 * 9 * 4


def test_the_formula_of_activations_is_solved():
    from bench.memory import predicted

    def activations(length, batch, layers):
        return batch * (3 * length + 5 * length * layers + 2 * length**2 + 7 * length**2 * layers)

    first_cells = [(64, 8, 1), (128, 8, 1), (64, 8, 2), (128, 8, 2)]
    cells = {cell: activations(*cell) for cell in first_cells}
    assert predicted(cells, (512, 64, 12)) == pytest.approx(activations(512, 64, 12))


def test_ours_trains_what_a_run_trains(tmp_path):
    """Bitwise: the same batches, hooks, schedule and updates from the same weights."""
    from bench.ours import Ours
    from bench.shapes import folder

    with folder("toy") as model:
        options = ["method=dylora", "train.limit_train=40", "train.batch_size=8", "train.lr=0.01"]
        ours = Ours(options, model, tmp_path / "ours")
        clock = ours.train(4)
        run_options = [f"model.path={model}", "train.max_steps=4", "train.limit_eval=8", "save=adapter"]
        cfg = composed("task=cola", "tracker=none", *options, *run_options, f"output_dir={tmp_path / 'run'}")
        record = run_experiment(cfg)
    saved = load_file(tmp_path / "run" / record.run_id / "adapter" / "adapter.safetensors")
    trained = trained_state(ours.model, ours.run.method)
    assert saved.keys() == trained.keys() and all(torch.equal(saved[name], trained[name]) for name in saved)
    assert len(clock.began) == len(clock.ended) == 4 and clock.total > clock.last > 0
    assert ours.recorder.activations == record.cost["memory"]["activations"]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's
def test_precisions_do_not_mix(tmp_path):
    """Training alternates between bf16 and fp32 for ours and the peer's model without leaving wrappers behind."""
    from bench.ours import Ours
    from bench.peers import Peer
    from bench.shapes import folder

    autocast: list[bool] = []
    with folder("toy") as model:
        overrides = ("method=lora", "train.limit_train=8", "train.batch_size=4")
        ours = {p: Ours((*overrides, f"train.precision={p}"), model, tmp_path / p) for p in ("fp32", "bf16")}
        peer = Peer(model, tmp_path, lora=True)
    for model in (ours["fp32"].model, ours["bf16"].model, peer.model):
        model.base_model.register_forward_pre_hook(
            lambda *_: autocast.append(any(map(torch.is_autocast_enabled, ("cpu", "cuda"))))
        )
    for precision in ("bf16", "fp32", "bf16"):
        trained = ours[precision]
        trained.train(1)
        peer.train(trained.rows, trained.run.train, 1)
        assert autocast == [precision == "bf16"] * 2 and "forward" not in vars(peer.model) | vars(trained.model)
        autocast.clear()


@pytest.mark.parametrize("part", [pytest.param(p, marks=[] if p in QUICK else [pytest.mark.slow]) for p in PARTS])
def test_a_toy_pass_of_every_part(part, tmp_path):
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--part", part, "--quick", "--threads", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("*-quick.json")
    entry = json.loads(path.read_text())[part]
    assert entry["options"]["quick"] and entry["targets"] and entry["numbers"]
    assert "toy pass" in path.with_suffix(".md").read_text()


def test_the_command_names_every_module():
    import benchmark

    modules = {path.stem for path in (SCRIPTS / "bench").glob("*.py")} - {
        "__init__",
        "harness",
        "ours",
        "peers",
        "shapes",
    }
    assert modules == {*benchmark.PARTS} == {*PARTS}


GPU_QUICK = {"capture", "streams", "split"}


def gpu_bench(*options: str, **more):
    command = [sys.executable, str(SCRIPTS / "bench_gpu.py"), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, **more)


def test_the_gpu_benchmark_without_a_gpu_prints_one_line():
    done = gpu_bench()
    assert done.returncode == 2 and "no CUDA GPU" in done.stdout and done.stdout.count("\n") == 1 and not done.stderr


def test_the_gpu_benchmark_fits_into_eight_minutes():
    import bench_gpu

    assert bench_gpu.LIMIT_S == 480 and all(limit < bench_gpu.LIMIT_S for _, limit in bench_gpu.PARTS.values())


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(p, marks=[] if p in GPU_QUICK else [pytest.mark.slow])
        for p in ("capture", "exact", "short", "streams", "split", "medium", "long", "decoding")
    ],
)
def test_a_toy_pass_of_every_gpu_part(part, tmp_path):
    """On the CPU, without graphs; a second call skips the measured part."""
    options = ("--quick", "--part", part, "--out", str(tmp_path))
    done = gpu_bench(*options)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("no-gpu-quick.json")
    parts = json.loads(path.read_text())
    assert set(parts) == {part} and parts[part]["targets"] and parts[part]["numbers"]
    assert "already measured" in gpu_bench(*options).stdout
