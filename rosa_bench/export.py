"""`python -m rosa_bench.export`: save a finished run's trained model as a plain model or a `peft` adapter.

    python -m rosa_bench.export results/runs/RUN --as merged
    python -m rosa_bench.export results/runs/RUN --as peft --variant r3

RUN must have kept its weights (save=adapter or train.keep_checkpoints=true). The model goes to RUN/merged or RUN/peft,
or with --variant NAME to RUN/merged-NAME or RUN/peft-NAME, unless --out names another folder. Variants are those of the
run's method, such as r1, r2, ... for the ranks of DyLoRA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rosa_bench import config
from rosa_bench.config import saved_config
from rosa_bench.errors import EXIT_DONE, UsageError, nearest
from rosa_bench.records.record import read_finished
from rosa_bench.system import hub
from rosa_bench.system.console import complain, tell
from rosa_bench.system.files import typed_path, unwritable
from rosa_bench.system.locks import claimed
from rosa_bench.system.signals import command


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rosa_bench.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=typed_path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--as", dest="form", choices=("merged", "peft"), required=True, help="what to write")
    parser.add_argument("--variant", metavar="NAME", help="variant to export (default: the main one)")
    parser.add_argument("--out", type=typed_path, metavar="FOLDER", help="write to FOLDER instead of the run's folder")
    parser.add_argument("--model-path", metavar="FOLDER", help="folder of the backbone, if it has moved")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parsed(argv)
    try:
        tell(f"exported: {exported(args)}")
    except UsageError as error:
        return complain(str(error))
    return EXIT_DONE


def exported(args: argparse.Namespace) -> Path:
    """Write the requested model; return its folder. Raises UsageError if that is not possible."""
    cfg = saved_config(args.run)
    cfg.data = config.node_dict(config.Data())  # no rows are read, and the folder of the run's rows may have moved
    if args.model_path is not None:
        cfg.model.path = args.model_path
    run = config.resolve(cfg)
    record = read_finished(args.run)
    variants = run.method.every_variant()
    variant = run.method.variants()[-1] if args.variant is None else args.variant
    if args.variant is not None and variant not in variants:
        raise UsageError(f"--variant {variant}: {nearest(variant, [name for name in variants if name])}")
    if args.out is not None and args.out.exists():
        raise UsageError(f"--out {args.out} already exists; choose another folder")
    parent = args.run if args.out is None else args.out.absolute().parent
    if (blocked := unwritable(parent)) is not None:
        raise UsageError(f"{args.out or args.run} cannot be written: {blocked}; choose another folder with --out")
    hub.prepare(run.needs_hub)
    from rosa_bench.evaluation import export
    from rosa_bench.evaluation.restore import trained_model

    export.refuse(run, args.form, f"--as {args.form}")
    model, tokenizer = trained_model(run, args.run)
    trained = export.Trained(run, model, tokenizer, record)
    folder: Path = args.out or args.run / trained.folder_name(args.form, variant)
    with claimed(args.run) if args.out is None else nullcontext():  # a run would clear the unfinished folder away
        if args.form == "merged":
            export.merged(trained, variant)
            export.save_merged(trained, folder, variant, trained.backbone())
            return folder
        try:
            export.save_peft(trained, {variant: folder})
        except export.ExportError as error:
            raise UsageError(f"--as peft: {error}; use --as merged") from error
    return folder


if __name__ == "__main__":
    sys.exit(command(main))
