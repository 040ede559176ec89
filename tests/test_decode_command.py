"""`python -m rosa_bench.decode`: decoding a trained run again at other ranks, on other rows, with other options."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support import EACH, interrupt, skip_refused, small

from rosa_bench import config, decode
from rosa_bench.errors import EXIT_DONE, EXIT_USAGE
from rosa_bench.records.run_key import config_key
from rosa_bench.run import run as run_experiment

TRAINED = ("train.max_steps=3", "train.limit_eval=6", "task.max_new_tokens=8", "save=adapter", "train.lr=0.01")


@pytest.fixture(scope="module")
def dylora(tmp_path_factory) -> tuple[Path, dict]:
    """The folder and scores of a run that was scored at two of its four ranks."""
    folder = tmp_path_factory.mktemp("dylora")
    options = ("method=dylora", "method.rank_max=4", "method.score_ranks=[4,2]")
    record = run_experiment(small(folder, "task=e2e", *TRAINED, *options))
    return folder / record.run_id, record.scores


def told(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = decode.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["prediction"] for line in stream]


@EACH
def test_decoding_again_gives_the_scores_of_the_run(method, tmp_path, capsys):
    skip_refused(method, "gpt2_mini")
    record = run_experiment(small(tmp_path, "task=e2e", f"method={method}", *TRAINED))
    folder, out = tmp_path / record.run_id, tmp_path / "out.jsonl.gz"
    code, printed, _ = told(capsys, folder, "--json", "--out", out)
    content = json.loads(printed)
    assert code == EXIT_DONE and content["rows"] == 6 and content["scores"] == {"test": record.scores["test"]}
    paths = [folder / f"predictions-test{f'-{name}' if name else ''}.jsonl.gz" for name in record.variant_names]
    assert texts(out) == [text for path in paths for text in texts(path)]


def test_the_order_of_overrides_does_not_matter(tmp_path):
    (tmp_path / "config.yaml").write_text(config.repeatable_config(small(tmp_path, "task=cola")), encoding="utf-8")
    for overrides in (["data=local", f"data.dir={tmp_path}"], [f"data.dir={tmp_path}", "data=local"]):
        assert decode.changed(tmp_path, overrides).data.dir == str(tmp_path)


def test_a_classifier_too(tmp_path, capsys):
    record = run_experiment(small(tmp_path, "task=cola", "method=lora", "train.max_steps=3", "save=adapter"))
    code, printed, _ = told(capsys, tmp_path / record.run_id, "--json")
    assert code == EXIT_DONE and json.loads(printed)["scores"]["validation"] == record.scores["validation"]


def test_the_precision_is_that_of_training(tmp_path, capsys):
    options = ("method=lora", "train.max_steps=3", "train.precision=bf16", "save=adapter", "train.lr=0.01")
    record = run_experiment(small(tmp_path, "task=stsb", *options))
    code, printed, _ = told(capsys, tmp_path / record.run_id, "--json")
    assert code == EXIT_DONE and json.loads(printed)["scores"]["validation"] == record.scores["validation"]


def test_ranks_that_were_not_scored(dylora, tmp_path, capsys):
    folder, scores = dylora
    assert list(scores["test"]) == ["r2", "r4"]
    arguments = ("--variant", "r4", "r3", "task.max_new_tokens=8", "--out", tmp_path / "out.jsonl", "--json")
    code, printed, _ = told(capsys, folder, *arguments)
    content = json.loads(printed)["scores"]["test"]
    assert code == EXIT_DONE and list(content) == ["r4", "r3"] and content["r4"] == scores["test"]["r4"]
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["variant"] for row in rows] == ["r4"] * 6 + ["r3"] * 6 and rows[0]["references"]


def test_other_options_and_another_split(dylora, tmp_path, capsys):
    folder, _ = dylora
    options = ("task.num_beams=3", "task.max_new_tokens=5", "train.limit_eval=4", "--split", "validation")
    code, printed, _ = told(capsys, folder, "--variant", "r1", *options, "--out", tmp_path / "out.txt")
    assert code == EXIT_DONE and printed.startswith("validation") and "bleu" in printed
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 4


def test_another_search(dylora, tmp_path, capsys):
    """Options equal to the run's give the same text; an older run without the option can be decoded with it."""
    folder = tmp_path / "run"
    shutil.copytree(dylora[0], folder)
    config = OmegaConf.load(folder / "config.yaml")
    for name in ("search", "no_repeat_ngram_over"):
        config.task.pop(name)
    config.model.pop("dropout")
    OmegaConf.save(config, folder / "config.yaml")
    code, printed, _ = told(capsys, folder, "--json", "--variant", "r4", "task.search=lora")
    assert code == EXIT_DONE and json.loads(printed)["scores"]["test"] == {"r4": dylora[1]["test"]["r4"]}
    beams = ("task.num_beams=3", "task.no_repeat_ngram=2", "task.no_repeat_ngram_over=text")
    assert told(capsys, folder, "--variant", "r4", *beams)[0] == EXIT_DONE
    code, _, err = told(capsys, folder, "--variant", "r4", "task.search=lora", "task.no_repeat_ngram_over=all")
    assert code == EXIT_USAGE and "no_repeat_ngram_over=all" in err and len(err.splitlines()) == 1


