"""`import rosa_bench`: a light import, documented examples that run, and safe use next to other code in a process."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.version import VersionBase
from made import record
from packaging.version import Version
from support import SMALL
from transformers import RobertaConfig, RobertaForSequenceClassification
from transformers.utils import logging

import rosa_bench
from rosa_bench.errors import UsageError
from rosa_bench.records.record import write_record

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8"), re.DOTALL
)


def roberta() -> RobertaForSequenceClassification:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return RobertaForSequenceClassification(RobertaConfig(vocab_size=100, **sizes)).eval()


def states() -> tuple:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()


def test_the_import_is_light():
    code = (
        "import sys, rosa_bench; print(rosa_bench.__version__, *{'torch', 'transformers', 'hydra'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [rosa_bench.__version__]
    assert (Path(rosa_bench.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_documented_examples_run(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert ("did you mean method.rank" in capsys.readouterr().out) or (tmp_path / "merged" / "config.json").is_file()


def test_training_preserves_the_callers_random_state_verbosity_and_environment(tmp_path, monkeypatch):
    logging.set_verbosity_info(), logging.enable_progress_bar()
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    variables = {"TOKENIZERS_PARALLELISM", "HF_HUB_VERBOSITY"}
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    before = states()
    trained = rosa_bench.train(["method=ia3", *SMALL, f"output_dir={tmp_path}"])
    assert trained.status == "done" and states() == before and not variables & set(os.environ)
    assert logging.get_verbosity() == logging.INFO and logging.is_progress_bar_enabled()
    logging.set_verbosity_warning()
    rosa_bench.attach(model := roberta(), "pissa")
    assert any(p.requires_grad for p in model.parameters())
    assert [result.run_id for result in rosa_bench.load_records(tmp_path)] == [trained.run_id]


def test_loaded_records_are_all_runs_with_their_whole_configurations(tmp_path):
    for start in ("first", "second"):
        loaded = record(seed=3, run_id=start, key=start, facts={"start": {"task": "mnli", "method": "lora"}})
        loaded.config["start"] = start
        (tmp_path / start).mkdir()
        write_record(tmp_path / start, loaded)
    records = rosa_bench.load_records(tmp_path)
    assert [(r.config["seed"], r.config["start"], r.config["output_dir"]) for r in records] == [
        (3, "first", "results/runs"),
        (3, "second", "results/runs"),
    ]


def test_a_run_without_a_hub_leaves_the_process_online(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from rosa_bench import run

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(run, "_run", lambda config: constants.is_offline_mode())
    assert rosa_bench.train([f"output_dir={tmp_path}", *SMALL]) is True
    assert not constants.is_offline_mode() and "HF_HUB_OFFLINE" not in os.environ


def test_a_second_run_at_the_same_time_is_refused(tmp_path, monkeypatch):
    from rosa_bench import run

    entered, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(run, "_run", lambda config: entered.set() or leave.wait(30))
    composed = rosa_bench.compose([f"output_dir={tmp_path}", *SMALL])
    first = threading.Thread(target=rosa_bench.train, args=[composed])
    first.start()
    assert entered.wait(30)
    with pytest.raises(UsageError, match=r"^another run is in progress in this process; [^\n]*$"):
        rosa_bench.train(composed)
    leave.set()
    first.join()
    assert rosa_bench.train(composed) is True


def test_composing_in_threads():
    wanted = [["method=lora", f"method.rank={rank}", f"task={task}"] for rank in (1, 2, 3) for task in ("cola", "e2e")]
    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(rosa_bench.compose, wanted))
    assert [(run.method.rank, run.task.name) for run in runs] == [
        (rank, task) for rank in (1, 2, 3) for task in ("cola", "e2e")
    ]


def test_composing_and_a_program_with_its_own_hydra_do_not_affect_each_other(monkeypatch):
    store, version = ConfigStore.instance(), VersionBase.instance()
    own = {name: node for name, node in store.repo.items() if name in ("hydra", "_dummy_empty_config_.yaml")}
    monkeypatch.setattr(store, "repo", own)
    monkeypatch.setattr(version, "version_base", Version("1.2"))
    store.store(name="run", node={"mine": 1})
    store.store(group="method", name="mine", node={"mine": 2})
    before = {name: dict(node) if isinstance(node, dict) else node for name, node in own.items()}
    for _ in range(2):
        assert rosa_bench.compose(["method=lora", "seed=3"]).seed == 3
        with pytest.raises(UsageError, match="method=mine is not a choice"):
            rosa_bench.compose(["method=mine"])
    assert store.repo is own and own["method"] == before["method"] and own["run.yaml"] is before["run.yaml"]
    assert "task" not in own and version.version_base == Version("1.2")
    store.repo = {}
    assert rosa_bench.compose(["seed=4"]).seed == 4 and not store.repo


def test_attach_and_merge_preserve_the_models_function():
    model, rows = roberta(), {"input_ids": torch.arange(4, 16).reshape(2, 6)}
    assert rosa_bench.attach(model, "lora", rank=4, targets=["q"]) is model
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.01)
        expected = model(**rows).logits
        assert rosa_bench.merge(model) is model
        assert torch.allclose(model(**rows).logits, expected, atol=1e-6)
    assert not any(name.endswith(".A") for name in model.state_dict())


@pytest.mark.parametrize("method", ["adapter", "meft", "prompt_tuning"])
def test_merging_what_cannot_be_merged_is_refused(method):
    model = rosa_bench.attach(roberta(), method)
    before = list(model.state_dict())
    with pytest.raises(UsageError, match=f"method={method} cannot be merged") as error:
        rosa_bench.merge(model)
    assert list(model.state_dict()) == before and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("lorra", {}, "method=lorra is not a choice: did you mean lora"),
        ("lora", {"rnk": 3}, "method.rnk is not a key: did you mean method.rank"),
        ("lora", {"rank": 0}, "method.rank=0"),
    ],
)
def test_wrong_methods_and_options_are_one_line(method, options, message):
    with pytest.raises(UsageError) as error:
        rosa_bench.attach(roberta(), method, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_console_script_is_the_module():
    script = re.search(
        r'^rosa-bench = "(.+):(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    code = f"import sys; from {script[1]} import {script[2]}; sys.argv[0] = 'rosa-bench'; sys.exit({script[2]}())"
    for arguments in (["--help"], ["method=lorra"], ["--cfg", "job", "seed=3"]):
        printed = [
            subprocess.run([sys.executable, *start, *arguments], capture_output=True, text=True)
            for start in (["-c", code], ["-m", "rosa_bench"])
        ]
        assert len({(done.returncode, done.stdout, done.stderr) for done in printed}) == 1
