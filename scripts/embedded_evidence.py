"""Shows that the embedded tasks distinguish methods: writes the tables of docs/background/embedded.md from records.

    python scripts/embedded_evidence.py [--jobs 2] [--seeds 1 2 3]

Three methods on `cola` and `e2e`, from the pre-trained and from a random backbone, three seeds each, and baselines
without a model. Records go to results/evidence/; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from slot_errors import slot_errors

from rosa_bench import embedded
from rosa_bench.metrics import find
from rosa_bench.metrics.conventions import score
from rosa_bench.metrics.metric import score_all
from rosa_bench.records.collect import collect
from rosa_bench.records.record import Record

ROOT = Path(__file__).resolve().parents[1]
DOC = ROOT / "docs" / "background" / "embedded.md"
RUNS = ROOT / "results" / "evidence"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
METHODS = ("full", "lora", "rosa")
CONSTANTS = 300  # training references tried as the constant sentence


def cells(seeds: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """The overrides of every run, quick runs first."""
    for task, random_init, method, seed in itertools.product(("cola", "e2e"), (False, True), METHODS, seeds):
        yield (
            f"task={task}",
            f"method={method}",
            f"seed={seed}",
            f"model.random_init={str(random_init).lower()}",
            f"output_dir='{RUNS}'",
            "tracker=none",
        )


def run_cell(overrides: Sequence[str]) -> None:
    """Run a cell in a new process; a finished one takes a second."""
    subprocess.run([sys.executable, "-m", "rosa_bench", *overrides], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def bag_of_words(ngrams: int) -> float:
    """Matthews on cola's validation split of a logistic regression over counts of 1- to n-grams."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train, test = embedded.rows("cola", "train"), embedded.rows("cola", "validation")
    model = make_pipeline(CountVectorizer(ngram_range=(1, ngrams)), LogisticRegression(max_iter=2000))
    model.fit([row["sentence"] for row in train], [row["label"] for row in train])
    predictions = model.predict([row["sentence"] for row in test]).tolist()
    return score_all([find("matthews")], predictions, [row["label"] for row in test])["matthews"]


def wrong_share(texts: Sequence[str]) -> float:
    """Percentage of the attributes of e2e's test inputs that these outputs miss or contradict."""
    rows = embedded.rows("e2e", "test")
    pairs = zip(rows, texts, strict=True)
    counts = [slot_errors("e2e", row["meaning_representation"], text) for row, text in pairs]
    return 100 * sum(errors for errors, _ in counts) / sum(total for _, total in counts)


def e2e_baselines() -> list[tuple[str, float, float]]:
    """The best constant sentence, and the copied input: name, BLEU, wrong attributes."""
    rows, train = embedded.rows("e2e", "test"), embedded.rows("e2e", "train")
    references = [row["human_references"] for row in rows]
    common = [text for text, _ in Counter(row["human_reference"] for row in train).most_common(CONSTANTS)]

    def bleu(texts: list[str]) -> float:
        return score("e2e", "official", texts, references, ["bleu"])["bleu"]

    constant = max(common, key=lambda text: bleu([text] * len(rows)))
    outputs = {
        f"best of {CONSTANTS} constant sentences": [constant] * len(rows),
        "copy of the input": [row["meaning_representation"] for row in rows],
    }
    return [(name, bleu(texts), wrong_share(texts)) for name, texts in outputs.items()]


def texts_of(record: Record) -> list[str]:
    """A record's outputs on e2e's test split, in file order."""
    path = RUNS / record.run_id / "predictions-test.jsonl.gz"
    return [json.loads(line)["prediction"] for line in gzip.decompress(path.read_bytes()).splitlines()]


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; a dash without values."""
    if not values:
        return "–"
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def last_scores(records: Sequence[Record]) -> list[float]:
    """Primary scores at the last epoch, without runs in which it is undefined."""
    return [record.primary["last"] for record in records if "last" in record.primary]


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows])


def code(record: Record) -> str:
    """The version of this package that wrote a record."""
    sha = str(record.env.get("git_sha", "an installed package"))[:8]
    return sha + (" with changes" if record.env.get("git_dirty") else "")


def report(records: Sequence[Record]) -> str:
    """Both tables."""
    groups: dict[tuple[str, bool, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.task, record.config["model"]["random_init"], record.method), []).append(record)
    cola, e2e = [], []
    for method in METHODS:
        first, second = (groups["cola", random, method] for random in (False, True))
        cola.append(
            [
                method,
                *(spread(last_scores(g)) for g in (first, second)),
                f"{first[0].params['trainable_percent']:.1f} %",
                spread([r.cost["train_s"] for r in first]),
            ]
        )
        for random, group in ((False, groups["e2e", False, method]), (True, groups["e2e", True, method])):
            e2e.append(
                [
                    f"{method}, {'random' if random else 'pre-trained'} backbone",
                    spread(last_scores(group)),
                    spread([wrong_share(texts_of(r)) for r in group]),
                ]
            )
    e2e += [[name, f"{value:.1f}", f"{wrong:.1f}"] for name, value, wrong in e2e_baselines()]
    words = "  \n".join(
        f"Logistic regression over {what}: {bag_of_words(n):.1f} Matthews."
        for n, what in ((1, "words"), (2, "words and word pairs"))
    )
    seeds = len({record.seed for record in records})
    return "\n\n".join(
        [
            f"`cola`, Matthews in points on validation, last epoch, mean ± sd over {seeds} seeds:",
            table(["method", "pre-trained", "random", "trainable", "training seconds"], cola),
            words,
            f"`e2e`, test split, mean ± sd over {seeds} seeds; wrong attributes: missed or contradicted, in percent:",
            table(["output", "BLEU", "wrong attributes"], e2e),
            f"Records made on {records[0].env['device']} by {', '.join(sorted({code(r) for r in records}))}.",
        ]
    )


def main() -> None:
    """Run the missing cells and rewrite the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    with ThreadPoolExecutor(args.jobs) as pool:
        threads = f"train.threads={max(1, (os.cpu_count() or 1) // args.jobs)}"
        list(pool.map(run_cell, [(*cell, threads) for cell in cells(args.seeds)]))
    records = [record for record in collect([RUNS]).records if record.seed in args.seeds]
    text = DOC.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOC.write_text(f"{before}{BEGIN}\n{report(records)}\n{END}{after}", encoding="utf-8")
    print(f"{len(records)} records; tables written to {DOC.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
