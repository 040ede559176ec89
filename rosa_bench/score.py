"""`python -m rosa_bench.score`: score the output file of any system with a task's metrics.

    python -m rosa_bench.score --task e2e --predictions out.txt --references refs.jsonl
    python -m rosa_bench.score --task webnlg --predictions out.txt --split test [data=local data.dir=DIR]

The predictions file has one prediction per line: a text, a class or a score. References are JSON lines with a list
`references` (or `refs`; for GLUE, a `label`), blocks of texts separated by empty lines as in the E2E challenge, or a
split of the task.
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
from rosa_bench.metrics.scores import absences
from rosa_bench.system import hub
from rosa_bench.system.console import complain, tell
from rosa_bench.system.files import typed_path
from rosa_bench.system.signals import command
from rosa_bench.tasks.data2text import seen


def lines(path: Path) -> list[str]:
    """Read the lines of a text file, split at newlines only. The last line may lack a newline.

    Raises:
        UsageError: if the file cannot be read or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    parts = text.split("\n")
    return [line.removesuffix("\r") for line in (parts[:-1] if parts[-1] == "" else parts)]


def read_references(path: Path, task: Task) -> list[Example]:
    """Read the references of a file. Raises UsageError that names the file, line and field of a malformed row."""
    if path.suffix in (".jsonl", ".json", ".gz"):
        return [_reference(row, where, task) for row, where in json_lines(path)]
    if not task.kind.decodes:
        raise UsageError(f"{path}: task={task.name} needs labels as JSON lines with a field 'label' (.jsonl)")
    blocks: list[list[str]] = [[]]
    for line in lines(path):
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [Example(str(i), ("",), references=tuple(block)) for i, block in enumerate(filter(None, blocks))]


def _reference(row: Any, where: str, task: Task) -> Example:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
    if not task.kind.decodes:
        return Example(where, ("",), task.label(row, where))
    name = next((name for name in ("references", "refs", "human_references") if name in row), "references")
    return Example(where, ("",), references=tuple(texts_field(row, name, where)), subset=seen(row, where))


def predictions(path: Path, examples: Sequence[Example], task: Task) -> list[Prediction]:
    """Read the predictions of a file and pair them with their examples.

    Raises:
        UsageError: if the numbers of predictions and references differ, or a prediction is not a number, class or
            choice as the task requires.
    """
    texts = lines(path)
    if len(texts) != len(examples):
        raise UsageError(
            f"{path} has {len(texts)} lines, but there are {len(examples)} references; write one prediction per line"
        )
    if not texts:
        raise UsageError(f"{path} is empty, as are the references")
    return [
        Prediction(e.id, task.kind.read(text, f"{path}:{number}", task, e), e.label, e.references, subset=e.subset)
        for number, (text, e) in enumerate(zip(texts, examples, strict=True), start=1)
    ]


def scored(task: Task, split: str, rows: Sequence[Prediction]) -> dict[str, Mapping[str, float]]:
    """The scores of all predictions and of each subset. Raises UsageError for values that a metric rejects."""
    try:
        return task.score_parts(split, rows)
    except ValueError as error:
        raise UsageError(str(error)) from error


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m rosa_bench.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, metavar="NAME", help="task whose metrics to compute")
    parser.add_argument("--predictions", required=True, type=typed_path, metavar="FILE", help="outputs to score")
    parser.add_argument(
        "--references", type=typed_path, metavar="FILE", help="references to use instead of a split of the task"
    )
    parser.add_argument("--split", default="", help="split of the task (default: its first scored split)")
    parser.add_argument("--scoring", metavar="NAME", help="scoring convention, like task.scoring")
    parser.add_argument("--json", action="store_true", help="print the result as a JSON object")
    parser.add_argument("overrides", nargs="*", help="key=value, such as data=local data.dir=DIR")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
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
    absent = absences(scores.items())
    if args.json:
        result = {"task": run.task.name, "rows": len(examples), "scores": scores, "absent": absent, "scoring": facts}
        tell(json.dumps(result, ensure_ascii=False))
    else:
        tell(as_text(scores, absent, facts))
    return EXIT_DONE


def as_text(scores: Mapping[str, Mapping[str, float]], absent: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """Format the scores: a line per split and metric, absent metrics with reasons, and the convention."""
    out = [f"{split:16}{name:10}{value:10.4f}" for split, part in scores.items() for name, value in part.items()]
    out += [f"{'':16}{name:10}{'–':>10}  {reason}" for name, reason in absent.items()]
    if facts:
        out += ["", f"convention {facts['convention']}, {facts['references']} references"]
        out += [f"  {name:10}{text}" for name, text in facts["metrics"].items()]
    return "\n".join(out)


if __name__ == "__main__":
    sys.exit(command(main))
