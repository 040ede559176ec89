"""Linear probing: trained parameters, and refusal of generation tasks before anything is loaded."""

from __future__ import annotations

import pytest
from support import prepared, small

from rosa_bench import run as experiment
from rosa_bench.errors import UsageError


@pytest.mark.parametrize("name", ["roberta_mini", "gpt2_mini"])
def test_only_the_head_trains(name):
    _, model, _, _ = prepared("head", "roberta_mini", f"model={name}")
    inside = {id(p) for p in model.base_model.parameters()}
    assert all(p.requires_grad == (id(p) not in inside) for p in model.parameters())
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == (192 * 192 + 192 + 2 * 192 + 2 if name == "roberta_mini" else 2 * 192)


def test_generation_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match="method=head trains a task head, and task=e2e has none"):
        experiment.run(small(tmp_path, "method=head", "task=e2e"))
    assert not list(tmp_path.rglob("record.json"))
