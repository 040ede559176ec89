"""Command lines: flags in any position, `~`, references, and values of the wrong type."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

import rosa_bench
from rosa_bench import cli, decode, export, score
from rosa_bench.__main__ import run_command
from rosa_bench.config import repeatable_config
from rosa_bench.config.arguments import INFO, WITH_VALUE, WITHOUT_VALUE, quoted_home, split
from rosa_bench.config.compose import compose, plain, sweep_dir
from rosa_bench.config.fast_compose import composer
from rosa_bench.errors import UsageError
from rosa_bench.tables import __main__ as tables


def test_flags_are_those_of_hydra():
    from hydra._internal.utils import get_args_parser

    actions = [action for action in get_args_parser()._actions if action.option_strings]
    by_count = {
        count: {flag for a in actions if a.nargs == count for flag in a.option_strings} for count in (0, None, "?")
    }
    assert by_count == {0: WITHOUT_VALUE, None: WITH_VALUE, "?": INFO}


@pytest.mark.parametrize(
    "line",
    [
        "task=cola -m method=lora,rosa -cn run ~method.rank seed=1",
        "-m task=cola method=lora,rosa -cn run ~method.rank seed=1",
        "task=cola method=lora,rosa ~method.rank -m -cn run seed=1",
        "task=cola method=lora,rosa ~method.rank seed=1 -m -cn run",
    ],
)
def test_flags_in_any_position(line):
    assert split(line.split()) == (["task=cola", "method=lora,rosa", "~method.rank", "seed=1"], ["-m", "-cn", "run"])


def test_a_sweep_flag_between_overrides(tmp_path, capfd):
    small = ["train.max_steps=1", "train.limit_train=8", "train.limit_eval=8", "tracker=none", f"output_dir={tmp_path}"]
    assert cli.main(["task=cola", "-m", "method=head", "seed=1,2", *small]) == 0
    assert len(list(tmp_path.glob("cola-*/record.json"))) == 2, capfd.readouterr()


def test_info_may_have_a_value():
    assert split(["--info", "seed=1"]) == (["seed=1"], ["--info"])
    assert split(["--info", "plugins", "seed=1"]) == (["seed=1"], ["--info", "plugins"])


def test_a_value_may_follow_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    flags = ["--cfg", "job", "--config-dir", str(tmp_path / "mine")]
    assert split(["--cfg=job", "seed=1", "--config-dir=mine"]) == (["seed=1"], flags)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--multirn", "did you mean --multirun"),
        ("task=cola -cn", "needs a value"),
        ("task=cola --multirun=yes", "--multirun takes no value"),
    ],
)
def test_wrong_flags_are_one_line(line, message, capfd):
    assert cli.main(line.split()) == 2
    printed = capfd.readouterr().err
    assert message in printed and printed.count("\n") == 1


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_home_is_expanded(quote, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows").mkdir()
    overrides = [f"output_dir={quote}~/runs{quote}", "data=local", f"data.dir={quote}~/rows{quote}"]
    for run in (compose(overrides), composer()(overrides)):
        assert (run.output_dir, run.data.dir) == (str(tmp_path / "runs"), str(tmp_path / "rows"))
    with pytest.raises(UsageError, match=str(tmp_path / "none")):
        compose([f"model.path={quote}~/none{quote}"])


def test_home_of_an_unknown_user():
    with pytest.raises(UsageError, match=r"output_dir='~no_such_user/a'.*unknown user"):
        compose(["output_dir=~no_such_user/a"])
    with pytest.raises(UsageError, match=r"start='~no_such_user/a'.*unknown user"):
        compose(["start=~no_such_user/a"])


def test_home_in_a_sweep_and_elsewhere():
    assert quoted_home("output_dir=~/a,~/b") == "output_dir='~/a','~/b'"
    assert quoted_home("output_dir=/a~/b") == "output_dir=/a~/b"
    assert quoted_home("~method.rank") == "~method.rank"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "sed is not a key: did you mean seed"),
        ("learning_rate=1", "learning_rate is not a key: use train.lr"),
        ("trian.lr=1", "trian.lr is not a key: use train.lr"),
        ("train.lrr=1", "train.lrr is not a key of this choice: did you mean train.lr"),
    ],
)
def test_unknown_keys(override, message):
    with pytest.raises(UsageError, match=message):
        compose([override])


UNPARSABLE = [
    ("lora", "lora is not key=value: did you mean method=lora?"),
    ("rank", "rank is not key=value; write KEY=VALUE"),
    ("", "an empty text is not key=value"),
    (
        "output_dir=a=b",
        """output_dir=a=b cannot be parsed; quote values with special characters: "output_dir='VALUE'\"""",
    ),
    ("method.rank=[1", "method.rank=[1 cannot be parsed; quote values"),
    ("method=lora,rosa", "method=lora,rosa has several values: sweep over them with -m"),
    ("method.targets=q,v", "write a list as method.targets=[q,v], or quote one text as \"method.targets='q,v'\""),
]


