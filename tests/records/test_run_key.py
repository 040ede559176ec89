"""A run's key contains the names of choices and the relevant fields, but no import paths."""

from __future__ import annotations

import copy
import sys
import types
from typing import Annotated

from recorded import config

from rosa_bench.config import Train, resolve
from rosa_bench.core.schema import NEUTRAL, Added, configured, key_marks
from rosa_bench.methods.lora import Lora
from rosa_bench.records.run_key import config_key, identity_parts


def test_marked_fields_are_omitted():
    @configured
    class Node:
        rank: int = 1
        threads: Annotated[int | None, NEUTRAL] = None
        scale: Annotated[float, Added(1.0)] = 1.0

    assert key_marks(Node) == (frozenset({"threads"}), {"scale": 1.0})
    assert "threads" in key_marks(Train)[0]


def test_an_added_field_counts_if_it_differs_from_its_marked_value():
    own = config("method=lora")
    without, other = copy.deepcopy(own), copy.deepcopy(own)
    del without["method"]["score_scale"]
    other["method"]["score_scale"] = "rank"
    assert identity_parts(without) == identity_parts(own) != identity_parts(other)


def test_a_class_that_moves_keeps_the_key(monkeypatch):
    module = types.ModuleType("rosa_bench_moved")
    module.Lora = Lora
    monkeypatch.setitem(sys.modules, "rosa_bench_moved", module)
    own = config("method=lora")
    moved = copy.deepcopy(own)
    moved["method"]["_target_"] = "rosa_bench_moved.Lora"
    assert config_key(resolve(own)) == config_key(resolve(moved))
    assert "rosa_bench" not in str(identity_parts(own))


def test_a_class_that_is_imported_later_counts_as_if_it_had_been_there(monkeypatch):
    own = config("method=lora")
    own["method"]["_target_"] = "rosa_bench_later.Lora"
    assert "score_scale" in identity_parts(own)["method"]
    module = types.ModuleType("rosa_bench_later")
    module.Lora = Lora
    monkeypatch.setitem(sys.modules, "rosa_bench_later", module)
    assert identity_parts(own) == identity_parts(config("method=lora"))


def test_another_choice_of_the_same_class_is_another_run():
    own = config("method=lora")
    other = copy.deepcopy(own)
    other["choices"]["method"] = "my_lora"
    assert config_key(resolve(own)) != config_key(resolve(other))
