"""The command line: one command to a detector, a sentence for every mistake, JSON for machines."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from probewatch.bundle import MANIFEST, Bundle, read_bundle
from probewatch.serve.cli import app

FEW = 'features = ["log_odds", "log_gap", "nearest_distance", "changed_share"]'  # so that boosting is quick
TOML = FEW + "\nhidden = 8\nfolds = 2\nepochs = 3\nlearning_rate = 0.01\n"


def _run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    assert "Traceback" not in result.output
    return result


def _text(log: Path) -> str:
    return gzip.decompress(log.read_bytes()).decode()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(TOML)
    return path


def test_train_evaluate_score_inspect_in_a_row(log_files: tuple[Path, Path], config: Path, tmp_path: Path) -> None:
    log, labels = log_files
    out = tmp_path / "bundle"
    shown = _run("train", log, "--labels", labels, "--config", config, "--out", out).stdout
    assert "LSTM" in shown
    assert "boosting" in shown
    assert str(out / "report" / "index.html") in shown.replace("\n", "")
    read_bundle(out)
    assert "test split count" in _run("evaluate", out, log, "--labels", labels, "--out", tmp_path / "again").stderr
    assert (tmp_path / "again" / "report" / "metrics.json").exists()
    verdicts = tmp_path / "verdicts.jsonl"
    shown = _run("score", out, log, "--out", verdicts).stdout
    assert "of 72 sessions alert" in shown
    rows = [json.loads(line) for line in verdicts.read_text().splitlines()]
    assert len(rows) == 72
    assert {"session", "client", "model", "events", "score", "last_score", "alert", "first_alert", "why"} <= set(
        rows[0]
    )
    assert "threshold" in _run("inspect", out).stdout


def test_json_is_one_object_on_stdout(bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path) -> None:
    log, labels = log_files
    inspected = json.loads(_run("inspect", log, "--json").stdout)
    assert (
        inspected["read"] == inspected["events"] + inspected["duplicates"] + inspected["skipped"] + inspected["rejects"]
    )
    assert (inspected["sessions"], inspected["clients"]) == (72, 24)
    assert inspected["models"]["credit"]["inputs"] == 6
    scored = json.loads(_run("score", bundle.folder, log, "--json").stdout)
    assert scored["sessions"] == 72
    assert len(scored["highest"]) == 72
    assert scored["alerts"] == sum(row["alert"] for row in scored["highest"])
    evaluated = json.loads(_run("evaluate", bundle.folder, log, "--labels", labels, "--out", tmp_path, "--json").stdout)
    assert evaluated["n"] == bundle.manifest["data"]["test"]
    assert json.loads(_run("inspect", bundle.folder, "--json").stdout)["features"] == bundle.features


def test_quiet_prints_nothing(bundle: Bundle, log_files: tuple[Path, Path]) -> None:
    result = _run("score", bundle.folder, log_files[0], "--quiet")
    assert result.stdout == ""
    assert result.stderr == ""


def test_highest_scores_come_first_and_alerts_before_all(bundle: Bundle, log_files: tuple[Path, Path]) -> None:
    rows = json.loads(_run("score", bundle.folder, log_files[0], "--json").stdout)["highest"]
    keys = [(row["alert"], row["score"]) for row in rows]
    assert keys == sorted(keys, reverse=True)


def test_a_threshold_of_ones_choice_counts(bundle: Bundle, log_files: tuple[Path, Path]) -> None:
    none = json.loads(_run("score", bundle.folder, log_files[0], "--threshold", 1, "--json").stdout)
    every = json.loads(_run("score", bundle.folder, log_files[0], "--threshold", 0, "--json").stdout)
    assert (none["alerts"], every["alerts"]) == (0, 72)


def test_rejects_are_counted_told_and_written(bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path) -> None:
    log = tmp_path / "broken.jsonl"
    lines = _text(log_files[0]).splitlines()
    lines.insert(3, "{broken")
    log.write_text("\n".join(lines) + "\n")
    rejects = tmp_path / "rejects.jsonl"
    result = _run("score", bundle.folder, log, "--rejects", rejects)
    assert "1 rejects" in result.stdout
    assert "broken.jsonl:4" in result.stderr.replace("\n", "")
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [4]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["score", "nowhere", "{log}"], "not a bundle, expected a folder with a manifest.json"),
        (["score", "{bundle}", "nowhere.jsonl"], "nowhere.jsonl is not there"),
        (["score", "{bundle}", "{log}", "--out", "x.xlsx"], "expected one of .jsonl, .csv, .parquet"),
        (["train", "{log}", "--out", "{tmp}/b"], "0 attack sessions"),
        (
            ["train", "{log}", "--out", "{tmp}/b", "--preset", "best"],
            "--preset is 'best', expected one of: default, article",
        ),
        (["train", "{log}", "--out", "{tmp}/b", "--features", "moon"], "moon"),
        (
            ["train", "{log}", "--out", "{tmp}/b", "--split", "moon"],
            "split is 'moon', expected stratified, client or time",
        ),
        (["train", "{log}", "--out", "{tmp}/b", "--device", "moon"], "--device is 'moon'"),
        (["train", "{log}", "--out", "{tmp}/b", "--labels", "nowhere.csv"], "nowhere.csv"),
        (["train", "{log}", "--out", "{tmp}/b", "--config", "nowhere.toml"], "nowhere.toml"),
        (["inspect", "{log}", "--map", "nowhere.toml"], "nowhere.toml"),
        (["evaluate", "{bundle}", "{log}", "--out", "{tmp}/e"], "no labelled session"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_code_2(
    words: list[str], sentence: str, bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    filled = [word.format(bundle=bundle.folder, log=log_files[0], tmp=tmp_path) for word in words]
    result = _run(*filled, code=2)
    assert sentence in result.stderr
    assert result.stdout == ""


def test_a_wrong_option_is_exit_code_2() -> None:
    _run("score", "--nonsense", code=2)


@pytest.mark.parametrize("verb", ["train", "evaluate", "score", "inspect", "demo"])
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    assert f"Example: probewatch {verb}" in " ".join(_run(verb, "--help").stdout.split())


@pytest.mark.parametrize("verb", ["train", "score", "evaluate"])
def test_kill_leaves_the_previous_artefact_whole(
    verb: str, bundle: Bundle, log_files: tuple[Path, Path], config: Path, tmp_path: Path
) -> None:
    log, labels = log_files
    out = tmp_path / "out"
    words = {
        "train": ["train", log, "--labels", labels, "--config", config, "--out", out],
        "evaluate": ["evaluate", bundle.folder, log, "--labels", labels, "--out", out],
        "score": ["score", bundle.folder, log, "--out", out / "verdicts.jsonl"],
    }[verb]
    target = {"train": out / MANIFEST, "evaluate": out / "report" / "metrics.json", "score": out / "verdicts.jsonl"}[
        verb
    ]
    command = [sys.executable, "-m", "probewatch", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)
    before = target.read_bytes()
    for delay in (0.5, 1.0, 1.6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert target.read_bytes() == before
        if verb == "train":
            read_bundle(out)
    subprocess.run(command, check=True, capture_output=True)
    assert target.read_bytes() == before


def test_hostile_names_reach_no_terminal(
    bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    log = tmp_path / "hostile.jsonl"
    text = _text(log_files[0]).replace('"user-0"', '"\\u001b[31m[bold]x"')
    log.write_text(text)
    shown = _run("score", bundle.folder, log, "--threshold", 0).stdout
    assert "\x1b" not in shown
    assert "[bold]x" in shown
