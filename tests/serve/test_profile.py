"""Profiles on the command line: made, kept, and used by the other verbs."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from probewatch.data.profiles import KEY_FILE, read_profiles
from probewatch.learn.detector import train_detector
from probewatch.learn.labelled import Labelled
from probewatch.learn.presets import Config
from probewatch.serve.cli import app

TOML = 'features = ["log_odds", "log_gap", "changed_share", "member_ratio", "records_excess"]\n'
TOML += "hidden = 8\nfolds = 2\nepochs = 2\nlearning_rate = 0.01\n"


def _run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    assert "Traceback" not in result.output
    return result


def _records(path: Path, count: int, seed: int) -> Path:
    """Records of the model of the shared log, with answers."""
    random = np.random.default_rng(seed)
    lines = [
        {
            "featureVector": random.normal(size=6).round(5).tolist(),
            "confidence": round(float(random.uniform(0.5, 1)), 6),
        }
        for _ in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    """A folder of targets with the model of the shared log."""
    for seed, role in enumerate(("train", "holdout")):
        _records(tmp_path / "targets" / "credit" / f"{role}.jsonl", 60, seed)
    return tmp_path / "targets"


@pytest.fixture(scope="module")
def profiled(labelled: Labelled, quick: Config, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small detector whose features use profiles."""
    config = replace(quick, features=("log_odds", "log_gap", "changed_share", "member_ratio", "records_excess"))
    return train_detector(labelled, config, tmp_path_factory.mktemp("profiled"), rivals=False)[0]


def test_a_profile_is_made_from_two_files_and_its_key_lies_apart(targets: Path, tmp_path: Path) -> None:
    train, holdout = targets / "credit" / "train.jsonl", targets / "credit" / "holdout.jsonl"
    files = ("--train", train, "--holdout", holdout)
    shown = _run("profile", *files, "--model", "credit", "--out", tmp_path / "p")
    assert "credit" in shown.stdout
    assert stat.S_IMODE((tmp_path / "p" / KEY_FILE).stat().st_mode) == 0o600
    assert read_profiles(tmp_path / "p")["credit"].records == (60, 60)
    apart = tmp_path / "secret" / "key"
    told = json.loads(_run("profile", *files, "--model", "b", "--out", tmp_path / "q", "--key", apart, "--json").stdout)
    assert told["key"] == str(apart)
    assert not (tmp_path / "q" / KEY_FILE).exists()
    assert told["profiles"][0]["bytes"] < 1_000_000
    assert read_profiles(tmp_path / "q", apart).keys() == {"b"}


def test_records_that_can_tell_little_are_told(targets: Path, tmp_path: Path) -> None:
    train, others = (targets / "credit" / f"{role}.jsonl" for role in ("train", "holdout"))
    words = ("profile", "--model", "credit", "--out", tmp_path / "profiles", "--train", train, "--holdout")
    assert "little" not in _run(*words, others).stderr
    assert "100% of the others are training records too" in _run(*words, train).stderr
    few = _records(tmp_path / "few.jsonl", 3, 9)
    assert "credit: 3 others are few to measure by" in _run(*words, few).stderr


def test_a_profile_is_estimated_from_a_log_and_says_so(log_files: tuple[Path, Path], tmp_path: Path) -> None:
    result = _run("profile", "--from-log", log_files[0], "--model", "credit", "--out", tmp_path / "p")
    assert "knows no training records" in result.stderr
    assert read_profiles(tmp_path / "p")["credit"].estimated
    assert not (tmp_path / "p" / KEY_FILE).exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--model", "m"], "expected one of --train FILE with --holdout FILE, --targets DIR and --from-log LOG"),
        (["--train", "t", "--targets", "d", "--model", "m"], "expected one of"),
        (["--train", "t", "--model", "m"], "--holdout FILE is missing"),
        (["--train", "t", "--holdout", "h"], "--model NAME is missing"),
        (["--train", "nowhere", "--holdout", "h", "--model", "m"], "nowhere is not there"),
        (["--targets", "nowhere"], "expected a folder MODEL with train"),
    ],
)
def test_mistakes_are_sentences(words: list[str], reason: str, tmp_path: Path) -> None:
    result = _run("profile", *words, "--out", tmp_path, code=2)
    assert reason in result.stderr.replace("\n", " ")


def test_train_evaluate_and_score_take_targets_or_profiles(
    log_files: tuple[Path, Path], targets: Path, tmp_path: Path
) -> None:
    log, labels = log_files
    config = tmp_path / "quick.toml"
    config.write_text(TOML)
    out = tmp_path / "bundle"
    _run("train", log, "--labels", labels, "--config", config, "--targets", targets, "--out", out)
    _run("profile", "--targets", targets, "--out", tmp_path / "p")
    known = ("--profiles", tmp_path / "p")
    _run("evaluate", out, log, "--labels", labels, *known, "--out", tmp_path / "checked")
    scored = json.loads(_run("score", out, log, *known, "--json").stdout)
    assert scored["without_profile"] == 0
    again = json.loads(_run("score", out, log, "--targets", targets, "--json").stdout)
    assert again["highest"] == scored["highest"]  # another key, the same features: no training record is asked for
    text = "".join(path.read_text(errors="replace") for path in out.rglob("*") if path.is_file())
    assert (tmp_path / "p" / KEY_FILE).read_text().strip() not in text


