"""Weights that a run saves on request, during the run or later."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rosa_bench.config import Run
from rosa_bench.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rosa_bench.records.record import Record

FILES = {"adapter": "adapter/adapter.json", "merged": "merged/config.json", "peft": "peft/adapter_config.json"}


def lacking(run: Run, folder: Path, record: Record) -> list[str]:
    """The overrides whose weights are missing in the folder of a finished run.

    A run that `peft` cannot represent saved its adapter instead and lacks nothing.
    """
    overrides = []
    replaced = run.save == "peft" and "peft_error" in record.facts.get("saved", {})
    if run.save in FILES and not (folder / FILES["adapter" if replaced else run.save]).is_file():
        overrides.append(f"save={run.save}")
    if run.train.keep_checkpoints and not any(folder.glob("checkpoint-*")):
        overrides.append("train.keep_checkpoints=true")
    return overrides


def remove(folder: Path) -> None:
    """Delete the weights that an earlier run saved in its folder, including those of single variants."""
    for form in FILES:
        for path in (folder / form, *folder.glob(f"{form}-*")):
            shutil.rmtree(path, ignore_errors=True)


def add(run: Run, folder: Path, record: Record) -> None:
    """Write what a finished run lacks, from the trained weights that it kept as an adapter or a checkpoint.

    Raises:
        UsageError: if it kept no trained weights and must be trained again.
    """
    from rosa_bench.evaluation.restore import restored, trained_weights
    from rosa_bench.system.locks import claimed

    overrides = lacking(run, folder, record)
    if not overrides:
        return
    if run.save in ("merged", "peft"):
        from rosa_bench.evaluation import export

        export.refuse(run, run.save, f"save={run.save}")
    with claimed(folder):
        weights = None if "train.keep_checkpoints=true" in overrides else trained_weights(folder)
        if weights is None:
            missing = " ".join(overrides)
            raise UsageError(
                f"{folder} is finished and kept no trained weights for {missing}; "
                f"train it again with force=true {missing}"
            )
        model, tokenizer, backbone_hash = restored(run, folder, weights)
        save(run, model, tokenizer, folder, record, backbone_hash)


def save(
    run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    record: Record,
    backbone_hash: str,
) -> None:
    """Write the adapter, the merged model or the adapter for `peft`."""
    from rosa_bench.evaluation import export
    from rosa_bench.records.checkpoints import save_adapters

    if run.save == "adapter":
        save_adapters(model, run.method, folder, backbone_hash)
        return
    trained = export.Trained(run, model, tokenizer, record)
    if run.save == "merged":
        main = run.method.variants()[-1]
        export.merged(trained, main)
        export.save_merged(trained, folder / "merged", main, trained.backbone())
        return
    try:
        export.save_peft(trained, trained.folders("peft", folder))
    except export.ExportError as error:
        raise UsageError(f"save=peft: {error}; use save=merged or save=adapter") from error
