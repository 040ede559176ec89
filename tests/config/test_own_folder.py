"""A method, a task, a kind of task, a metric and a suite from the user's own folder: one file each, no registration."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rosa_bench.config.compose import compose
from rosa_bench.errors import UsageError

FILES = {
    "method/halved.yaml": "# LoRA with half the rank\n_target_: own_method.Halved\nrank: 8\n",
    "own_method.py": """
from rosa_bench.core.schema import configured
from rosa_bench.methods.lora import Lora


@configured
class Halved(Lora):
    def attach(self, model, seed=0):
        Lora(rank=self.rank // 2, alpha=self.alpha, targets=self.targets).attach(model, seed)
""",
    "task/acceptable.yaml": """# CoLA by a metric of our own
_target_: own_task.Acceptable
name: acceptable
folder: glue/cola
texts: [sentence]
labels: ["no", "yes"]
metrics: [share_of_yes, accuracy]
primary: share_of_yes
""",
    "own_kind.py": """
from rosa_bench.tasks.kinds.classify import Classify


class Doubled(Classify):
    name = "doubled"

    def loss(self, logits, labels, label_smoothing):
        return 2 * super().loss(logits, labels, label_smoothing)


KIND = Doubled()
""",
    "own_task.py": """
from own_kind import KIND

from rosa_bench import embedded
from rosa_bench.core.schema import configured
from rosa_bench.tasks.glue import Glue


@configured
class Acceptable(Glue):
    @property
    def kind(self):
        return KIND

    def embedded(self, split):
        yield from embedded.rows("cola", split)
""",
    "share_of_yes.py": """
from rosa_bench.metrics.metric import Metric
from rosa_bench.stats.bootstrap import mean

METRIC = Metric(
    "share_of_yes",
    lambda predictions, labels: 100 * float((predictions == 1).mean()),
    lambda score, predictions, labels: mean(score, predictions == 1, 100),
)
""",
    "suite/own.yaml": "title: our own\ncells:\n  - run: {method: [halved], task: acceptable}\n",
}
SMALL = ["train.max_steps=2", "train.limit_train=16", "train.limit_eval=20", "tracker=none", "train.threads=1"]


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "my_configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def run(folder, *arguments, **environment):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


def record(folder):
    (path,) = folder.glob("results/runs/*/record.json")
    return json.loads(path.read_text())


def test_a_run_with_the_users_method_task_kind_and_metric(folder):
    done = run(folder, "rosa_bench", "-cd", "my_configs", "method=halved", "task=acceptable", "method.rank=4", *SMALL)
    assert done.returncode == 0, done.stderr
    own = record(folder)
    assert (own["method"], own["task"], own["primary"]["metric"]) == ("own_method", "acceptable", "share_of_yes")
    assert own["config"]["choices"]["method"] == "halved" and own["config"]["method"]["rank"] == 4
    values = own["scores"]["validation"][""]
    assert set(values) == {"share_of_yes", "accuracy"} and 0 <= values["share_of_yes"] <= 100
    tables = run(folder, "rosa_bench.tables", "--no-plots", ROSA_BENCH_CONFIG_DIR="my_configs")
    assert tables.returncode == 0 and "share_of_yes" in tables.stdout


def test_the_users_suite_runs_in_other_processes(folder):
    done = run(folder, "rosa_bench.suite", "own", *SMALL, ROSA_BENCH_CONFIG_DIR="my_configs")
    assert done.returncode == 0, done.stderr + done.stdout
    assert record(folder)["status"] == "done"


def test_the_name_of_a_shipped_choice_is_refused(folder):
    (folder / "my_configs" / "method" / "lora.yaml").write_text("_target_: own_method.Halved\n")
    done = run(folder, "rosa_bench", "-cd", "my_configs", "method=halved", *SMALL)
    assert done.returncode == 2 and "rename the file" in done.stderr and "Traceback" not in done.stderr


def test_modules_named_by_another_record_are_not_imported(folder):
    """`-cp` may read an untrusted configuration; only `-cd` names the user's own folder."""
    (folder / "my_configs" / "config.yaml").write_text("method: {_target_: own_method.Halved}\n")
    done = run(folder, "rosa_bench", "-cp", "my_configs", "-cn", "config")
    assert done.returncode == 2 and "could run any program" in done.stderr


def test_a_task_of_a_shipped_class_names_a_metric_of_the_users_folder(folder):
    """Also where no choice of the folder has a class of its own."""
    (folder / "my_configs" / "method" / "halved.yaml").unlink()
    shipped = FILES["task/acceptable.yaml"].replace("own_task.Acceptable", "rosa_bench.tasks.glue.Glue")
    (folder / "my_configs" / "task" / "acceptable.yaml").write_text(shipped)
    (folder / "predictions.txt").write_text("1\n0\n1\n1\n")
    (folder / "labels.jsonl").write_text('{"label": 1}\n' * 4)
    files = ["--predictions", "predictions.txt", "--references", "labels.jsonl", "--json"]
    done = run(folder, "rosa_bench.score", "--task", "acceptable", *files, ROSA_BENCH_CONFIG_DIR="my_configs")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["validation"] == {"share_of_yes": 75, "accuracy": 75}


@pytest.mark.parametrize("content", ["", "- a\n", "name: x\n"])
def test_a_yaml_without_a_class_is_named(folder, content):
    path = folder / "my_configs" / "task" / "other.yaml"
    path.write_text(content)
    done = run(folder, "rosa_bench", "-cd", "my_configs", "task=cola")
    assert done.returncode == 2 and f"{path}: _target_ is missing" in done.stderr and done.stderr.count("\n") == 1


def test_other_yaml_files_of_a_project_do_not_matter(folder):
    """With `-cd .`, the environment in `.venv` holds Hydra's own files."""
    other = folder / "my_configs" / ".venv" / "hydra_logging" / "default.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("stream: ext://sys.stdout\n")
    done = run(folder, "rosa_bench", "-cd", "my_configs", "method=halved", "--cfg", "job")
    assert done.returncode == 0 and "own_method.Halved" in done.stdout, done.stderr
    (folder / "my_configs" / "method" / "odd.yaml").write_text("_target_: own_method.Halved\ninit: ext://sys.stdout\n")
    done = run(folder, "rosa_bench", "-cd", "my_configs", "method=halved", "--cfg", "job")
    assert done.returncode == 2 and "could run any program" in done.stderr


def test_a_model_of_the_users_whose_folder_is_missing_leaves_others_usable(folder):
    path = folder / "my_configs" / "model" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(f"_target_: rosa_bench.config.Model\npath: {folder / 'missing'}\n")
    suite = "title: hub\ncells:\n  - run: {model: [roberta_base], task: cola}\n"
    (folder / "my_configs" / "suite" / "hub.yaml").write_text(suite)
    environment = {"ROSA_BENCH_CONFIG_DIR": "my_configs", "HF_HUB_OFFLINE": "1"}
    done = run(folder, "rosa_bench.doctor", "suite=hub", **environment)
    assert "model roberta_base: " in done.stdout, done.stderr


def test_a_run_of_the_users_own_method_can_be_repeated(folder):
    """From its folder, together with the folder of the method; Hydra's section may not name its modules."""
    target = "method: {_target_: own_method.Halved}\n"
    (folder / "run").mkdir()
    flags = ["-cd", "my_configs", "-cp", "run", "-cn", "config", "--cfg", "job"]
    for content, code in ((target, 0), (f"{target}hydra: {{launcher: {{_target_: own_method.Halved}}}}\n", 2)):
        (folder / "run" / "config.yaml").write_text(content)
        done = run(folder, "rosa_bench", *flags)
        assert done.returncode == code, done.stderr
        assert ("could run any program" in done.stderr) is (code == 2)


def test_a_missing_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ROSA_BENCH_CONFIG_DIR", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"ROSA_BENCH_CONFIG_DIR=.*none is not a folder"):
        compose([])
