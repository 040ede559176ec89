"""Hand-made records and grids for the tests of tables, plots and the page."""

from __future__ import annotations

import statistics

from rosa_bench.records.record import Record
from rosa_bench.tables.grid import Against, Column, Grid, Place, Printed, Row, Score, Verdict

COLA = Column("cola", "matthews", "validation")
MSE = Column("synthetic", "mse", "train", higher_is_better=False)
MEMORY = {"weights": 4_000_000, "gradients": 1_000_000, "optimizer": 2_000_000, "activations": 3_000_000}


def record(task="cola", method="lora", seed=1, last=50.0, rank=8, **more):
    """A finished record. `more` replaces its fields; `settings` adds options of the method."""
    settings = {"_target_": method} | ({} if rank is None else {"rank": rank}) | more.pop("settings", {})
    values = {
        "run_id": f"{task}-m-{method}-s{seed}-{rank}",
        "key": f"{seed:064x}",
        "task": task,
        "model": "m",
        "method": method,
        "seed": seed,
        "config": {
            "model": {"name": "m", "random_init": False},
            "method": settings,
            "task": {"name": task},
            "data": {"source": "embedded"},
            "train": {"lr": 0.1, "device": "cpu"},
            "seed": seed,
            "output_dir": "results/runs",
        },
        "status": "done",
        "variant_names": [""],
        "data": {"source": "embedded v1", "sha256": {"train": "aa11", "validation": "bb22"}},
        "scores": {"validation": {"": {"matthews": last}}},
        "primary": {
            "metric": "matthews",
            "higher_is_better": True,
            "split": "validation",
            "last": last,
            "best": last + 1,
        },
        "params": {"trainable": 1000},
        "cost": {"memory": MEMORY, "train_s": 5.0, "method_s": 1.0, "eval_s": 2.0, "cpu_s": 10.0 + seed},
        "env": {"device": "cpu (made)", "python": "3.11", "packages": {"torch": "2.6"}},
    }
    return Record(**(values | more))


def score(*values):
    """The score of seeds 1, 2, ...; for several, with an interval of two standard deviations."""
    mean, sd = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    low, high = (None, None) if sd is None else (mean - 2 * sd, mean + 2 * sd)
    return Score(dict(enumerate(values, 1)), mean, statistics.median(values), sd, low, high)


def place(*values, best=None, **more):
    """A place whose runs scored `values` at the last epoch and, by default, one point more at the best."""
    records = tuple(record(seed=seed, last=value) for seed, value in enumerate(values, 1))
    scores = {"last": score(*values), "best": score(*(best or [v + 1 for v in values]))} if values else {}
    return Place(**({"scores": scores, "records": records} | more))


def grid(*rows, columns=(COLA,), **more):
    """A grid of rows (label, places in the order of the columns)."""
    made = [Row(label, (1000,), places=dict(zip(columns, places, strict=False))) for label, *places in rows]
    return Grid(
        **({"name": "t", "title": "m on embedded v1", "columns": columns, "rows": made, "epoch": "last"} | more)
    )


NOT_COMPARABLE = {
    "printed": Printed(63.4, 1.2, 1, "median of five"),
    "verdict": Verdict(-13.4, "not comparable", ("other model size", "other data")),
}
WORSE = {"against": Against("lora", -3.0, 0.01, better=False, holds=True, test="paired bootstrap")}
BETTER = {"against": Against("lora", 3.0, 0.01, better=True, holds=True, test="paired bootstrap")}
OPEN = {"against": Against("lora", 3.0, 0.4, better=True, holds=False, test="paired bootstrap")}
