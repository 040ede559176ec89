"""The documentation: it builds without a warning, loads nothing from other sites, and its code blocks run.

The blocks of a page run in their order, in one folder. A run is cut to a few steps. What needs a hub, a GPU or a
cluster is composed or planned instead. `bash` blocks are for other machines: of these, only suites are planned.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from support import SMALL

import rosa_bench
from rosa_bench import cli, config, embedded
from rosa_bench.config import OWN_FOLDER
from rosa_bench.suite import plan

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {str(path.relative_to(ROOT / "docs")): path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.md")}
CODE = {name: BLOCK.findall(text) for name, text in sorted(PAGES.items()) if BLOCK.search(text)}
ELSEWHERE = ("data=hub", "tracker.mode=online")
NO_COMMANDS = ("ls", "source", "git")
MODULES = {"suite": "suite.__main__", "tables": "tables.__main__", "tables.claims": "tables.claims.__main__"}
QUICK = [*SMALL, "train.limit_train=16", "train.limit_eval=16", "train.max_steps=2", "train.threads=1"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def test_links_and_anchors_are_valid(site):
    assert (site / "background" / "methods.html").is_file()


def test_pages_load_nothing_from_other_sites(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"(?:https?:)?//[^\"]*", html)
        links = re.findall(r"<link[^>]*>", html)
        loaded += [link for link in links if 'href="http' in link and re.search("stylesheet|preload|preconnect", link)]
        assert not loaded, (page, loaded)
        assert 'class="mermaid"' not in html  # its renderer would be loaded from another site


def test_links_to_pages_in_other_files_are_valid():
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for page, anchor in re.findall(r"\]\((docs/[^)#]+\.md)(?:#([^)]*))?\)", path.read_text(encoding="utf-8")):
            text = PAGES[page.removeprefix("docs/")]
            headings = [re.sub(r"[^\w -]", "", line.lstrip("# ")) for line in text.splitlines() if line[:1] == "#"]
            assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], (path, anchor)


def test_pages_named_in_code_exist():
    for folder in ("rosa_bench", "configs", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".sh"):
                for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
                    assert (ROOT / page).is_file(), (path, page)


def test_examples_in_pages_are_the_files():
    page = PAGES["howto/own-method.md"]
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.suffix in (".py", ".yaml"):
            assert path.read_text(encoding="utf-8").rstrip() in page, path


@pytest.fixture
def folder(tmp_path, monkeypatch, backbone) -> Iterator[Path]:
    """A working directory with the examples, and a folder DIR with local rows and a backbone."""
    monkeypatch.chdir(tmp_path)
    for name in (OWN_FOLDER, "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copytree(ROOT / "examples", "examples")
    shutil.copytree(backbone("roberta"), "DIR")
    rows = [row for split in ("train", "validation") for row in embedded.rows("cola", split)[:60]]
    for name, texts in {"glue/cola": "sentence", "reviews": "review"}.items():
        place = Path("DIR", name)
        place.mkdir(parents=True)
        for split, part in (("train", rows[:60]), ("validation", rows[60:])):
            lines = [json.dumps({texts: row["sentence"], "label": row["label"]}) + "\n" for row in part]
            (place / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    Path("outputs.txt").write_text("The Mill serves French food.\nThe Mill is cheap.\n")
    references = [{"references": ["The Mill serves French food."]}, {"references": ["The Mill is a cheap pub."]}]
    Path("references.jsonl").write_text("".join(json.dumps(row) + "\n" for row in references))
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def lines(block: str) -> list[list[str]]:
    """The commands of a block as words, without comments."""
    commands = (shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines())
    return [words for words in commands if words]


def latest() -> str:
    """The name of the newest run."""
    return max(Path("results/runs").glob("*/record.json"), key=lambda path: path.stat().st_mtime_ns).parent.name


class Shell:
    """Does what the commands of a page say, in this process where that is possible.

    Sweeps and runs that need another machine are composed, suites are planned. With `whole` sweeps run too.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
        self.monkeypatch, self.whole = monkeypatch, whole

    def execute(self, words: list[str]) -> None:
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            self.monkeypatch.setenv(name, value)
        if words[0] in NO_COMMANDS:
            return
        if words[0] == "make":
            done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
        elif words[0] == "pytest" or words[:3] == ["python", "-m", "pytest"]:
            paths = [word for word in words if word.startswith("tests/")]
            assert paths and all((ROOT / path).exists() for path in paths)
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file()
        else:
            assert words[:2] == ["python", "-m"], words
            self.module(words[2], [word.replace("RUN", latest()) if "RUN" in word else word for word in words[3:]])

    def module(self, name: str, arguments: list[str]) -> None:
        """Run a command of the package."""
        if name == "rosa_bench":
            self.run(arguments)
            return
        short = name.partition(".")[2]
        if "--suite" in arguments:  # there are no records of it
            assert plan.load(arguments[arguments.index("--suite") + 1]).cells
            return
        main = importlib.import_module(f"rosa_bench.{MODULES.get(short, short)}").main
        if short == "suite":
            arguments = [*arguments, "--dry-run"]
        elif short == "decode":
            arguments = [*arguments, "train.limit_eval=8"]
        elif short.startswith("tables") and not Path("results/runs").is_dir():
            self.run([])
        if short == "tables":
            arguments = [*arguments, "--no-plots"]
        absent = {"suite": {"--gpus", "--cluster", "data.dir=DIR"}, "doctor": {"suite=lora_table2"}}  # a GPU, a hub
        unreachable = absent.get(short, set()) & set(arguments)
        assert main(arguments) in ((0, 2) if unreachable else (0,)), (name, arguments)

    def run(self, arguments: list[str]) -> None:
        """A run or a sweep of a few steps, or its composition."""
        apart = {"-m", "-cd"} & set(arguments)  # own modules are for new processes only
        if "-m" in arguments and not self.whole:
            compose_all(arguments)
            return
        if {"--help", "--cfg"} & set(arguments):
            small = []
        elif any(text in ELSEWHERE or "OWNER" in text for text in arguments):
            small = ["--cfg", "job"]
        else:
            small = [
                key for key in QUICK if not any(text.startswith(key.partition("=")[0] + "=") for text in arguments)
            ]
        if apart:
            command = [sys.executable, "-m", "rosa_bench", *arguments, *small]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
        else:
            self.monkeypatch.setattr(sys, "argv", ["rosa_bench"])
            assert cli.main([*arguments, *small]) == 0, arguments


