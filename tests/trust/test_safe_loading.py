"""No untrusted content is executed: no pickle, no module, no text of a configuration."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import composed, interrupt, small

from rosa_bench import cli, config
from rosa_bench.config import untrusted
from rosa_bench.data import encode
from rosa_bench.errors import UsageError
from rosa_bench.models.load import load
from rosa_bench.records import checkpoints
from rosa_bench.run import run as run_experiment
from rosa_bench.system.files import file_sha256
from rosa_bench.tables import paired_tests

ROOT = Path(__file__).parent.parent.parent
SOURCES = [*(ROOT / "rosa_bench").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
READERS = {"pickle", "dill", "cloudpickle", "shelve", "joblib"}


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """A folder that must not be created."""
    yield tmp_path / "was run"
    assert not (tmp_path / "was run").exists()


def test_the_payload_works(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


def name_of(node: ast.AST) -> str:
    """The dotted name of the called function."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_reads_pickles_or_runs_texts(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not READERS & {name.partition(".")[0] for name in names}, ast.unparse(node)
        if not isinstance(node, ast.Call):
            continue
        called, options = name_of(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert called not in ("eval", "exec", "compile", "__import__", "os.system", "yaml.load", "marshal.loads"), (
            called
        )
        assert called != "torch.load" or options.get("weights_only") == "True", ast.unparse(node)
        assert options.get("trust_remote_code", "False") == "False" and options.get("shell", "False") == "False"


def copied(backbone, folder: Path) -> Path:
    shutil.copytree(backbone("roberta"), folder)
    return folder


CODE = "from pathlib import Path\nPath({mark!r}).mkdir()\nclass Config: pass\nclass Model: pass\n"


@pytest.mark.parametrize("known", [True, False], ids=["a class of ours", "a class of its own"])
def test_code_next_to_a_model_is_not_run_and_there_is_no_prompt(known, tmp_path, backbone, mark, monkeypatch):
    def ask(*_):
        raise AssertionError("the user was asked")

    monkeypatch.setattr("builtins.input", ask)
    folder = copied(backbone, tmp_path / "model")
    (folder / "code.py").write_text(CODE.format(mark=str(mark)))
    content = json.loads((folder / "config.json").read_text())
    content["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}
    content["model_type"] = content["model_type"] if known else "foreign"
    (folder / "config.json").write_text(json.dumps(content))
    run = composed(f"model.path={folder}")
    if known:
        assert type(load(run.model, run.task, 1)[0]).__module__.startswith("transformers.")
    else:
        with pytest.raises(UsageError, match="cannot be loaded"):
            load(run.model, run.task, 1)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_pickled_weights_are_refused(name, tmp_path, backbone, mark):
    folder = copied(backbone, tmp_path / "model")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    torch.save({"weight": Payload(mark)}, folder / name)
    run = composed(f"model.path={folder}")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load(run.model, run.task, 1)


def test_an_adapter_is_not_loaded_as_a_model(tmp_path, backbone):
    """`transformers` would load the model named in the adapter's configuration instead of the folder's."""
    folder = copied(backbone, tmp_path / "model")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere/model"}')
    run = composed(f"model.path={folder}")
    with pytest.raises(UsageError, match="holds an adapter"):
        load(run.model, run.task, 1)


def test_attention_of_a_hub_is_not_fetched(tmp_path, backbone):
    folder = copied(backbone, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"attn_implementation": "elsewhere/attention"}))
    run = composed(f"model.path={folder}")
    with pytest.raises(UsageError, match=r"code from a hub|cannot be loaded"):
        load(run.model, run.task, 1)


def test_a_pickle_in_place_of_an_adapter(tmp_path, mark):
    run = composed("method=lora")
    model, _ = load(run.model, run.task, 1)
    run.method.attach(model, 1)
    checkpoints.save_adapters(model, run.method, tmp_path, "a hash")
    tensors, output = (tmp_path / "adapter" / name for name in ("adapter.safetensors", "adapter.json"))
    tensors.write_bytes(pickle.dumps(Payload(mark)))
    output.write_text(json.dumps(json.loads(output.read_text()) | {"sha256": file_sha256(tensors)}))
    with pytest.raises(UsageError, match="cannot be read"):
        checkpoints.load_adapter(model, run.method, tmp_path / "adapter", "a hash")


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_checkpoint(name, tmp_path, mark):
    """Even one that is marked as complete."""
    run = small(tmp_path, "method=bitfit", "train.max_steps=2", "train.limit_train=16", "train.limit_eval=8")
    interrupt(run, 1)
    (folder,) = tmp_path.glob("*/checkpoint-1")
    content = json.loads((folder / "complete.json").read_text())
    (folder / "complete.json").unlink()
    torch.save({"state": Payload(mark)}, folder / name)
    checkpoints.mark_complete(folder, {key: value for key, value in content.items() if key != "files"})
    assert checkpoints.read_mark(folder)
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        run_experiment(run)
    (path,) = tmp_path.glob("*/record.json")
    assert json.loads(path.read_text())["status"] == "failed"