@pytest.mark.parametrize(("override", "message"), UNPARSABLE)
def test_what_cannot_be_parsed_is_one_line_with_its_key(override, message, capfd):
    with pytest.raises(UsageError) as error:
        compose(["seed=1", override])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert cli.main(["seed=1", override]) == 2
    assert message in (printed := capfd.readouterr().err) and printed.count("\n") == 1


def test_a_text_is_no_list_of_overrides():
    for call in (rosa_bench.compose, rosa_bench.train):
        with pytest.raises(UsageError, match=r"must be a list, not a text: write \['method=lora', 'seed=2'\]"):
            call("method=lora seed=2")


def test_the_configuration_of_a_run_has_no_choices(tmp_path, capfd):
    (tmp_path / "config.yaml").write_text(repeatable_config(compose([])), encoding="utf-8")
    assert cli.main(["-cp", str(tmp_path), "-cn", "config", "tracker=none"]) == 2
    message = "tracker has no choices in this configuration; set its keys, such as tracker.name=VALUE"
    assert message in capfd.readouterr().err


LISTS = [
    ("task=[cola,mrpc]", "task=[cola,mrpc] names several choices; sweep over them with -m task=cola,mrpc"),
    ("task=[cola, mrpc]", "sweep over them with -m task=cola,mrpc"),
    ("+method=[dora]", "+method=[dora] is a list; write method=dora"),
    ("method=[]", "write method=CHOICE"),
]


@pytest.mark.parametrize(("override", "message"), LISTS)
def test_a_list_is_no_choice(override, message, capfd):
    for compose_one in (compose, composer()):
        with pytest.raises(UsageError) as error:
            compose_one([override])
        assert message in str(error.value)
    assert cli.main([override, "seed=1"]) == 2
    assert message in capfd.readouterr().err


def test_a_launcher_that_is_not_installed():
    error = MissingConfigException("", "hydra/launcher/joblib", ["basic"])
    assert plain(error, []) == "hydra/launcher=joblib needs the extra slurm: pip install 'rosa_bench[slurm]'"


def test_a_command_without_a_core_package(monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setitem(sys.modules, "hydra", None)
    monkeypatch.delitem(sys.modules, "rosa_bench.cli")
    assert run_command() == 2
    assert (
        capsys.readouterr().err
        == "rosa_bench: the Python package hydra-core is not installed: pip install hydra-core\n"
    )


def test_a_list_in_a_sweep_is_no_choice(tmp_path, capfd):
    small = ["train.max_steps=1", "train.limit_train=8", "train.limit_eval=8", "tracker=none", f"output_dir={tmp_path}"]
    assert cli.main(["-m", "method=choice([head,lora],[lora,head])", *small]) == 2
    assert capfd.readouterr().err.count("names several choices") == 2


def test_references_in_the_output_folder():
    given = "output_dir=/r/${method.name}/${model.name}-${train.lr}-${train.epochs}-${seed}-${method.rank}"
    run = compose(
        ["method=lora", "task=sst2", "tracker.tags=[x-${method.name}]", "tracker.project=${task.name}", given]
    )
    assert run.output_dir == f"/r/lora/roberta_mini-{run.train.lr}-{run.train.epochs}-1-8"
    assert (run.tracker.tags, run.tracker.project) == (["x-lora"], "sst2")
    assert compose(["method=ia3", "output_dir=${method.name}"]).output_dir == "ia3"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output_dir=/r/${method.nme}", "output_dir: ${method.nme} is not a key: did you mean method.name"),
        ("train.lr=${train.warmupp}", "train.lr: ${train.warmupp} is not a key: did you mean train.warmup"),
    ],
)
def test_references_to_unknown_keys(override, message):
    with pytest.raises(UsageError) as error:
        compose([override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("results/runs", "results/runs/.sweep"),
        ("/r/${method.name}", "/r/.sweep"),
        ("/r/a-${seed}/b", "/r/.sweep"),
        ("${method.name}", ".sweep"),
        ("~/r", "HOME/r/.sweep"),
    ],
)
def test_launchers_write_below_the_common_output_folder(output, folder, monkeypatch):
    from omegaconf import OmegaConf

    monkeypatch.setenv("HOME", "HOME")
    assert sweep_dir(_root_=OmegaConf.create({"output_dir": output})) == folder


