"""Every yaml composes, faults are one line, and the key covers exactly what can change a result."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import METHODS, TASKS, composed

from rosa_bench import cli, config
from rosa_bench.config.compose import compose
from rosa_bench.config.fast_compose import composer
from rosa_bench.errors import UsageError
from rosa_bench.records.run_key import config_key, run_id
from rosa_bench.records.validate import is_name


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in config.GROUPS for n in config.choices(g)])
def test_every_choice_composes(group, name, tmp_path):
    more = {"local": [f"data.dir={tmp_path}"], "peft": ["method.type=LORA"]}.get(name, [])
    overrides = [f"{group}={name}", *more]
    assert compose(overrides) == composer()(overrides)


def test_resolved_configuration_reads_back():
    run = composed("method=lora", "task=mnli")
    assert config.resolve(run.to_dict()) == run


def test_null_values_are_filled():
    run = composed("method=lora", "task=e2e")
    assert (
        run.model.name == "gpt2_mini" and run.train.epochs == run.task.epochs and run.train.lr == run.method.lr["mini"]
    )
    assert composed("method=lora", "model=roberta_base").train.lr == run.method.lr["full_size"]
    assert composed("task=cola").model.name == "roberta_mini"


WRONG = {
    "method=rosaa": "did you mean rosa",
    "metod=rosa": "did you mean method",
    "method.rnk=3": "did you mean method.rank or method.variant",  # of the default method, whose keys alone are named
    "method.rank=0": "method.rank=0",
    "method.rank=-2": "method.rank=-2",
    "method.rank=1.5": "method.rank=1.5",
    "method.rank=eight": "method.rank='eight'",
    "method.targets=[x]": "method.targets",
    "method.sample=all": "'random', 'top', 'bottom' or 'window'",
    "train.lr=-1": "train.lr=-1",
    "train.lr=nan": "train.lr=nan",
    "train.lr=inf": "train.lr=inf",
    "train.batch_size=2.5": "train.batch_size=2.5",
    "train.micro_batch_size=5": "does not divide",
    "train.epochs=true": "train.epochs=True",
    "train.warmup=1.5": "warmup=1.5",
    "seed=-1": "seed=-1",
    "seed=99999999999": "seed=99999999999",
    "resume=perhaps": "'auto', 'never' or 'must'",
    "data=local": "data.dir=FOLDER",
    "model.path=/does/not/exist": "not a readable folder",
    "+data.dri=x": "did you mean data.dir",
    "task.labels=[one]": "at least two names",
    "task.primary=f1": "is not among",
    "task=mnli task.metrics=[accuracy,f1]": "metrics=f1 needs two labels, but there are 3; use accuracy",
    "task=stsb task.metrics=[pearson,matthews]": "metrics=matthews needs classes, but a task without labels is a",
    "method._target_=os.system": "not a Method",
    "method._target_=no.such.Thing": "cannot be imported",
    "foo.bar=1": "not a key",
    "method=[a": "rosa_bench:",
}


def test_tables_accept_the_model_name_of_any_folder_or_repository(tmp_path):
    assert is_name(compose([f"model.hub=org/{'m' * 200}", "data=hub"]).model.name)
    for name in ("m" * 200, "a\nb"):
        (tmp_path / name).mkdir()
        assert is_name(compose([f"model.path='{tmp_path / name}'"]).model.name)


@pytest.mark.parametrize(("override", "message"), WRONG.items())
def test_a_fault_is_one_line(override, message, capsys):
    assert cli.main(override.split(" ")) == 2
    err = capsys.readouterr().err
    assert err.startswith("rosa_bench: ") and err.count("\n") == 1 and message in err, err


def test_all_faults_are_reported_at_once(capsys):
    assert cli.main(["method.rank=0", "train.lr=-1", "data.source=x"]) == 2
    err = capsys.readouterr().err
    assert all(part in err for part in ("method.rank", "train.lr", "data.source"))


def test_nothing_heavy_is_imported_before_the_configuration_is_valid():
    code = (
        "import sys; from rosa_bench.cli import main\n"
        "assert main(['method.rank=0']) == 2\n"
        "assert main(['--cfg', 'job']) == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'datasets', 'sklearn', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)


NEUTRAL = [
    "output_dir=/tmp/elsewhere",
    "resume=never",
    "force=true",
    "save=adapter",
    "tracker=none",
    "train.device=cpu",
    "train.threads=1",
    "train.micro_batch_size=8",
    "train.eval_batch_size=7",
    "train.num_workers=1",
    "train.checkpoint_steps=3",
    "train.log_steps=3",
    "tracker.project=other",
]
TELLING = [
    "seed=2",
    "train.lr=0.1",
    "train.batch_size=16",
    "method.rank=4",
    "train.precision=bf16",
    "train.limit_train=10",
    "task=sst2",
    "train.bucket=false",
    "model.random_init=true",
    "method=lora",
    "train.epochs=3",
]


def test_the_key_covers_exactly_what_can_change_a_result():
    key = config_key(composed())
    for override in NEUTRAL:
        assert config_key(composed(override)) == key, override
    keys = {config_key(composed(override)) for override in TELLING}
    assert len(keys | {key}) == len(TELLING) + 1


def test_the_key_depends_on_content_not_on_paths(tmp_path, backbone):
    import shutil

    copy = tmp_path / "copy of it"
    shutil.copytree(backbone("roberta"), copy)
    first, second = (composed(f"model.path='{folder}'", "model.name=x") for folder in (backbone("roberta"), copy))
    assert config_key(first) == config_key(second)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    assert config_key(first) != config_key(composed(f"model.path='{copy}'", "model.name=x"))


def test_run_id_is_safe_as_a_folder_name():
    run = composed("model.name='a b/../c'", "model.hub=x/y")
    name = run_id(run, "0123456789abcdef")
    assert name.endswith("-s1-01234567") and "/" not in name and " " not in name


def test_methods_and_tasks_are_found():
    assert {"full", "lora", "rosa"} <= set(METHODS)
    assert {
        "cola",
        "sst2",
        "mrpc",
        "stsb",
        "qqp",
        "mnli",
        "qnli",
        "rte",
        "wnli",
        "e2e",
        "dart",
        "webnlg",
        "openbookqa",
        "piqa",
        "arc_easy",
        "arc_challenge",
        "sciq",
        "synthetic",
    } == set(TASKS)


def test_a_wrong_class_is_refused():
    with pytest.raises(UsageError, match="not a Task"):
        config.target_class("task", "rosa_bench.methods.lora.Lora")


def test_help_names_every_choice_and_key_at_once():
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "rosa_bench", "--help", "method=lora"], capture_output=True, text=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and after.ru_utime - before.ru_utime < 1.5  # processor time: the machine may be busy
    for name in (*METHODS, *TASKS, "alpha: 16.0", "batch_size: 32", "python -m rosa_bench -m"):
        assert name in done.stdout