def compose_all(arguments: list[str]) -> None:
    """Compose every cell of a sweep."""
    if "-cd" in arguments:
        config.use_folder(arguments[arguments.index("-cd") + 1])
    OverridesParser.create().parse_overrides([word for word in arguments if "=" in word])
    swept = [word for word in arguments if "=" in word and not word.startswith("hydra") and "(" not in word]
    overrides = [word.partition("=") for word in swept]  # a range of Optuna has no value before its trials
    values = [[value] if value.startswith("[") else value.split(",") for _, _, value in overrides]
    for cell in itertools.product(*values):
        rosa_bench.compose([f"{key}={value}" for (key, _, _), value in zip(overrides, cell, strict=True)])


@pytest.mark.parametrize("page", CODE)
def test_the_code_blocks_of_a_page_run(page, folder, monkeypatch):
    shell = Shell(monkeypatch, whole=page == "quickstart.md")
    examples = {path.read_text(encoding="utf-8").strip() for path in Path("examples").rglob("*.py")}
    for language, block in CODE[page]:
        if language in ("sh", "bash"):
            for words in lines(block):
                if language == "sh":
                    shell.execute(words)
                elif "rosa_bench.suite" in words:
                    shell.module("rosa_bench.suite", words[words.index("rosa_bench.suite") + 1 :])
        elif language == "python" and block.strip() not in examples:
            exec(block, {"__name__": "block"})
        elif language == "yaml":
            keep(block)
        else:
            assert language in ("text", "python", "dockerfile"), language
    for path in Path("my_configs/suite").glob("*.yaml"):
        monkeypatch.setenv(OWN_FOLDER, "my_configs")
        shell.module("rosa_bench.suite", [path.stem])


def keep(block: str) -> None:
    """Write a yaml whose first line names a file of a user's own folder."""
    assert isinstance(yaml.safe_load(block), dict)
    if path := re.match(r"# (my_configs/\S+)\n", block):
        Path(path[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(path[1]).write_text(block.partition("\n")[2], encoding="utf-8")