def test_logs_of_several_models_bring_their_labels_and_targets_each(
    profiled: Any, log_files: tuple[Path, Path], targets: Path, tmp_path: Path
) -> None:
    log, labels = log_files
    head, *rows = labels.read_text().splitlines()
    for name, part in (("one.csv", rows[::2]), ("two.csv", rows[1::2])):
        (tmp_path / name).write_text("\n".join([head, *part]) + "\n")
    _records(tmp_path / "t" / "churn" / "train.jsonl", 30, 5)
    _records(tmp_path / "t" / "churn" / "holdout.jsonl", 30, 6)
    halves = ("--labels", tmp_path / "one.csv", "--labels", tmp_path / "two.csv")
    both = ("--targets", targets, "--targets", tmp_path / "t")
    told = _run("evaluate", profiled.folder, log, *halves, *both, "--out", tmp_path / "e", "--json")
    whole = _run("evaluate", profiled.folder, log, "--labels", labels, *both[:2], "--out", tmp_path / "w", "--json")
    assert json.loads(told.stdout)["roc_auc"] == json.loads(whole.stdout)["roc_auc"]
    again = ("--targets", targets, "--targets", targets)
    assert "as a folder before it has" in _run("score", profiled.folder, log, *again, code=2).stderr.replace("\n", " ")


def test_several_folders_make_one_of_profiles_and_a_mistake_leaves_no_key(targets: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("train", "holdout")):
        _records(tmp_path / "t" / "churn" / f"{name}.jsonl", 30, number)
    both = ("--targets", targets, "--targets", tmp_path / "t")
    made = json.loads(_run("profile", *both, "--out", tmp_path / "p", "--json").stdout)
    assert [one["model"] for one in made["profiles"]] == ["credit", "churn"]
    _run("profile", "--targets", tmp_path, "--out", tmp_path / "q", code=2)
    assert not (tmp_path / "q").exists()


def test_records_without_confidences_are_told(tmp_path: Path) -> None:
    for name in ("train", "holdout"):
        lines = [f'{{"featureVector": [{number}, {len(name)}]}}' for number in range(60)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    files = ("--train", tmp_path / "train.jsonl", "--holdout", tmp_path / "holdout.jsonl")
    told = _run("profile", *files, "--model", "credit", "--out", tmp_path / "p").stderr
    assert "there are no confidences of one kind" in " ".join(told.split())


def test_the_report_says_what_was_evaluated_and_how_much_of_it_had_a_profile(
    profiled: Any, log_files: tuple[Path, Path], targets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, labels = log_files
    monkeypatch.chdir(log.parent)
    words = ("evaluate", profiled.folder, log.name, "--labels", labels, "--out", tmp_path, "--json")
    files = [tmp_path / "report" / name for name in ("metrics.json", "index.html")]
    printed = json.loads(_run(*words).stdout)
    metrics, page = json.loads(files[0].read_text()), files[1].read_text()
    assert metrics["source"] == {"detector": str(profiled.folder), "logs": [log.name]} == printed["source"]
    assert f"Queries: <b>{log.name}</b>" in page
    n = metrics["n"]
    told = {"models": 1, "models_without": ["credit"], "sessions": n, "sessions_without": n, "sessions_estimated": 0}
    assert metrics["profiles"] == told == printed["profiles"]
    assert f"0 of 1 model had a profile, and so had 0 of {n} sessions." in page
    _run(*words, "--targets", targets)
    told |= {"models_without": [], "sessions_without": 0}
    assert json.loads(files[0].read_text())["profiles"] == told
    assert f"1 of 1 model had a profile, and so had {n} of {n} sessions." in files[1].read_text()
    _run("evaluate", log.name, "--labels", labels, "--out", tmp_path)
    assert json.loads(files[0].read_text())["source"] == {"detector": "the packaged detector", "logs": [log.name]}


def test_score_says_once_which_models_have_no_profile(
    profiled: Any, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    random = _records(tmp_path / "t" / "other" / "train.jsonl", 30, 5)
    _records(random.parent / "holdout.jsonl", 30, 6)
    for words in ((), ("--targets", tmp_path / "t")):
        result = _run("score", profiled.folder, log_files[0], *words, "--json")
        assert json.loads(result.stdout)["without_profile"] == 72
        told = re.sub(r"\s+", " ", result.stderr)
        assert told.count("72 of 72 sessions were judged without a profile of their model") == 1
        assert "credit" in told
        assert ("No query went to the models of the profiles other" in told) == bool(words)


def test_score_says_that_a_profile_was_estimated(profiled: Any, log_files: tuple[Path, Path], tmp_path: Path) -> None:
    _run("profile", "--from-log", log_files[0], "--model", "credit", "--out", tmp_path / "p")
    result = _run("score", profiled.folder, log_files[0], "--profiles", tmp_path / "p", "--json")
    told = json.loads(result.stdout)
    assert (told["without_profile"], told["estimated_profile"]) == (0, 72)
    assert len(told["highest"]) == 72
    shown = re.sub(r"\s+", " ", result.stderr)
    assert shown.count("72 of 72 sessions were judged by a profile that was estimated from a log") == 1
    assert "without a profile" not in shown


def test_profiles_and_targets_together_or_a_key_alone_are_refused(
    profiled: Any, log_files: tuple[Path, Path], targets: Path, tmp_path: Path
) -> None:
    both = _run("score", profiled.folder, log_files[0], "--targets", targets, "--profiles", tmp_path, code=2)
    assert "both given" in both.stderr
    assert "without --profiles" in _run("score", profiled.folder, log_files[0], "--key", "k", code=2).stderr
    assert "holds no profiles" in _run("score", profiled.folder, log_files[0], "--profiles", tmp_path, code=2).stderr
