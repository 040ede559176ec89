"""`python -m rosa_bench.score`: scores the output file of any system with a task's metrics.

    python -m rosa_bench.score --task e2e --predictions out.txt --references refs.jsonl
    python -m rosa_bench.score --task webnlg --predictions out.txt --split test [data=local data.dir=DIR]

Predictions are one a line: a text, a class or a score. References are JSON lines with a list `references` (or `refs`;
for GLUE a `label`), texts in blocks between empty lines as the E2E challenge has them, or a split of the task.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rosa_bench.config.compose import compose
from rosa_bench.core.fields import texts_field
from rosa_bench.core.task import Example, Prediction, Task
from rosa_bench.data.source import json_lines, load_split
from rosa_bench.errors import EXIT_DONE, UsageError
from rosa_bench.system import hub
from rosa_bench.system.console import complain, tell
from rosa_bench.system.signals import command
from rosa_bench.tasks.data2text import seen


def lines(path: Path) -> list[str]:
    """The lines of a text file, split at newlines only; the last one needs no newline.

    Raises:
        UsageError: if it cannot be read or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    found = text.split("\n")
    return [line.removesuffix("\r") for line in (found[:-1] if found[-1] == "" else found)]


def read_references(path: Path, task: Task) -> list[Example]:
    """The references of a file. Raises UsageError that names file, line and field where it is malformed."""
    if path.suffix in (".jsonl", ".json", ".gz"):
        return [_reference(row, where, task) for row, where in json_lines(path)]
    if not task.kind.decodes:
        raise UsageError(f"{path}: labels are read from JSON lines with a field 'label'")
    blocks: list[list[str]] = [[]]
    for line in lines(path):
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [Example(str(i), ("",), references=tuple(block)) for i, block in enumerate(filter(None, blocks))]


def _reference(row: Any, where: str, task: Task) -> Example:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: a row is a JSON object, not {type(row).__name__}")
    if not task.kind.decodes:
        return Example(where, ("",), task.label(row, where))
    name = next((name for name in ("references", "refs", "human_references") if name in row), "references")
    return Example(where, ("",), references=tuple(texts_field(row, name, where)), subset=seen(row, where))


def predictions(path: Path, examples: Sequence[Example], task: Task) -> list[Prediction]:
    """The predictions of a file beside what they are compared with.

    Raises:
        UsageError: if there are more or fewer than references, or one is not a number where numbers are wanted, or no
            class or choice there is.
    """
    found = lines(path)
    if len(found) != len(examples):
        raise UsageError(f"{path} has {len(found)} lines, the references {len(examples)}: one prediction a line")
    if not found:
        raise UsageError(f"{path} is empty, and so are the references")
    values = [
        task.kind.read(text, f"{path}:{number}", task, example)
        for number, (text, example) in enumerate(zip(found, examples, strict=True), start=1)
    ]
    return [
        Prediction(e.id, value, e.label, references=e.references, subset=e.subset)
        for e, value in zip(examples, values, strict=True)
    ]


def scored(task: Task, split: str, found: Sequence[Prediction]) -> dict[str, Mapping[str, float]]:
    """The scores of the whole and of its subsets. Raises UsageError for values that no metric can take."""
    try:
        return task.score_parts(split, found)
    except ValueError as error:
        raise UsageError(str(error)) from error


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rosa_bench.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, metavar="NAME")
    parser.add_argument("--predictions", required=True, type=Path, metavar="FILE")
    parser.add_argument("--references", type=Path, metavar="FILE", help="instead of a split of the task")
    parser.add_argument("--split", default="", help="of the task's rows; its first scored split if not said")
    parser.add_argument("--scoring", metavar="NAME", help="the convention, as task.scoring")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("overrides", nargs="*", help="key=value, such as data=local data.dir=DIR")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Score a file and print the metrics; returns the exit code."""
    args = parsed(argv)
    try:
        convention = [f"task.scoring={args.scoring}"] if args.scoring else []
        run = compose([f"task={args.task}", *convention, *args.overrides])
        split = args.split or run.task.scored_splits[0]
        if args.references is not None:
            examples = read_references(args.references, run.task)
        else:
            hub.prepare(run.needs_hub)
            examples = list(load_split(run.task, run.data, split).examples)
        scores = scored(run.task, split, predictions(args.predictions, examples, run.task))
        facts = run.task.scoring_facts(examples)
    except UsageError as error:
        return complain(str(error))
    absent = {name: reason for found in scores.values() for name, reason in getattr(found, "absent", {}).items()}
    if args.json:
        told = {"task": run.task.name, "rows": len(examples), "scores": scores, "absent": absent, "scoring": facts}
        tell(json.dumps(told, ensure_ascii=False))
    else:
        tell(as_text(scores, absent, facts))
    return EXIT_DONE


def as_text(scores: Mapping[str, Mapping[str, float]], absent: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """A line per split and metric, what is missing and why, and how each metric is computed."""
    out = [f"{split:16}{name:10}{value:10.4f}" for split, found in scores.items() for name, value in found.items()]
    out += [f"{'':16}{name:10}{'–':>10}  {reason}" for name, reason in absent.items()]
    if facts:
        out += ["", f"convention {facts['convention']}, {facts['references']} references"]
        out += [f"  {name:10}{text}" for name, text in facts["metrics"].items()]
    return "\n".join(out)


if __name__ == "__main__":
    sys.exit(command(main))
