"""Messages of the doctor for a complete and for a broken setup."""

from __future__ import annotations

from support import composed

from rosa_bench import doctor
from rosa_bench.system import hub


def test_a_complete_setup(backbone, capsys, tmp_path):
    assert doctor.main([f"model.path={backbone('roberta')}", "tracker=none", f"output_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "WRONG" not in out and all(word in out for word in ("cola/train", "parameters", "is writable", "GPU"))


def test_missing_parts_are_named(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    assert doctor.main(["data=local", f"data.dir={tmp_path}", f"model.path={tmp_path / 'model'}"]) == 2
    out = capsys.readouterr().out
    assert "glue/cola is not a folder" in out and "cannot be loaded" in out


def test_a_method_that_cannot_do_the_task_is_named(capsys):
    assert doctor.main(["method=head", "task=e2e"]) == 2
    assert "WRONG model" in capsys.readouterr().out.replace("    ", " ")


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


def test_a_netrc_file_counts_as_an_account(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert [good for good, _ in doctor.tracker(composed("tracker.mode=online"))] == [True, False]
    (tmp_path / ".netrc").touch()
    assert [good for good, _ in doctor.tracker(composed("tracker.mode=online"))] == [True, True]


def test_a_wrong_key_is_one_line(capsys):
    assert doctor.main(["method.rnk=2"]) == 2
    assert "did you mean method.rank" in capsys.readouterr().err


def test_the_revisions_of_a_suite_are_listed(hub_server, tmp_path, capsys):
    run = composed("task=cola", "model=roberta_base", "data=hub")
    files = {f"cola/{split}-0.parquet": b"1" for split in run.task.splits}
    hub_server.add("datasets", run.task.hub.repository, files, commit=run.task.hub.revision)
    for split in run.task.splits:
        hub.dataset(run.task.hub.repository, run.task.hub.revision, f"cola/{split}-*.parquet")
    capsys.readouterr()
    assert doctor.main(["suite=lora_table2"]) == 0
    lines = capsys.readouterr().out.splitlines()
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
    assert doctor.main(["suite=lora_tabel2"]) == 2


def test_help_is_printed(capsys):
    assert doctor.main(["--help"]) == 0
    assert "rosa_bench.doctor [overrides]" in capsys.readouterr().out
