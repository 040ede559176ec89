"""Runs from outside: folder and record, and stopping, killing, repeating and failing."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support import SMALL, composed, interrupt, small, without_cost

from rosa_bench import cli
from rosa_bench.errors import UsageError
from rosa_bench.evaluation.scorer import with_perplexity
from rosa_bench.records import checkpoints
from rosa_bench.records.record import read_record
from rosa_bench.records.recorder import status_of
from rosa_bench.records.run_key import config_key, run_id
from rosa_bench.run import run as run_experiment
from rosa_bench.training import trainer


def folder_of(run) -> Path:
    return Path(run.output_dir) / run_id(run, config_key(run))


def test_a_missing_package_is_one_line(tmp_path, monkeypatch, capfd):
    def without_pyarrow(*_):
        raise ModuleNotFoundError(name="pyarrow")

    monkeypatch.setattr("rosa_bench.run.load_split", without_pyarrow)
    overrides = ["task=cola", *SMALL, f"output_dir={tmp_path}"]
    assert cli.main(overrides) == 2
    assert capfd.readouterr().err == "rosa_bench: the Python package pyarrow is not installed: pip install pyarrow\n"


def test_files_and_record_of_a_run(tmp_path):
    run = small(tmp_path, "task=mnli", "method=rosa")
    record = run_experiment(run)
    folder = folder_of(run)
    assert {p.name for p in folder.iterdir()} == {
        "record.json",
        ".record.json",
        "config.yaml",
        "events.jsonl",
        "predictions-validation_matched.jsonl.gz",
        "predictions-validation_mismatched.jsonl.gz",
    }
    content = json.loads((folder / "record.json").read_text())
    assert (
        content["status"] == "done" and content["run_id"] == folder.name and content["key"].startswith(folder.name[-8:])
    )
    assert content["data"]["source"] == "embedded v1" and set(content["data"]["sha256"]) == set(run.task.splits)
    assert set(content["scores"]) == {"validation_matched", "validation_mismatched"} and content["variant_names"] == [
        ""
    ]
    assert {"metric", "split", "best_epoch", "best", "last"} <= set(content["primary"])
    assert set(content["primary"]["best_scores"]) == set(content["scores"])
    assert content["params"]["trainable"] < content["params"]["total"]
    assert {
        "train_s",
        "method_s",
        "eval_s",
        "examples_per_s",
        "tokens_per_s",
        "padding_fraction",
        "peak_rss_bytes",
    } <= set(content["cost"])
    assert {"weights", "gradients", "optimizer", "activations"} <= set(content["cost"]["memory"])
    assert {"init_hash", "backbone_hash"} <= set(content["facts"]) and "torch" in content["env"]["packages"]
    assert {"python", "device", "threads", "dtype", "platform"} <= set(content["env"])
    rows = [
        json.loads(line)
        for line in gzip.decompress((folder / "predictions-validation_matched.jsonl.gz").read_bytes()).splitlines()
    ]
    assert len(rows) == 24 and all({"id", "prediction", "label", "logits"} == set(row) for row in rows)
    accuracy = 100 * sum(row["prediction"] == row["label"] for row in rows) / len(rows)
    assert record.scores["validation_matched"][""]["accuracy"] == pytest.approx(accuracy) == record.primary["last"]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert any("loss" in event for event in events) and any("scores" in event for event in events)


def test_the_best_epoch_of_a_generator_is_decoded_from_its_checkpoint(tmp_path, monkeypatch):
    losses = itertools.count(1.0)
    monkeypatch.setattr(
        "rosa_bench.evaluation.predict.Predictor.mean_losses", lambda *_: [next(losses)]
    )  # the first epoch is the best
    schedule = ("train.schedule=constant_with_warmup", "train.warmup=0", "train.limit_train=16", "train.lr=0.02")
    overrides = ("task=e2e", "method=rosa", *schedule)
    long, short = (run_experiment(small(tmp_path, *overrides, f"train.max_steps={n}")) for n in (8, 2))
    assert long.primary["best_epoch"] == 1 and long.primary["selected_by"] == "loss on validation"
    assert long.primary["best"] == short.primary["last"] == short.primary["best"] != long.primary["last"]
    assert not checkpoints.checkpoints(tmp_path / long.run_id)


def test_the_saved_configuration_repeats_the_run(tmp_path, capsys):
    run = small(tmp_path / "first", "method=lora")
    record = run_experiment(run)
    folder = folder_of(run)
    assert cli.main(["-cp", str(folder), "-cn", "config"]) == 0
    assert "already done" in capsys.readouterr().out
    assert cli.main(["-cp", str(folder), "-cn", "config", f"output_dir={tmp_path / 'second'}"]) == 0
    again = read_record(tmp_path / "second" / folder.name / "record.json")
    assert without_cost(again) == without_cost(record)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    first, second, other = (small(tmp_path / str(i), "method=rosa", f"seed={s}") for i, s in enumerate((1, 1, 2)))
    for run in (first, second, other):
        run_experiment(run)
    name = "predictions-validation.jsonl.gz"
    read = [(folder_of(run) / name).read_bytes() for run in (first, second, other)]
    assert read[0] == read[1] != read[2]


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "rosa_bench", *SMALL, f"output_dir={folder}", *overrides]


SLOWER = ("train.limit_train=2000", "train.max_steps=120", "train.checkpoint_steps=5")


def wait_for(check, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.02)


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, *SLOWER, *overrides), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_number_of_threads_is_restored(tmp_path):
    before = torch.get_num_threads()
    record = run_experiment(small(tmp_path, "train.threads=3", "train.max_steps=1"))
    assert record.env["threads"] == 3 and torch.get_num_threads() == before


def test_a_killed_run_resumes_to_the_same_result(tmp_path):
    whole = run_experiment(small(tmp_path / "whole", *SLOWER))
    process = start(tmp_path / "parts")
    wait_for(lambda: any(checkpoints.read_mark(p) for p in (tmp_path / "parts").glob("*/checkpoint-*")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = tmp_path / "parts" / whole.run_id
    assert json.loads((folder / "record.json").read_text())["status"] == "running"
    done = subprocess.run(command(tmp_path / "parts", *SLOWER), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "resuming from step" in done.stdout, done.stderr
    assert without_cost(read_record(folder / "record.json")) == without_cost(whole)
    name = "predictions-validation.jsonl.gz"
    assert (folder / name).read_bytes() == (tmp_path / "whole" / whole.run_id / name).read_bytes()
    assert not checkpoints.checkpoints(folder)
    losses = [
        [json.loads(line).get("loss") for line in (f / "events.jsonl").read_text().splitlines()]
        for f in (folder, tmp_path / "whole" / whole.run_id)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_keeps_a_checkpoint_and_exits_130(tmp_path, number):
    process = start(tmp_path)
    wait_for(lambda: any(p.stat().st_size for p in tmp_path.glob("*/events.jsonl")))
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - began < 10
    assert "resume from the last checkpoint" in err and "Traceback" not in err
    (folder,) = (p.parent for p in tmp_path.glob("*/record.json"))
    assert read_record(folder / "record.json").status == "interrupted"
    assert checkpoints.read_mark(checkpoints.checkpoints(folder)[0])


def test_two_processes_on_one_cell(tmp_path):
    long = "train.max_steps=100000"
    process = start(tmp_path, long)
    wait_for(lambda: any(tmp_path.glob("*/record.json")))
    second = subprocess.run(command(tmp_path, *SLOWER, long), capture_output=True, text=True, timeout=120)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert second.returncode == 2 and "another process" in second.stderr and "Traceback" not in second.stderr


def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(tmp_path, capsys):
    whole = run_experiment(small(tmp_path / "whole"))
    interrupt(small(tmp_path / "parts"), 5)
    newest, before = checkpoints.checkpoints(tmp_path / "parts" / whole.run_id)
    data = bytearray((newest / checkpoints.STATE).read_bytes())
    data[-3] ^= 1
    (newest / checkpoints.STATE).write_bytes(data)
    resumed = run_experiment(small(tmp_path / "parts"))
    out = capsys.readouterr().out
    assert f"{newest.name} is damaged" in out and f"resuming from step {before.name.rpartition('-')[2]}" in out
    assert without_cost(resumed) == without_cost(whole)


def test_resume_must_needs_a_checkpoint(tmp_path):
    with pytest.raises(UsageError, match="no complete checkpoint"):
        run_experiment(small(tmp_path, "resume=must"))


def test_resume_never_starts_over(tmp_path, capsys):
    interrupt(small(tmp_path), 5)
    run_experiment(small(tmp_path, "resume=never"))
    assert "goes on" not in capsys.readouterr().out


def test_the_record_of_a_failed_run_has_the_error(tmp_path, monkeypatch, capsys):
    def broken(self, step):
        raise RuntimeError("the method broke")

    monkeypatch.setattr("rosa_bench.methods.rosa.Rosa.before_step", broken)
    assert cli.main([*SMALL, f"output_dir={tmp_path}"]) == 1
    err = capsys.readouterr().err
    assert "the method broke" in err and "Traceback" not in err
    (path,) = tmp_path.glob("*/record.json")
    record = read_record(path)
    assert (
        record.status == "failed"
        and "the method broke" in str(record.error)
        and not record.scores
        and not record.primary
    )


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    def spoil(self, step):
        if step.index == 4:
            next(p for p in step.model.parameters() if p.requires_grad).data.fill_(float("nan"))

    monkeypatch.setattr("rosa_bench.methods.full.Full.before_step", spoil)
    run = small(tmp_path, "method=full")
    with pytest.raises(trainer.LossNotFiniteError, match="step 4"):
        run_experiment(run)
    record = read_record(folder_of(run) / "record.json")
    assert record.status == "failed" and "step 4" in str(record.error)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "done"),
        (ValueError(), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError(), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "oom"),
    ],
)
def test_statuses(error, status):
    assert status_of(error) == status


def test_a_finished_run_does_not_import_torch_and_force_repeats_it(tmp_path, capsys):
    arguments = [*SMALL, f"output_dir={tmp_path}"]
    assert cli.main(arguments) == 0
    code = (
        "import sys; from rosa_bench.cli import main; assert main(sys.argv[1:]) == 0; assert 'torch' not in sys.modules"
    )
    second = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert second.returncode == 0 and "already done" in second.stdout, second.stderr
    capsys.readouterr()
    assert cli.main([*arguments, "force=true"]) == 0 and "already done" not in capsys.readouterr().out


def test_a_repeated_run_resumes_only_from_its_own_checkpoint(tmp_path, capsys):
    run = small(tmp_path, "method=lora", "force=true", "train.keep_checkpoints=true")
    interrupt(run, 4)
    for resumes in (True, False):
        capsys.readouterr()
        assert run_experiment(run).status == "done"
        assert ("resuming from step 4" in (out := capsys.readouterr().out)) == resumes == ("resuming" in out)


def test_works_from_another_folder_without_home(tmp_path):
    (tmp_path / "a folder ü").mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "ROSA_BENCH_CACHE")} | {"LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "rosa_bench", *SMALL, "output_dir='runs ü'"],
        cwd=tmp_path / "a folder ü",
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "a folder ü" / "runs ü").glob("*/record.json"))


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("task", ["cola", "stsb", "mrpc"])
def test_encoders_and_decoders_from_a_folder(kind, task, backbone, tmp_path):
    record = run_experiment(
        small(tmp_path, f"task={task}", f"model.path={backbone(kind)}", "method=lora", "save=merged")
    )
    assert record.status == "done"
    import transformers

    merged = tmp_path / record.run_id / "merged"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(merged)
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged)
    assert model.config.pad_token_id == tokenizer.pad_token_id is not None
    assert model.config.num_labels == composed(f"task={task}").task.num_labels


def test_a_llama_generates_and_a_bert_cannot(backbone, tmp_path):
    record = run_experiment(small(tmp_path, "task=e2e", f"model.path={backbone('llama')}", "method=rosa"))
    assert {"bleu", "nist", "rouge_l", "cider"} <= set(record.scores["test"][""]) and record.scores["validation"][""][
        "loss"
    ] > 0
    scored = record.scores["validation"][""]
    assert scored["perplexity"] == pytest.approx(math.exp(scored["loss"]))
    huge = with_perplexity(1e4)
    assert huge == {"loss": 1e4} and "too large" in huge.absent["perplexity"]
    with pytest.raises(UsageError, match="causal decoder"):
        run_experiment(small(tmp_path, "task=e2e", f"model.path={backbone('bert')}"))


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be loaded"), ("{", "cannot be loaded")])
def test_a_folder_without_a_model_is_one_line(tmp_path, content, message):
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        run_experiment(small(tmp_path, f"model.path={folder}"))
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_model_is_one_line_with_alternatives(tmp_path):
    with pytest.raises(UsageError) as caught:
        run_experiment(small(tmp_path, "model=roberta_base"))
    message = str(caught.value)
    assert (
        "FacebookAI/roberta-base" in message
        and "model=auto" in message
        and "model.path=FOLDER" in message
        and "\n" not in message
    )


def test_an_output_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        run_experiment(small(tmp_path / "file" / "below"))


def test_a_closed_pipe_does_not_stop_a_run(tmp_path):
    command = [sys.executable, "-m", "rosa_bench", *SMALL, f"output_dir={tmp_path}"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert run.stdout is not None and run.stdout.readline()
    run.stdout.close()
    assert run.wait(timeout=300) == 0
    (path,) = tmp_path.glob("*/record.json")
    assert read_record(path).status == "done"
