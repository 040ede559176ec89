"""`python -m rosa_bench.tables.claims`: one table from archives alone, or one line of what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rosa_bench.errors import EXIT_DONE, EXIT_USAGE
from rosa_bench.tables.claims.__main__ import main

CONFIGS = Path(__file__).parents[3] / "configs"


def test_it_judges_all_claims_of_every_suite_from_committed_records(capsys):
    assert main([]) == EXIT_DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| # | claim | paper |") and lines[0].count("verdict") == 2
    assert [line.split(" | ")[0] for line in lines[2:15]] == [f"| {n}" for n in range(1, 14)]


def test_without_records_every_claim_is_undecided(tmp_path, capsys):
    assert main(["claims", "--runs", str(tmp_path)]) == EXIT_DONE
    rows = capsys.readouterr().out.splitlines()[2:15]
    assert all("| – | undecided: " in row and "runs missing" in row for row in rows)


def test_overrides_change_what_is_judged(tmp_path, capsys):
    assert (
        main(["claims", "task=mrpc", "data=embedded", "model=auto", "--details", "--runs", str(tmp_path)]) == EXIT_DONE
    )
    assert "undecided" in capsys.readouterr().out


def test_a_suite_without_a_cell_for_the_overrides_has_no_column(tmp_path, capsys):
    assert main(["task=e2e", "--runs", str(tmp_path)]) == EXIT_DONE
    assert "Claims: real rows" in (head := capsys.readouterr().out.splitlines()[0]) and head.count("verdict") == 1
    assert main(["task=openbookqa", "--runs", str(tmp_path)]) == EXIT_USAGE
    assert "no cell of suite claims has a task of this kind" in capsys.readouterr().err


def test_a_copy_of_a_suite_has_its_own_column(tmp_path, monkeypatch, capsys):
    own = tmp_path / "configs"
    shutil.copytree(CONFIGS, own)
    shutil.copytree(CONFIGS.parent / "results" / "papers", tmp_path / "results" / "papers")
    shutil.copy(own / "suite" / "embedded.yaml", own / "suite" / "mine.yaml")
    monkeypatch.setattr("rosa_bench.config.config_dir", lambda: own)
    assert main(["--runs", str(tmp_path)]) == EXIT_DONE
    assert capsys.readouterr().out.splitlines()[0].count("verdict") == 3


@pytest.mark.parametrize(
    ("name", "line"), [("claim", "suite claim does not exist: did you mean claims"), ("smoke", "no claims in smoke")]
)
def test_a_suite_without_claims_is_named(name, line, capsys):
    assert main([name]) == EXIT_USAGE
    assert line in capsys.readouterr().err


def test_suites_with_different_claims_are_not_put_in_one_table(tmp_path, monkeypatch, capsys):
    own = tmp_path / "configs"
    shutil.copytree(CONFIGS, own)
    suite = own / "suite" / "embedded.yaml"
    claims = (
        (own / "suite" / "claims.yaml").read_text().partition("\nclaims:\n")[2].partition("  - id: rosa_approaches")[0]
    )
    suite.write_text(suite.read_text().replace("claims: claims\n", f"claims:\n{claims}\n"))
    monkeypatch.setattr("rosa_bench.config.config_dir", lambda: own)
    assert main(["--runs", str(tmp_path)]) == EXIT_USAGE
    assert "have different claims" in capsys.readouterr().err
