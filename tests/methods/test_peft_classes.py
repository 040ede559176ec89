"""The bridge to `peft` on small backbones of classes other than RoBERTa and GPT-2."""

from __future__ import annotations

import pytest
import torch
from support import THIN, prepared, steps

from rosa_bench import methods
from rosa_bench.data.batches import collate
from rosa_bench.errors import UsageError
from rosa_bench.methods.peft import PROMPTS

pytest.importorskip("peft")


@pytest.mark.parametrize("name", ["bert", "bart", "opt"])
@pytest.mark.parametrize("preset", sorted(THIN))
def test_presets_work_on_other_classes(preset, name):
    """The added tensors train; mergeable adapters leave no modules behind."""
    if name == "bart" and preset.upper() in PROMPTS:
        with pytest.raises(UsageError, match=f"method={preset} is not supported with BartModel"):
            prepared(preset, name)
        return
    run, model, _, rows = prepared(preset, name)
    names = {n for n, p in model.named_parameters() if p.requires_grad and not n.startswith("classif")}
    before = {n: p.detach().clone() for n, p in model.named_parameters() if n in names}
    steps(run, model, rows, 2, run.method.lr["mini"])
    moved = {n for n, p in model.named_parameters() if n in names and not torch.equal(p, before[n])}
    assert names and len(moved) >= 0.9 * len(names)
    if run.method.mergeable:
        batch = {key: value for key, value in collate(rows, pad_id=1).items() if key != "labels"}
        with torch.no_grad():
            expected = model.eval()(**batch).logits
            assert torch.allclose(methods.merge(model)(**batch).logits, expected, atol=2e-4)
