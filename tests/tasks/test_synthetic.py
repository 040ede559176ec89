"""`task=synthetic`: errors of low-rank updates against closed forms."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
import rosa_theory as theory
import torch
from support import composed

from rosa_bench.data.source import load_split
from rosa_bench.errors import UsageError
from rosa_bench.methods.rosa import Rosa
from rosa_bench.models.load import load
from rosa_bench.run import run as run_experiment

SIZES = ["inputs=24", "hidden=16", "outputs=12", "perturbation=6", "train_rows=320", "validation_rows=80"]
TINY = ["task=synthetic", *(f"task.{size}" for size in SIZES), "tracker=none", "train.device=cpu"]
RANK = 2


def least_squares(task):
    """Training vectors, labels minus the bias, the start weight and the true weight, each [.., I or O]."""
    drawn = task.world()
    start, true = (model.network["fc1"] for model in (drawn.start, drawn.true))
    X = drawn.vectors[: task.train_rows]
    return X, (drawn.labels[: task.train_rows] - start.bias).detach(), start.weight.T.detach(), true.weight.T.detach()


def trained(folder, *overrides):
    return run_experiment(composed(*TINY, f"output_dir={folder}", *overrides))


def test_an_unknown_split_is_refused():
    run = composed("task=synthetic", "task.scored_splits=[test]")
    with pytest.raises(UsageError, match="no split 'test'; choose from train, validation"):
        load_split(run.task, run.data, "test")


def test_labels_come_from_the_true_model_which_differs_by_a_known_rank():
    task = composed(*TINY, "task.layers=2").task
    drawn = task.world()
    for name, layer in drawn.true.network.items():
        difference = layer.weight.detach() - drawn.start.network[name].weight.detach()
        assert numpy.linalg.matrix_rank(difference.numpy(), rtol=1e-4) == 6
    first, second = (layer.weight.detach().numpy().T for layer in drawn.true.network.values())
    biases = [layer.bias.detach().numpy() for layer in drawn.true.network.values()]
    expected = numpy.maximum(drawn.vectors.numpy() @ first + biases[0], 0) @ second + biases[1]
    assert numpy.allclose(drawn.labels.numpy(), expected, rtol=1e-4, atol=1e-3)
    assert abs(drawn.vectors.std() - 1) < 0.03


def test_lora_reaches_the_floor_of_its_rank_and_rosa_that_of_full_fine_tuning(tmp_path):
    """The paper's claim, with the actual trainer."""
    X, Y, W, true = least_squares(composed(*TINY).task)
    start, floor = float((X @ W - Y).square().mean()), theory.floor(X, true - W, RANK)
    errors = {
        method: trained(tmp_path, f"method={method}", *options, "train.lr=0.05").scores["train"][""]["mse"]
        for method, *options in (["full"], ["lora", f"method.rank={RANK}"], ["rosa", f"method.rank={RANK}"])
    }
    assert floor > 0.2 * start
    assert floor * (1 - 1e-5) < errors["lora"] < 1.02 * floor
    assert errors["full"] < 1e-4 * start and errors["rosa"] < 1e-3 * start


@pytest.mark.parametrize("rank", [1, 2, 4, 5])
@pytest.mark.parametrize("variant", ["add", "random_add"])
def test_the_optimum_is_reached_at_the_step_the_theorem_says(variant, rank):
    X, Y, W, _ = least_squares(composed(*TINY).task)
    steps = math.ceil(6 / rank)
    result = theory.resampled(X, Y, W, Rosa(variant=variant), rank, torch.Generator().manual_seed(1))
    errors = list(itertools.islice(result, steps))
    start = float((X @ W - Y).square().mean())
    assert errors[-1] < 1e-9 * start and all(error > 1e-4 * start for error in errors[:-1])


def test_the_variant_equal_needs_more_steps():
    """`equal` first removes directions of the weight; restoring them costs rank."""
    X, Y, W, _ = least_squares(composed(*TINY).task)
    result = theory.resampled(X, Y, W, Rosa(), RANK, torch.Generator().manual_seed(1))
    errors = list(itertools.islice(result, 40))
    start = float((X @ W - Y).square().mean())
    assert errors[2] > 1e-3 * start > errors[-1]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(errors))


def test_the_floor_is_the_least_error_of_any_update_of_that_rank():
    X, Y, W, true = least_squares(composed(*TINY).task)
    first = next(theory.resampled(X, Y, W, Rosa(variant="random_add"), RANK, torch.Generator()))
    assert theory.floor(X, true - W, RANK) == pytest.approx(first, rel=1e-5)
    assert theory.floor(X, true - W, 6) < 1e-9 * theory.floor(X, true - W, 5)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("method", ["full", "lora", "dylora", "rosa"])
def test_every_method_trains_scores_and_merges(method, layers, tmp_path):
    record = trained(tmp_path, f"method={method}", f"task.layers={layers}", "train.max_steps=12", "save=adapter")
    assert record.scores["validation"][record.variant_names[-1]].keys() == {"mse", "r2"}
    assert record.facts["merge_within_bound"] and len(record.facts["update_rank"]) == layers
    assert not record.primary["higher_is_better"] and record.primary["best"] <= record.primary["last"]


def test_the_best_epoch_of_r2_is_the_highest(tmp_path):
    record = trained(tmp_path, "method=full", "task.primary=r2", "train.epochs=2")
    assert record.primary["higher_is_better"] and record.primary["best"] >= record.primary["last"]
    assert record.primary["best_epoch"] == 2


def test_the_world_is_the_same_for_every_seed_and_random_init_is_not():
    def weight(*overrides):
        run = composed(*TINY, *overrides)
        return load(run.model, run.task, run.seed)[0].network["fc1"].weight

    assert torch.equal(weight("seed=1"), weight("seed=2"))
    assert not torch.equal(weight("seed=1"), weight("seed=1", "model.random_init=true"))
    assert not torch.equal(weight(), weight("task.world_seed=7"))


@pytest.mark.parametrize(
    "overrides",
    [
        ("task=synthetic", "model=roberta_mini"),
        ("task=cola", "model=synthetic"),
        ("task=synthetic", "method=meft"),
        ("task=synthetic", "data=hub"),
        ("task=synthetic", "task.perturbation=40"),
    ],
)
def test_unsupported_combinations_are_one_line(overrides, tmp_path):
    with pytest.raises(UsageError) as error:
        run_experiment(composed(*overrides, "tracker=none", f"output_dir={tmp_path}"))
    assert "\n" not in str(error.value)
