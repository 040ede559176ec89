"""Export trained models for other programs: a merged `transformers` folder, or an adapter folder of `peft`.

Each folder has its tokenizer and a model card (README.md). An adapter is loaded with `peft` and compared with the
trained model before it is kept.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers

from rosa_bench import methods
from rosa_bench.config import Run
from rosa_bench.errors import UsageError, first_line
from rosa_bench.evaluation import predict
from rosa_bench.models.identity import source_of
from rosa_bench.models.load import load
from rosa_bench.models.roles import task_head
from rosa_bench.records.checkpoints import save_tensors
from rosa_bench.records.record import Record
from rosa_bench.system.files import write_bytes
from rosa_bench.system.seeds import seeds

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Form = Literal["merged", "peft"]
TEXTS = ("An exported model reads this sentence.", "It reads this one, too, and answers as before.")
# Allowed difference of logits, relative to the largest logit (at least 1); larger for weights in bf16.
BOUND, LOW_BOUND = 1e-4, 3e-2


class ExportError(Exception):
    """`peft` cannot represent the trained model, or computes different logits."""


@dataclass(frozen=True)
class Trained:
    """A trained model with the facts for its model card."""

    run: Run
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    record: Record

    def backbone(self) -> PreTrainedModel:
        """The model before its method was attached."""
        return load(self.run.model, self.run.task, seeds(self.run.seed).init)[0]

    def folder_name(self, form: Form, variant: str) -> str:
        """The folder name of a variant: `form` for the main variant, else `form-variant`."""
        return form if variant == self.run.method.variants()[-1] else f"{form}-{variant}"

    def folders(self, form: Form, folder: Path) -> dict[str, Path]:
        """The folder of every variant, below a run's folder."""
        method = self.run.method
        variants = dict.fromkeys([*method.every_variant(), method.variants()[-1]])
        return {variant: folder / self.folder_name(form, variant) for variant in variants}


def refuse(run: Run, form: Form, key: str) -> None:
    """Raise UsageError if a form is not supported; `key` is the option that requested it."""
    method, name = run.method, run.method.name
    forms = [*(["merged"] if method.mergeable and form != "merged" else []), "adapter"]
    instead = f"use {' or '.join(f'save={way}' for way in forms)}"
    if form == "merged" and not method.mergeable:
        raise UsageError(f"{key}: {name} cannot be merged; {instead}")
    if form == "peft" and run.task.builds_model:
        raise UsageError(f"{key}: task={run.task.name} builds its own model, which peft cannot load; {instead}")
    if form == "peft" and find_spec("peft") is None:
        raise UsageError(f"{key} needs the extra peft: pip install 'rosa_bench[peft]'")
    if form == "peft" and (reason := method.without_peft(run.task)) is not None:
        raise UsageError(f"{key}: method={name} {reason}; {instead}")


def save_peft(trained: Trained, folders: Mapping[str, Path]) -> float:
    """Write variants to their folders; return the largest difference of their logits from the trained model's.

    Raises:
        UsageError: if `peft` is not installed.
        ExportError: if `peft` cannot write or load an adapter, or computes different logits. Deletes that adapter.
    """
    run, model = trained.run, trained.model
    backbone = trained.backbone()
    heads = {id(parameter) for parameter in task_head(backbone)}
    head = {name for name, parameter in backbone.named_parameters() if id(parameter) in heads}
    differences = []
    for variant, folder in folders.items():
        with _from_peft(), _replaced(folder) as target, run.method.active(model, variant):
            adapter = run.method.to_peft(model, backbone, seeds(run.seed).method)
            config, tensors = adapter.config, dict(adapter.tensors)
            owners = _owners(model, head, adapter.covered)
            for owner in owners:
                state = model.get_submodule(owner).state_dict()
                tensors |= {f"base_model.model.{owner}.{key}": tensor for key, tensor in state.items()}
            if owners:
                config.modules_to_save = owners
            config.base_model_name_or_path = run.model.hub or str(Path(source_of(run.model)).resolve())
            config.revision = run.model.revision if run.model.hub else None
            config.task_type = "SEQ_CLS" if run.task.num_labels else "CAUSAL_LM"
            config.inference_mode = True
            config.save_pretrained(target)
            own = {key: tensor.detach().clone() for key, tensor in tensors.items()}  # some types share tensors
            save_tensors(own, target / "adapter_model.safetensors")
            trained.tokenizer.save_pretrained(target)
            write_bytes(target / "README.md", model_card(trained, "peft", variant).encode())
            expected = _logits(model, trained.tokenizer)
            from peft import PeftModel

            loaded: Any = PeftModel.from_pretrained(backbone, str(target))
            low = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
            bound = LOW_BOUND if low else BOUND
            differences.append(_difference(_logits(loaded, trained.tokenizer), expected, bound))
            if len(differences) < len(folders):
                backbone = loaded.unload()
    return max(differences)


