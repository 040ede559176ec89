"""Converts E2E as used in LoRA's experiments, with tokenized references, to the layout of `data=local`.

    git clone https://github.com/microsoft/LoRA && git -C LoRA checkout c4593f0
    python scripts/lora_e2e.py LoRA/examples/NLG/data/e2e DIR
    python -m rosa_bench task=e2e task.scoring=lora data=local data.dir=DIR

A line of train.txt, valid.txt and test.txt is `key : value | key : value||reference`. A training row has one
reference; a row of another split is an input with all its references, in order of first appearance (`gpt2_decode.py`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SPLITS = {"train": "train", "valid": "validation", "test": "test"}


def rows(text: str, grouped: bool) -> list[dict[str, object]]:
    """The rows of one file. Raises ValueError, naming the line, if a line has no `||` or a pair no ` : `."""
    by_input: dict[str, list[str]] = {}
    out: list[dict[str, object]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        context, mark, reference = line.strip().partition("||")
        pairs = [pair.partition(" : ") for pair in context.split(" | ")]
        if not mark or not reference.strip() or not all(middle for _, middle, _ in pairs):
            raise ValueError(f"line {number} is not `key : value | ...||reference`: {line[:80]!r}")
        meaning = ", ".join(f"{key.strip()}[{value.strip()}]" for key, _, value in pairs)
        if grouped:
            by_input.setdefault(meaning, []).append(reference.strip())
        else:
            out.append({"meaning_representation": meaning, "human_reference": reference.strip()})
    return out + [{"meaning_representation": m, "human_references": refs} for m, refs in by_input.items()]


def main(source: Path, target: Path) -> None:
    """Convert the three files of a folder."""
    (target / "e2e_nlg").mkdir(parents=True, exist_ok=True)
    for name, split in SPLITS.items():
        path = source / f"{name}.txt"
        try:
            converted = rows(path.read_text(encoding="utf-8"), grouped=split != "train")
        except (OSError, ValueError) as error:
            raise SystemExit(f"{path}: {error}") from error
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in converted)
        (target / "e2e_nlg" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{target / 'e2e_nlg' / split}.jsonl: {len(converted)} rows")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*map(Path, sys.argv[1:]))
