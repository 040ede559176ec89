"""Measurements of a trained model's weights."""

from __future__ import annotations

import copy

import torch
from classes import made

from rosa_bench.evaluation.diagnostics import update_facts
from rosa_bench.models.roles import find_sites, weight_IO


def test_a_weight_that_was_zero_has_no_relative_update():
    before = made("roberta")
    first, second, *_ = find_sites(before, ["q", "k"])
    with torch.no_grad():
        weight_IO(before.get_submodule(first.name)).zero_()
        after = copy.deepcopy(before)
        for site in (first, second):
            weight_IO(after.get_submodule(site.name))[0, 0] += 1.0
    facts = update_facts(before, after)
    assert facts["update_rank"] == {first.label: 1, second.label: 1}
    assert facts["update_relative_norm"].keys() == {second.label}