@contextmanager
def _from_peft() -> Iterator[None]:
    """Convert errors of `peft` to ExportError and silence its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (UsageError, ExportError, OSError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ExportError(f"peft cannot represent this model ({reason})") from error


def _owners(model: PreTrainedModel, head: set[str], covered: set[str]) -> list[str]:
    """Modules to save completely: the task head's, and trained ones of the backbone that the adapter does not cover."""
    base = {id(parameter) for parameter in model.base_model.parameters()}
    owners = set()
    for name, parameter in model.named_parameters():
        inside = id(parameter) in base
        if name in head or (inside and parameter.requires_grad and name not in covered):
            owners.add(name.rpartition(".")[0] if inside else name.partition(".")[0])
    return sorted(owners)


def _difference(logits: list[torch.Tensor], expected: list[torch.Tensor], bound: float) -> float:
    """The largest difference of logits, ignoring virtual tokens. Raises ExportError if it exceeds the bound."""
    pairs = list(zip(logits, expected, strict=True))
    difference = max(float((a[-len(b) :] - b).abs().max()) for a, b in pairs)
    if not difference <= bound * max(1.0, *(float(b.abs().max()) for b in expected)):
        raise ExportError(f"peft computes logits from the adapter that differ by up to {difference:.2g}")
    return difference


def _logits(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[torch.Tensor]:
    """Logits [tokens, words] or [1, outputs] of each text by itself, in fp32 on the CPU."""
    logits = []
    with predict.evaluating(model), predict.full_precision(model):
        for text in TEXTS:
            inputs = tokenizer(text, return_tensors="pt")
            tensors = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
            logits.append(model(**tensors).logits.float().cpu().flatten(0, -2))
    return logits


def save_merged(trained: Trained, folder: Path, variant: str, backbone: PreTrainedModel) -> None:
    """Write a merged model, and restore the settings of the backbone's configuration that training changed."""
    model: Any = trained.model
    if hasattr(backbone.config, "use_cache"):
        model.config.use_cache = backbone.config.use_cache
    with _replaced(folder) as target:
        if model.can_generate():
            model.generation_config = transformers.GenerationConfig()  # a valid one, since saving validates it
        model.save_pretrained(target)
        if model.can_generate():
            model.generation_config = backbone.generation_config
            model.generation_config.to_json_file(target / "generation_config.json")
        trained.tokenizer.save_pretrained(target)
        write_bytes(target / "README.md", model_card(trained, "merged", variant).encode())


def merged(trained: Trained, variant: str) -> None:
    """Merge a variant in place."""
    with trained.run.method.active(trained.model, variant):
        methods.merge(trained.model)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces `folder` when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{os.urandom(4).hex()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def model_card(trained: Trained, form: Form, variant: str) -> str:
    """README.md of an export: task, method, scores, record, and how to load it."""
    run, record = trained.run, trained.record
    classifies = bool(run.task.num_labels)
    pipeline = "text-classification" if classifies else "text-generation"
    head = ["---", *([f"base_model: {run.model.hub}"] if run.model.hub else [])]
    head += [f"library_name: {'peft' if form == 'peft' else 'transformers'}", f"pipeline_tag: {pipeline}"]
    head += ["tags:", "- rosa_bench", f"- {run.method.name}", "---"]
    main = variant or (record.variant_names[-1] if record.variant_names else "")
    rows = {"task": run.task.name, "method": f"`{run.method!r}`", "backbone": run.model.hub or run.model.name}
    rows |= {"variant": variant} if variant else {}
    rows |= {
        f"{metric} ({split})": f"{value:.4g}"
        for split, by_variant in record.scores.items()
        for metric, value in by_variant.get(main, {}).items()
    }
    weights = record.facts.get("saved", {})
    rows |= {"epoch": f"{weights['epoch']:g}"} if "epoch" in weights else {}
    rows |= {"seed": str(run.seed), "record": f"`{record.run_id}`, key `{record.key}`"}
    rows |= {"made with": f"rosa_bench {version('rosa_bench')}"}
    names = getattr(trained.model.config, "id2label", None) if classifies else None
    rows |= {"labels": ", ".join(f"{i}: {name}" for i, name in names.items())} if names else {}
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    title = f"# {run.model.name} trained on {run.task.name} with {run.method.name}"
    return "\n".join([*head, "", title, "", *table, "", "```python", *_usage(run, form, pipeline), "```", ""])


def _usage(run: Run, form: Form, pipeline: str) -> list[str]:
    if form == "merged":
        return ["from transformers import pipeline", "", f'pipe = pipeline("{pipeline}", model="FOLDER")']
    cls = "AutoModelForSequenceClassification" if run.task.num_labels else "AutoModelForCausalLM"
    labels = f", num_labels={run.task.num_labels}" if run.task.num_labels else ""
    return [
        "from peft import PeftModel",
        f"from transformers import {cls}, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        f'backbone = {cls}.from_pretrained("BACKBONE"{labels}, pad_token_id=tokenizer.pad_token_id)',
        'model = PeftModel.from_pretrained(backbone, "FOLDER")',
    ]
