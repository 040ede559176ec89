"""Arbitrary configurations: either the requested run or a one-line error."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import odd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import composed

from rosa_bench import cli, config
from rosa_bench.config.compose import compose
from rosa_bench.config.fast_compose import composer
from rosa_bench.core.aliases import FOREIGN
from rosa_bench.errors import UsageError

NODES = composer().nodes
USUAL = composed().to_dict()
KEYS = sorted(
    {(group, name, key) for (group, name), node in NODES.items() for key in node} | {("", "", key) for key in USUAL},
)
ABSENT = object()


def judged(plain: dict[str, Any]) -> config.Run | None:
    """The run of a configuration; None if it was refused with a readable message."""
    try:
        run = config.resolve(copy.deepcopy(plain))
    except UsageError as error:
        assert odd.is_plain(str(error).replace("\n", "")), str(error)
        return None
    content = json.loads(json.dumps(run.to_dict(), allow_nan=False, ensure_ascii=False).encode())
    assert config.resolve(content) == run  # what the record will say is what was understood
    return run


def put(group: str, name: str, key: str, value: Any) -> dict[str, Any]:
    """The default configuration with one key of one choice changed or removed."""
    plain = copy.deepcopy(USUAL)
    node = plain
    if group:
        node = plain[group] = copy.deepcopy(NODES[group, name])
    if value is ABSENT:
        node.pop(key, None)
    else:
        node[key] = value
    return plain


def same(requested: Any, got: Any) -> bool:
    """Whether a value was taken unchanged, except that an integer may become the nearest float."""
    if isinstance(requested, float) and isinstance(got, float) and math.isnan(requested):
        return math.isnan(got)
    if type(requested) is int and isinstance(got, float):
        return float(requested) == got
    return requested == got and type(requested) is type(got)


@odd.tried(600, 30_000)
def test_one_odd_value_in_any_key(examples):
    @examples
    @given(where=st.sampled_from(KEYS), value=st.one_of(st.just(ABSENT), odd.VALUES))
    def check(where, value):
        group, name, key = where
        run = judged(put(group, name, key, value))
        if run is None or key == "_target_" or value is ABSENT or value is None or isinstance(value, (list, dict)):
            return
        got = getattr(getattr(run, group) if group else run, key, ABSENT)
        text = str(value)
        assert (
            same(value, got)
            or (key, value) == ("name", "auto")
            or got == text.upper().replace("-", "_")
            or (text.startswith("~") and got == str(Path(text).expanduser()))
        )

    check()


@odd.tried(150, 5_000)
def test_odd_groups_and_unknown_keys(examples):
    groups = st.sampled_from([*config.GROUPS, "hydra", "extra"])

    @examples
    @given(group=groups, key=st.one_of(st.text(max_size=12), odd.PLAIN), value=odd.VALUES, whole=st.booleans())
    def check(group, key, value, whole):
        plain = copy.deepcopy(USUAL)
        plain[group] = value if whole or not isinstance(plain.get(group), dict) else plain[group] | {key: value}
        run = judged(plain)
        known = isinstance(USUAL.get(group), dict) and key in USUAL[group]
        assert run is None or known or group == "hydra" or value == USUAL.get(group)

    check()


@odd.tried(40, 1_500)
def test_odd_overrides_on_the_command_line(examples, monkeypatch):
    """Through Hydra's grammar, in which texts need quotes and brackets have a meaning."""
    cli.register()
    monkeypatch.setattr(cli, "register", lambda: None)  # done; reading all yamls again takes most of the time
    names = st.sampled_from([f"{group}.{key}" if group else key for group, _, key in KEYS])
    values = st.one_of(odd.PLAIN.map(str), st.text("[]{}(),=:$'\"\\~+%#. ax1\n", max_size=12))

    @examples
    @given(sign=st.sampled_from(["", "+", "++", "~"]), key=st.one_of(names, st.text(max_size=6)), value=values)
    def check(sign, key, value):
        try:
            run = compose([f"{sign}{key}={value}"])
        except UsageError as error:
            assert str(error).strip() and len(str(error)) <= odd.SAID
        else:
            assert config.resolve(run.to_dict()) == run

    check()


