"""Two processes on one machine (gloo) against one process with the same effective batch size."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import EACH, METHODS, SMALL, skip_refused, small

from rosa_bench.errors import UsageError
from rosa_bench.records import checkpoints
from rosa_bench.records.record import read_record
from rosa_bench.run import refuse
from rosa_bench.run import run as run_experiment


@pytest.fixture(scope="module")
def undropped(backbone, tmp_path_factory):
    """Backbones without dropout, since its masks differ between processes."""

    def get(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(f"undropped-{kind}") / kind
        shutil.copytree(backbone(kind), folder)
        content = json.loads((folder / "config.json").read_text())
        names = [name for name in content if name.endswith(("_dropout_prob", "_pdrop"))]
        (folder / "config.json").write_text(json.dumps(content | dict.fromkeys(names, 0.0)))
        return folder

    return get


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="batch_size=8 is not a multiple of 2 examples x 3 processes; change"):
        refuse(small(tmp_path, "train.batch_size=8"))
    refuse(small(tmp_path, "train.batch_size=9"))


def overrides_of(method: str, kind: str, folder: Path) -> tuple[str, ...]:
    task = "e2e" if kind == "gpt2" else "cola"
    same = "train.threads=1"  # torchrun's default; an SVD on two threads is rounded otherwise
    return (f"method={method}", f"task={task}", f"model.path={folder}", "save=adapter", "train.lr=1e-4", same)


def two_processes(
    folder: Path, *overrides: str, program: Sequence[str] = ("-m", "rosa_bench"), timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*torchrun, *program, *SMALL, *overrides, f"output_dir='{folder}'"],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


WATCHED = """
import os, sys
from rosa_bench import cli

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
seen = os.open(__file__ + ".seen", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def watch(event, values):
    written = event == "open" and (values[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    if (written or event in CHANGES) and "written by" in str(values):
        os.write(seen, f"{os.environ['RANK']} {event} {values[0]}\\n".encode())

sys.addaudithook(watch)
sys.exit(cli.main())
"""


def changes(lines: Sequence[str], rank: int) -> set[str]:
    """What a process created, changed or deleted below the output folder, except its random state.

    Each process stores its random state in its own file in the checkpoint, whose folder it creates if needed.
    """
    own = [line.partition(" ")[2] for line in lines if line.startswith(f"{rank} ")]
    return {
        line
        for line in own
        if not line.endswith(f"/rng_state_{rank}.pth") and not re.fullmatch(r"os\.mkdir .*/checkpoint-\d+", line)
    }


QUICK = {("rosa", "roberta"), ("meft", "gpt2")}  # the others take as long again; they are run by make test-slow
PAIRS = [
    pytest.param(method, kind, marks=[] if (method, kind) in QUICK else pytest.mark.slow)
    for method in METHODS
    for kind in ("roberta", "gpt2")
]


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_two_processes_train_like_one(method, kind, undropped, tmp_path):
    skip_refused(method, f"{kind}_mini")
    overrides = overrides_of(method, kind, undropped(kind))
    one = run_experiment(small(tmp_path / "one", *overrides))
    (tmp_path / "watched.py").write_text(WATCHED)
    folder = tmp_path / "written by önė"  # torch opens a file of such a name by Python, where it can be watched
    done = two_processes(folder, *overrides, program=(str(tmp_path / "watched.py"),))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("record: ") == 1
    lines = (tmp_path / "watched.py.seen").read_text().splitlines()
    assert any(line.startswith("1 open") and line.endswith("rng_state_1.pth") for line in lines), lines
    assert len(changes(lines, 0)) > 10 and changes(lines, 1) == set()
    two = read_record(folder / one.run_id / "record.json")
    assert two.status == "done" and two.key == one.key and two.env["processes"] == 2
    name = "adapter/adapter.safetensors"
    first, second = (load_file(place / one.run_id / name) for place in (tmp_path / "one", folder))
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.allclose(tensor, second[key], atol=3e-5), (key, (tensor - second[key]).abs().max())
    for count in ("tokens_per_s", "padding_fraction"):
        assert count in two.cost
    assert two.facts["init_hash"] == one.facts["init_hash"]


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
@EACH
def test_accumulated_gradients_train_like_one_batch(method, kind, undropped, tmp_path):
    skip_refused(method, f"{kind}_mini")
    overrides = overrides_of(method, kind, undropped(kind))
    runs = [small(tmp_path / str(size), *overrides, f"train.micro_batch_size={size}") for size in (8, 2)]
    records = [run_experiment(run) for run in runs]
    assert records[0].key == records[1].key
    states = [load_file(Path(r.output_dir) / records[0].run_id / "adapter/adapter.safetensors") for r in runs]
    for key, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][key], atol=3e-5), key


@pytest.mark.slow
def test_two_processes_resume_from_a_checkpoint(undropped, tmp_path):
    overrides = overrides_of("rosa", "roberta", undropped("roberta"))
    whole = two_processes(tmp_path / "whole", *overrides)
    assert whole.returncode == 0, whole.stderr[-3000:]
    kept = two_processes(tmp_path / "parts", *overrides, "train.keep_checkpoints=true")
    assert kept.returncode == 0, kept.stderr[-3000:]
    (folder,) = (tmp_path / "parts").glob("cola-*")
    checkpoints.remove(p for p in checkpoints.checkpoints(folder) if p.name != "checkpoint-4")
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    again = two_processes(tmp_path / "parts", *overrides, "resume=must")
    assert again.returncode == 0 and "resuming from step 4" in again.stdout, again.stderr[-3000:]
    name = f"{folder.name}/adapter/adapter.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


DYING = """
import itertools, os, signal, sys
import transformers
from rosa_bench import cli

begun = itertools.count(1)
step = transformers.Trainer.training_step

def dying(*args, **kwargs):
    if os.environ["RANK"] == "1" and next(begun) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*args, **kwargs)

transformers.Trainer.training_step = dying
sys.exit(cli.main())
"""


@pytest.mark.slow
@EACH
def test_a_dead_process_ends_the_job_and_the_same_command_resumes(method, undropped, tmp_path):
    skip_refused(method, "roberta_mini")
    overrides = (*overrides_of(method, "roberta", undropped("roberta")), "train.checkpoint_steps=4")
    (tmp_path / "dying.py").write_text(DYING)
    whole = two_processes(tmp_path / "whole", *overrides)
    assert whole.returncode == 0, whole.stderr[-3000:]
    ended = two_processes(tmp_path / "parts", *overrides, program=(str(tmp_path / "dying.py"),))
    assert ended.returncode == 1
    (folder,) = (tmp_path / "parts").glob("cola-*")
    assert read_record(folder / "record.json").status in ("failed", "interrupted", "running")
    again = two_processes(tmp_path / "parts", *overrides)
    assert again.returncode == 0 and "resuming from step 4" in again.stdout, again.stderr[-3000:]
    name = f"{folder.name}/adapter/adapter.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 7, 24, 25])
def test_two_processes_predict_every_row_once(rows, undropped, tmp_path):
    overrides = (*overrides_of("lora", "roberta", undropped("roberta")), f"train.limit_eval={rows}")
    done = two_processes(tmp_path, *overrides)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.glob("cola-*/predictions-validation.jsonl.gz")
    ids = [json.loads(line)["id"] for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert len(ids) == len(set(ids)) == rows