def test_rows_from_a_folder(dylora, tmp_path, capsys):
    (tmp_path / "e2e_nlg").mkdir()
    row = {"meaning_representation": "name[The Mill], food[French]", "human_references": ["The Mill is French."]}
    (tmp_path / "e2e_nlg" / "test.jsonl").write_text(json.dumps(row) + "\n")
    code, printed, _ = told(capsys, dylora[0], "--json", "data=local", f"data.dir={tmp_path}")
    assert code == EXIT_DONE and json.loads(printed)["rows"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variant", "r9"), "--variant r9"),
        (("--variant", ""), "choose from r1, r2, r3, r4"),
        (("--split", "tost"), "no split 'tost'"),
        (("method.rank_max=3",), "cannot be changed after training"),
        (("task=dart",), "cannot be changed after training"),
        (("task.num_beans=3",), "did you mean task.num_beams"),
        (("task.num_beams=0",), "task.num_beams=0"),
        (("task.max_new_tokens=1000",), "task.max_new_tokens=1000"),
        (("data=remote",), "data=remote: choose from embedded, hub, local"),
        (("data=local",), "data.dir"),
        (("beams",), "'beams' is not key=value"),
        (("task.num_beams=[",), "task.num_beams=["),
        (("--out", "/nowhere/x.txt"), "--out /nowhere/x.txt cannot be written"),
        (("--out", "x.txt"), "several variants"),
    ],
)
def test_unsupported_options_are_one_line(dylora, capsys, arguments, message):
    code, out, err = told(capsys, dylora[0], *arguments)
    assert code == EXIT_USAGE and message in err and not out and len(err.splitlines()) == 1


def test_folders_without_a_run_or_weights(dylora, tmp_path, capsys):
    code, _, err = told(capsys, tmp_path)
    assert code == EXIT_USAGE and "is not a run folder" in err
    shutil.copy(dylora[0] / "config.yaml", tmp_path)
    code, _, err = told(capsys, tmp_path)
    assert code == EXIT_USAGE and f"{tmp_path / 'record.json'} is not a record" in err
    shutil.copy(dylora[0] / "record.json", tmp_path)
    code, _, err = told(capsys, tmp_path)
    assert code == EXIT_USAGE and "save=adapter" in err
    shutil.copytree(dylora[0] / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"half")
    code, _, err = told(capsys, tmp_path)
    assert code == EXIT_USAGE and "adapter.safetensors is damaged" in err
    for text in ("[", "[]"):
        (tmp_path / "config.yaml").write_text(text)
        code, _, err = told(capsys, tmp_path)
        assert code == EXIT_USAGE and "is not a run folder" in err


def test_a_run_that_is_not_finished(tmp_path, capsys):
    run = small(tmp_path, "task=cola", "method=lora", "train.max_steps=3", "train.keep_checkpoints=true")
    interrupt(run, 2)
    (folder,) = (path.parent for path in tmp_path.glob("*/record.json"))
    code, out, err = told(capsys, folder)
    assert code == EXIT_USAGE and not out and err.endswith("run its command again to finish it\n")
    assert f"{folder} is not finished (status: interrupted)" in err and len(err.splitlines()) == 1


def test_an_adapter_from_before_a_field_existed(dylora, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(dylora[0], folder)
    path = folder / "adapter" / "adapter.json"
    saved = json.loads(path.read_text())
    saved["method"].pop("score_ranks")
    path.write_text(json.dumps(saved))
    config = OmegaConf.load(folder / "config.yaml")
    config.method.pop("score_ranks")
    OmegaConf.save(config, folder / "config.yaml")
    code, printed, _ = told(capsys, folder, "--variant", "r2", "--json")
    assert code == EXIT_DONE and json.loads(printed)["scores"]["test"] == {"r2": dylora[1]["test"]["r2"]}


def test_score_ranks_enter_the_key_only_if_set(tmp_path):
    plain, chosen = (small(tmp_path, "task=e2e", "method=dylora", *more) for more in ((), ("method.score_ranks=[1]",)))
    assert config_key(plain) != config_key(chosen)
    assert plain.method.variants()[0] == "r1" and chosen.method.variants() == ["r1"]