LONG = "x" * 5000
WRONG = {
    "seed=" + "9" * 5000: "limit",
    "method.rank=" + "[" * 300 + "]" * 300: "nested too deeply",
    f"model.path={LONG}": "is not a readable folder",
    f"method=[{LONG}]": "is a list",
    f"task=[cola,{LONG}]": "names several choices",
    f"model.path=${{{LONG}}}": "is not a key",
    f"output_dir={LONG}": "cannot be the name of a folder",
    "method._target_=.x.Y": "not a class of this package",
    "method._target_=this.s": "not a class of this package",  # a module that prints when it is imported
    "task._target_=rosa_bench.tasks.data2text.DataToText": "an abstract base class",
    "method=null": "must be a string",
    "task.name=../../evil": "part of a file name",
    "task.scored_splits=[../x]": "part of a file name",
    "task.folder=../..": "relative folder",
    "task.score_range=[5,0]": "must be [lower, upper]",
    "task.labels=[] task.metrics=[pearson] task.primary=pearson task.score_range=[-100,100]": "rescale the labels",
    "task.labels=[a,a]": "must not repeat a name",
    f"task.labels=[{LONG},{LONG}]": "must not repeat a name",
    "data.dir=/tmp": "needs data=local",  # else the rows would silently be others
    "train.warmup=1e300": "train.warmup",
    "model.path=/home/jürgen/model": "quote",
}


@pytest.mark.parametrize(("override", "message"), WRONG.items(), ids=[key[:30] for key in WRONG])
def test_known_faults(override, message, capsys):
    assert cli.main(override.split(" ")) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("rosa_bench: ") and odd.is_plain(err.rstrip("\n")) and message in err, err


def test_a_model_name_cannot_leave_the_package(capsys, tmp_path):
    assert cli.main(["model.name=../..", f"output_dir={tmp_path}", "tracker=none"]) == 2
    assert "is not an embedded model" in capsys.readouterr().err


def test_a_folder_without_a_name():
    assert composed("model.path=/").model.name == "root"


NAMES = {
    "train.learning_rate": "train.lr",
    "train.optimizer.lr": "train.lr",
    "learning_rate": "train.lr",
    "+train.learning_rate": "train.lr",
    "num_train_epochs": "train.epochs",
    "train.per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.micro_batch_size",
    "weight_decay": "train.weight_decay",
    "train.warmup_ratio": "train.warmup",
    "max_seq_length": "train.max_length",
    "bf16": "train.precision=bf16",
    "train.fp16": "train.precision=fp16",
    "train.output_dir": "output_dir",
    "train.seed": "seed",
    "r": "method.rank",
    "rank": "method.rank",
    "method.lora_alpha": "method.alpha",
    "method.lora_dropout": "method.dropout",
    "method.target_modules": "method.targets",
}


@pytest.mark.parametrize(("key", "ours"), NAMES.items())
def test_names_of_other_programs_give_the_right_key(key, ours, capsys):
    assert cli.main([f"{key}=1"]) == 2
    assert f"use {ours}" in capsys.readouterr().err


def test_every_hint_is_a_key_or_a_choice():
    known = {f"{group}.{key}" for group, _, key in KEYS if group} | {key for group, _, key in KEYS if not group}
    for hint in FOREIGN.values():
        for ours in hint.split(",")[0].split(" and "):
            key, _, value = ours.partition("=")
            assert key in known and (not value or key != "method" or value in config.choices("method")), hint


BROKEN_FILES = {
    "not yaml": (b"a: [1\n b: {", "cannot be read"),
    "not text": (b"\xff\xfe\x00", "cannot be read"),
    "a list": (b"- 1\n- 2\n", ""),
    "nothing": (b"", ""),
    "half a run": (b"seed: 3\nmodel: {name: auto}\n", "choose one of"),
    "deep": (b"a: " + b"[" * 3000 + b"]" * 3000, "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_configuration_file_is_one_line(name, tmp_path, capsys):
    content, message = BROKEN_FILES[name]
    (tmp_path / "config.yaml").write_bytes(content)
    assert cli.main(["-cp", str(tmp_path), "-cn", "config"]) == 2
    out, err = capsys.readouterr()
    assert message in err and not out and odd.is_plain(err.rstrip("\n")), err
