"""``probewatch benchmark``: the leave-one-out table on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from probewatch.serve.cli import app

TOML = 'features = ["log_odds", "log_gap"]\nhidden = 4\nfolds = 2\nepochs = 1\nlearning_rate = 0.01\n'


def _run(*words: object, code: int = 0, columns: int = 160) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": str(columns)})
    assert result.exit_code == code, result.output + str(result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A file of settings under which training takes a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    return path


@pytest.mark.parametrize("columns", [80, 160])
def test_the_table_of_clients_lines_up_and_its_files_are_written(
    log_files: tuple[Path, Path], settings: Path, tmp_path: Path, columns: int
) -> None:
    log, labels = log_files
    words = ("benchmark", log, "--labels", labels, "--leave-out", "none", "--seeds", 1, "--workers", 1)
    shown = _run(*words, "--config", settings, "--out", tmp_path / "out", columns=columns)
    lines = [line for line in shown.stdout.splitlines() if line.startswith(("│", "┃"))]
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= columns
    assert "1 of 1: without nothing, seed 0" in shown.stderr
    assert "too few to speak of an FPR of 1.0%" in shown.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["leave_out.html", "leave_out.json"]


def test_json_is_what_the_file_holds(log_files: tuple[Path, Path], settings: Path, tmp_path: Path) -> None:
    log, labels = log_files
    words = ("benchmark", log, "--labels", labels, "--leave-out", "none", "--seeds", 1, "--workers", 1)
    told = json.loads(_run(*words, "--config", settings, "--out", tmp_path, "--json").stdout)
    assert told.pop("out") == str(tmp_path)
    assert told == json.loads((tmp_path / "leave_out.json").read_text())


def test_a_wrong_choice_is_a_sentence(log_files: tuple[Path, Path]) -> None:
    result = _run("benchmark", log_files[0], "--leave-out", "client", code=2)
    assert "--leave-out is 'client', expected one of: family, dataset, none." in result.stderr


def test_a_folder_that_cannot_be_made_is_told_before_training(log_files: tuple[Path, Path], settings: Path) -> None:
    log, labels = log_files
    result = _run("benchmark", log, "--labels", labels, "--config", settings, "--out", log / "below", code=2)
    assert "the table cannot be written there" in result.stderr
    assert "1 of" not in result.stderr
