"""`python -m rosa_bench.decode`: predict and score again with a finished run, using other options.

    python -m rosa_bench.decode results/runs/RUN --variant r2 r4 task.num_beams=10 task.no_repeat_ngram=4
    python -m rosa_bench.decode results/runs/RUN --split validation --out texts.txt data=local data.dir=DIR

RUN must have kept its weights (save=adapter or train.keep_checkpoints=true). The command trains nothing and leaves the
run's folder unchanged. Variants are those of the run's method, such as r1, r2, ... for the ranks of DyLoRA. The --out
file has one text per line, or JSON lines if its name ends in .jsonl or .jsonl.gz. You can set task.*, data.*,
data=embedded|local|hub, model.path, and train.{device,eval_batch_size,limit_eval,threads}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rosa_bench import config
from rosa_bench.config import saved_config
from rosa_bench.errors import EXIT_DONE, UsageError, nearest
from rosa_bench.metrics.scores import absences
from rosa_bench.records.record import read_finished
from rosa_bench.system import hub, progress
from rosa_bench.system.console import complain, tell
from rosa_bench.system.files import typed_path, unwritable
from rosa_bench.system.signals import command

if TYPE_CHECKING:
    from rosa_bench.core.task import Prediction
    from rosa_bench.evaluation.scorer import Scorer

FREE = ("model.path", "train.device", "train.eval_batch_size", "train.limit_eval", "train.threads")
ByVariant = dict[str, "list[Prediction]"]


def changed(folder: Path, overrides: Sequence[str]) -> config.Run:
    """The configuration of a run's folder with some keys changed.

    Raises:
        UsageError: if the folder is not a run's, or for a key that would change what was trained.
    """
    cfg = saved_config(folder)
    for override in sorted(overrides, key=lambda override: not override.startswith("data=")):  # data= replaces data.*
        key, equals, value = override.partition("=")
        if not equals:
            raise UsageError(f"{override!r} is not key=value")
        if key == "data":
            nodes = {name: node for group, name, node in config.group_nodes() if group == "data"}
            if value not in nodes:
                raise UsageError(f"data={value}: {nearest(value, nodes)}")
            cfg.data = nodes[value]
        elif key in FREE or key.startswith(("task.", "data.")):
            try:
                cfg.merge_with_dotlist([override])
            except (OmegaConfBaseException, YAMLError) as error:
                raise UsageError(f"{override}: {error}") from error
        else:
            raise UsageError(f"{key} cannot be changed after training; use only task.*, data.*, {', '.join(FREE)}")
    return config.resolve(cfg)


def chosen(run: config.Run, requested: Sequence[str]) -> list[str]:
    """The variants to decode: the requested ones or, if none are requested, the ones that the run scored."""
    available = run.method.every_variant()
    for name in requested:
        if name not in available:
            raise UsageError(f"--variant {name}: {nearest(name, [k for k in available if k])}")
    return list(dict.fromkeys(requested)) or run.method.variants()


def restored(run: config.Run, folder: Path, split: str) -> Scorer:
    """A scorer for the trained model of a run's folder on a split.

    Raises:
        UsageError: if the adapter is missing or damaged, or belongs to another backbone or method.
    """
    from rosa_bench.data.source import load_split
    from rosa_bench.evaluation.restore import trained_model
    from rosa_bench.evaluation.scorer import Scorer
    from rosa_bench.models.traits import max_length

    splits = {split: load_split(run.task, run.data, split, run.train.limit_eval)}
    model, tokenizer = trained_model(run, folder)
    length = max_length(model, run.train.max_length, run.method.extra_tokens)
    # In training its precision wraps the model's `forward`; that of a restored model has no wrapper.
    train = replace(run.train, eval_precision=run.train.eval_precision or run.train.precision)
    return Scorer(replace(run, train=train), model, tokenizer, splits, length)


def write(path: Path, by_variant: ByVariant) -> None:
    """Write predictions: one text per line for a single variant, or JSON lines for any number of variants."""
    from rosa_bench.records.predictions import prediction_row
    from rosa_bench.system.files import write_bytes, write_json_lines_gz

    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        (texts,) = by_variant.values()
        write_bytes(path, "".join(" ".join(str(p.value).splitlines()) + "\n" for p in texts).encode())
        return
    named = ((name, p) for name, predictions in by_variant.items() for p in predictions)
    rows = [({"variant": name} if name else {}) | prediction_row(prediction) for name, prediction in named]
    if path.suffix == ".gz":
        write_json_lines_gz(path, rows)
    else:
        write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def check_out(path: Path | None, variants: Sequence[str]) -> None:
    """Raise UsageError if the file cannot be written, before decoding."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or unwritable(folder) is not None:
        raise UsageError(f"--out {path} cannot be written")
    if len(variants) > 1 and not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UsageError(f"--out {path}: several variants need a file name that ends in .jsonl or .jsonl.gz")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rosa_bench.decode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=typed_path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--variant", nargs="+", action="extend", default=[], metavar="NAME", help="variants to score")
    parser.add_argument("--split", default="", help="the split to decode (default: the run's first scored split)")
    parser.add_argument("--out", type=typed_path, metavar="FILE", help="write the predictions to FILE")
    parser.add_argument("--json", action="store_true", help="print the scores as one JSON object")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options to change: task.num_beams=10 ...")
    args = parser.parse_intermixed_args(argv)
    # argparse assigns every word after --variant to it, including key=value
    args.overrides += [word for word in args.variant if "=" in word]
    args.variant = [word for word in args.variant if "=" not in word]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parsed(argv)
    try:
        run = changed(args.run, args.overrides)
        read_finished(args.run)
        split = args.split or run.task.scored_splits[0]
        variants = chosen(run, args.variant)
        check_out(args.out, variants)
        hub.prepare(run.needs_hub)
        with progress.showing(run.progress, plain_lines=not args.json):
            scorer = restored(run, args.run, split)
            by_variant = dict(scorer.predicted(split, variants))
        if args.out is not None:
            write(args.out, by_variant)
        scores = {name: run.task.score_parts(split, predictions) for name, predictions in by_variant.items()}
        facts = run.task.scoring_facts(scorer.splits[split].examples)
    except UsageError as error:
        return complain(str(error))
    by_split = {part: {name: scores[name][part] for name in variants} for part in scores[variants[0]]}
    summary = {"run": str(args.run), "task": run.task.name, "rows": len(scorer.splits[split].examples)}
    absent = absences((f"{part} {name}".strip(), s) for part, named in by_split.items() for name, s in named.items())
    if args.json:
        tell(json.dumps(summary | {"scores": by_split, "absent": absent, "scoring": facts}, ensure_ascii=False))
    else:
        tell(as_text(by_split, absent))
    return EXIT_DONE


def as_text(scores: Mapping[str, Mapping[str, Mapping[str, float]]], absent: Mapping[str, Any]) -> str:
    """One line per split and variant, then one per absent metric with the reason."""
    lines = []
    for split, by_variant in scores.items():
        for variant, metrics in by_variant.items():
            text = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            lines.append(f"{split:16}{variant:6}{text}")
    return "\n".join(lines + [f"{name} is absent: {reason}" for name, reason in absent.items()])


if __name__ == "__main__":
    sys.exit(command(main))