def test_a_pickle_in_the_token_cache(tmp_path, mark):
    path = tmp_path / "entry.json"
    for content in (pickle.dumps(Payload(mark)), b"\x00\n" + b"[" * 5000):
        path.write_bytes(content)
        assert encode._read(path) is None


@pytest.fixture
def module(tmp_path, mark, monkeypatch):
    """A module that creates the folder `mark` when it is imported."""
    (tmp_path / "a_module_that_acts.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    return "a_module_that_acts"


def test_a_module_that_a_configuration_names_is_not_imported(module, capsys):
    assert cli.main([f"method._target_={module}.Model"]) == 2
    assert "not a class of this package" in capsys.readouterr().err
    with pytest.raises(UsageError, match="not a class of this package"):
        paired_tests.task_of({"task": {"_target_": f"{module}.Model"}})
    assert module not in sys.modules


ACTING = {
    "callback": "hydra: {{callbacks: {{x: {{_target_: os.mkdir, path: {mark!r}}}}}}}",
    "launcher": "hydra: {{launcher: {{_target_: {module}.Model}}}}",
    "logging": "hydra: {{job_logging: {{handlers: {{x: {{(): os.mkdir, path: {mark!r}}}}}}}}}",
    "handler": "hydra: {{job_logging: {{handlers: {{x: {{class: {module}.Model}}}}}}}}",
    "stream": 'hydra: {{job_logging: {{handlers: {{x: {{stream: "ext://{module}.x"}}}}}}}}',
    "search path": "hydra: {{searchpath: [pkg://{module}]}}",
    "text": "hydra: {{callbacks: '${{oc.create:\"{{x: {{_target_: os.mkdir}}}}\"}}'}}",
    "method": "method: {{_target_: {module}.Model}}",
}


@pytest.mark.parametrize("name", ACTING)
def test_a_configuration_file_from_elsewhere_runs_nothing(name, tmp_path, mark, module, capsys):
    folder = tmp_path / "run"
    (folder / "deeper").mkdir(parents=True)
    text = ACTING[name].format(mark=str(mark), module=module)
    for path in (folder / "config.yaml", folder / "deeper" / "more.yaml"):
        path.write_text(text)
        assert cli.main(["-cp", str(folder), "-cn", "config"]) == 2
        err = capsys.readouterr().err
        assert str(path) in err and "could run any program" in err and err.count("\n") == 1
        path.write_text("seed: 1\n")


def test_configurations_of_a_run_pass(tmp_path):
    (tmp_path / "config.yaml").write_text(config.repeatable_config(composed("method=lora")))
    untrusted.check(["-cp", str(tmp_path), "--config-dir", str(config.config_dir())])


def test_texts_of_a_configuration_stay_texts(tmp_path):
    text = "__import__('os').mkdir('x')"
    run = composed(f'tracker.tags=["{text}"]', f'model.name="{text}"')
    assert run.tracker.tags == [text] and run.model.name == text
    for prompt in ("{question.__class__}", "{question:>9999999999}", "{question!r}", "{question:{question}}"):
        with pytest.raises(UsageError, match="prompt="):
            composed("task=sciq", f"task.prompt='{prompt}'")


def test_the_command_line_never_prompts(tmp_path, backbone):
    """With code next to the model and standard input closed: one line at once, instead of a prompt for 15 seconds."""
    folder = copied(backbone, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    content |= {"auto_map": {"AutoConfig": "code.Config"}, "model_type": "foreign"}
    (folder / "config.json").write_text(json.dumps(content))
    command = [
        sys.executable,
        "-m",
        "rosa_bench",
        f"model.path={folder}",
        "tracker=none",
        f"output_dir={tmp_path / 'o'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1, done.stderr
