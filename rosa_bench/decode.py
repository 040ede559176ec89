"""`python -m rosa_bench.decode`: predictions and scores of a finished run once more, in other ways than it was scored.

    python -m rosa_bench.decode results/runs/RUN --variant r2 r4 task.num_beams=10 task.no_repeat_ngram=4
    python -m rosa_bench.decode results/runs/RUN --split validation --out texts.txt data=local data.dir=DIR

RUN was trained with save=adapter; nothing is trained here and nothing in its folder is changed. Variants are those of
the run's method: DyLoRA has r1, r2, ... for its ranks. FILE of --out gets one text a line, or JSON lines if it is named
.jsonl or .jsonl.gz. What can be set: every key of the task and of the data, data=embedded|local|hub, model.path, and
train.{device,eval_batch_size,limit_eval,threads}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rosa_bench import config
from rosa_bench.config import saved_config
from rosa_bench.errors import EXIT_DONE, UsageError, nearest
from rosa_bench.system import hub
from rosa_bench.system.console import complain, tell
from rosa_bench.system.files import unwritable
from rosa_bench.system.signals import command

if TYPE_CHECKING:
    from rosa_bench.core.task import Prediction
    from rosa_bench.evaluation.scorer import Scorer

FREE = ("model.path", "train.device", "train.eval_batch_size", "train.limit_eval", "train.threads")
Found = dict[str, "list[Prediction]"]


def changed(folder: Path, overrides: Sequence[str]) -> config.Run:
    """The configuration of a run's folder with some keys changed.

    Raises:
        UsageError: if the folder is none of a run, or for a key that would change what was trained.
    """
    cfg = saved_config(folder)
    for override in overrides:
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
            raise UsageError(f"{key} cannot be changed after training; what can: task.*, data.*, {', '.join(FREE)}")
    return config.resolve(cfg)


def chosen(run: config.Run, wanted: Sequence[str]) -> list[str]:
    """The variants to decode: those that are asked for, or those the run was scored at."""
    known = run.method.every_variant()
    for name in wanted:
        if name not in known:
            raise UsageError(f"--variant {name}: {nearest(name, [k for k in known if k])}")
    return list(dict.fromkeys(wanted)) or run.method.variants()


def restored(run: config.Run, folder: Path, split: str) -> Scorer:
    """What scores the trained model of a run's folder on a split.

    Raises:
        UsageError: for a missing or damaged adapter, or one of another backbone or method.
    """
    from rosa_bench.data.source import load_split
    from rosa_bench.evaluation.restore import trained_model
    from rosa_bench.evaluation.scorer import Scorer
    from rosa_bench.models.traits import max_length

    splits = {split: load_split(run.task, run.data, split, run.train.limit_eval)}
    model, tokenizer = trained_model(run, folder)
    length = max_length(model, run.train.max_length, run.method.extra_tokens)
    return Scorer(run, model, tokenizer, splits, length)


def write(path: Path, found: Found) -> None:
    """The predictions: one text a line of one variant, or JSON lines of any number of them."""
    from rosa_bench.records.predictions import prediction_row
    from rosa_bench.system.files import write_bytes, write_json_lines_gz

    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        (texts,) = found.values()
        write_bytes(path, "".join(" ".join(str(p.value).splitlines()) + "\n" for p in texts).encode())
        return
    named = ((name, p) for name, predictions in found.items() for p in predictions)
    rows = [({"variant": name} if name else {}) | prediction_row(prediction) for name, prediction in named]
    if path.suffix == ".gz":
        write_json_lines_gz(path, rows)
    else:
        write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def check_out(path: Path | None, variants: Sequence[str]) -> None:
    """Raise UsageError for a file that could not be written, before anything is decoded."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or unwritable(folder) is not None:
        raise UsageError(f"--out {path} cannot be written")
    if len(variants) > 1 and not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise UsageError(f"--out {path}: several variants go into a file called .jsonl or .jsonl.gz")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rosa_bench.decode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--variant", nargs="+", action="extend", default=[], metavar="NAME")
    parser.add_argument("--split", default="", help="the run's first scored split if not said")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the predictions there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)
    # what follows the names after --variant is theirs for argparse, key=value included
    args.overrides += [word for word in args.variant if "=" in word]
    args.variant = [word for word in args.variant if "=" not in word]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Decode and score; returns the exit code."""
    args = parsed(argv)
    try:
        run = changed(args.run, args.overrides)
        split = args.split or run.task.scored_splits[0]
        variants = chosen(run, args.variant)
        check_out(args.out, variants)
        hub.prepare(run.needs_hub)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        scorer = restored(run, args.run, split)
        found = dict(scorer.predicted(split, variants))
        if args.out is not None:
            write(args.out, found)
        scores = {name: run.task.score_parts(split, predictions) for name, predictions in found.items()}
        facts = run.task.scoring_facts(scorer.splits[split].examples)
    except UsageError as error:
        return complain(str(error))
    by_split = {part: {name: scores[name][part] for name in variants} for part in scores[variants[0]]}
    told = {"run": str(args.run), "task": run.task.name, "rows": len(scorer.splits[split].examples)}
    absent = {k: v for parts in scores.values() for s in parts.values() for k, v in getattr(s, "absent", {}).items()}
    if args.json:
        tell(json.dumps(told | {"scores": by_split, "absent": absent, "scoring": facts}, ensure_ascii=False))
    else:
        tell(as_text(by_split, absent))
    return EXIT_DONE


def as_text(scores: Mapping[str, Mapping[str, Mapping[str, float]]], absent: Mapping[str, Any]) -> str:
    """A line per split and variant, then what is missing and why."""
    out = []
    for split, by_variant in scores.items():
        for variant, found in by_variant.items():
            told = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
            out.append(f"{split:16}{variant:6}{told}")
    return "\n".join(out + [f"{name} is absent: {reason}" for name, reason in absent.items()])


if __name__ == "__main__":
    sys.exit(command(main))