WRONG_TYPES = [
    ("model.revision=7e10", "7e10"),
    ("model.revision=1234567", "1234567"),
    ("model.revision=1_0", "1_0"),
    ("model.revision=true", "true"),
    ("model.hub=inf", "inf"),
    ("tracker.project=5", "5"),
    ("tracker.tags=a", ["a"]),
    ("tracker.tags=7e1", ["7e1"]),
    ("tracker.tags=[1,b,2e3]", ["1", "b", "2e3"]),
    ("tracker.tags='a,b'", ["a,b"]),
    ("task.labels=[0,1]", ["0", "1"]),
    ("task.texts=sentence", ["sentence"]),
    ("task.metrics=matthews", ["matthews"]),
    ("task.scored_splits=validation", ["validation"]),
    ("method.targets=q", ["q"]),
    ("method.targets='q,v'", ["q", "v"]),
    ("method.score_ranks=4", [4]),
    ("method.score_ranks=['2','4']", [2, 4]),
    ("method.rank='8'", 8),
    ("method.rank=8.0", 8),
    ("train.lr='1e-3'", 1e-3),
    ("train.fused=yes", True),
    ("train.fused=0", False),
    ("force=1", True),
    ("output_dir=2024", "2024"),
    ("train.precision=BF16", "bf16"),
    ("save=Merged", "merged"),
]


@pytest.mark.parametrize(("override", "meant"), WRONG_TYPES)
def test_a_valid_spelling_is_suggested(override, meant):
    with pytest.raises(UsageError) as error:
        compose(["method=lora", "task=cola", override])
    line = str(error.value)
    assert line.startswith(override.partition("=")[0]) and ", write " in line
    (right,) = shlex.split(line.rpartition(", write ")[2])
    run = compose(["method=lora", "task=cola", right])
    value = run
    for name in override.partition("=")[0].split("."):
        value = getattr(value, name)
    assert value == meant and type(value) is type(meant)


def test_no_suggestion_without_a_valid_spelling():
    for override in (
        "method.rank=0",
        "train.lr=-1",
        "method.rank=many",
        "train.precision=[fp32,fp16]",
        f"task.texts={'a' * 999}",
    ):
        with pytest.raises(UsageError) as error:
            compose(["method=lora", override])
        assert "write" not in str(error.value)


def test_a_value_from_a_yaml_is_shown_unchanged():
    from rosa_bench.config import resolve

    plain = compose([]).to_dict()
    plain["model"]["revision"] = 7
    with pytest.raises(UsageError, match=r"""model.revision=7: .* write "model.revision='7'\""""):
        resolve(plain)


def test_overrides_of_an_earlier_command_line_are_ignored(monkeypatch):
    monkeypatch.setattr("sys.argv", ["rosa_bench", "method=meft"])
    with pytest.raises(UsageError, match=r"did you mean method\.rank"):
        compose(["method=lora", "method.rnk=3"])
    assert not Path("~").exists()


def test_files_of_every_command_may_be_below_the_home_folder(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/home/me")
    out = Path("/home/me/out")
    assert export.parsed(["~/run", "--as=merged", "--out=~/out"]).out == out
    assert decode.parsed(["~/run", "--out=~/out"]).out == out
    assert score.parsed(["--task=e2e", "--predictions=~/out"]).predictions == out
    assert tables.parsed(["--runs=~/out"]).runs == [out]
    with pytest.raises(SystemExit):
        export.parsed(["~nobody-here/run", "--as=merged"])
    assert "~nobody-here/run starts with the home folder of an unknown user" in capsys.readouterr().err
