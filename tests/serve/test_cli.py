"""The command line: one command to a detector, a sentence for every mistake, JSON for machines."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from probewatch.bundle import MANIFEST, Bundle, read_bundle
from probewatch.data.columns import FEATURES
from probewatch.errors import DataError
from probewatch.serve.cli import app
from probewatch.serve.exits import sentences

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
    daily = ("--max-alerts-per-day", 20, "--sessions-per-day", 100)
    shown = _run("train", log, "--labels", labels, "--config", config, "--out", out, *daily).stdout
    assert "chosen for at most 20 % of benign sessions" in shown
    assert re.search(r"on the test split: [\d.]+ % \(95 %: [\d.]+ % to [\d.]+ %\) of \d+ benign sessions", shown)
    assert re.search(r"out of fold: [\d.]+ % \(95 %: [\d.]+ % to [\d.]+ %\) of \d+ benign sessions", shown)
    card = (out / "README.md").read_text()
    for row in ("FPR at the threshold", "FPR out of fold"):
        assert re.search(rf"\| {row} +\| +[\d.]+ \([\d.]+ to [\d.]+\) \|", card)
    for told in ("a log without input vectors", "a log with hashes in the place of input vectors"):
        assert re.search(
            rf"^With {told}: ROC AUC [\d.]+, at the threshold TPR [\d.]+, FPR [\d.]+\.$", shown, re.MULTILINE
        )
        assert re.search(rf"^\| {told} +\| +[\d.]+ \| +[\d.]+ \| +[\d.]+ \|$", card, re.MULTILINE)
        assert told in (out / "report" / "index.html").read_text()
    assert "Probewatch" in shown
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


def test_a_stated_share_of_attacks_is_told_and_changes_no_alert(
    bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    log, labels = log_files
    usual = json.loads(_run("score", bundle.folder, log, "--json").stdout)
    result = _run("score", bundle.folder, log, "--prior", 0.001, "--json")
    moved = json.loads(result.stdout)
    assert "probabilities where 0.1 % of the sessions are attacks" in result.stderr
    assert (usual["prior"], moved["prior"]) == (bundle.prior, 0.001)
    assert moved["alerts"] == usual["alerts"] > 0
    assert moved["threshold"] < usual["threshold"]
    words = ("evaluate", bundle.folder, log, "--labels", labels, "--out", tmp_path, "--json")
    usual, moved = json.loads(_run(*words).stdout), json.loads(_run(*words, "--prior", 0.001).stdout)
    assert any("0.1 % of the sessions" in note for note in moved["notes"])
    for name in ("confusion_matrix", "roc_auc", "delay"):
        assert usual[name] == moved[name]
    assert moved["loss"] != usual["loss"]
    assert (usual["probability_share"], moved["probability_share"]) == (usual["prevalence"], 0.001)
    assert "Taken where 0.1 % of the sessions are attacks" in (tmp_path / "report" / "index.html").read_text()
    assert moved["brier"] < 0.001 < usual["brier"], "never to alert has a Brier score of the share of attacks"
    assert "expected one above 0 and below 1" in _run("score", bundle.folder, log, "--prior", 1, code=2).stderr


def test_inspect_tells_what_a_log_and_what_a_profile_would_give(log_files: tuple[Path, Path], tmp_path: Path) -> None:
    own = sum(feature.group not in ("profile", "members") for feature in FEATURES.values())
    profile, members = (sum(f.group == group for f in FEATURES.values()) for group in ("profile", "members"))
    shown = " ".join(_run("inspect", log_files[0]).stdout.split())
    assert f"features {own} of {own} more with a profile" in shown
    assert f"{profile} of the model and {members} of the training records" in shown
    assert "has no" not in shown
    lines = [json.loads(line) for line in _text(log_files[0]).splitlines()[:30]]
    for line in lines:
        del line["details"]["queryResponse"]["confidence"]
        line["details"]["queryInput"]["featureVector"] = "5f3a" * 4
    hashed = tmp_path / "hashed.jsonl"
    hashed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = " ".join(_run("inspect", hashed).stdout.split())
    assert "the log has no confidence, hashes for inputs, which tell repeats alone" in shown
    assert "none: it needs confidences or inputs" in shown


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


def _hear() -> None:
    """A job in the background inherits that Ctrl-C is ignored; one that a person stops does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "name", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
@pytest.mark.parametrize("verb", ["train", "score"])
def test_a_stopped_verb_ends_with_a_sentence_and_its_exit_code(
    verb: str, number: int, name: str, code: int, bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    words = ["train", "-", "--out", out] if verb == "train" else ["score", bundle.folder, "-", "--out", out / "v.csv"]
    command = [sys.executable, "-m", "probewatch", *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    place = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, **pipes, text=True, env=place, preexec_fn=_hear) as process:
        while not list(scratch.glob("*/standard input")):  # then it waits for a log that never comes
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    advice = "go on with the same command and --resume" if verb == "train" else "nothing was half-written"
    assert told == f"probewatch: stopped by {name}; {advice}.\n"
    assert process.returncode == code
    assert not list(scratch.glob("probewatch-*"))


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (80, ["session", "events", "score", "alert at", "what it did"]),
        (100, ["session", "client", "events", "score", "alert at", "what it did"]),
        (120, ["session", "client", "model", "events", "score", "alert at", "what it did"]),
    ],
)
def test_a_narrow_screen_keeps_the_reason_and_loses_the_names(
    width: int, heads: list[str], bundle: Bundle, log_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = _run("score", bundle.folder, log_files[0], "--threshold", 0).stdout.splitlines()
    (head,) = [line for line in lines if "session " in line and "┃" in line]
    assert [cell.strip() for cell in head.strip("┃").split("┃")] == heads
    assert all(len(line) <= width for line in lines if line.startswith("│"))
    first = next(line for line in lines if line.startswith("│")).strip("│").split("│")
    assert len(first[-1].strip()) > 10 and "task-" in first[0]


def test_no_line_ends_in_blanks(bundle: Bundle, log_files: tuple[Path, Path]) -> None:
    for words in (["score", bundle.folder, log_files[0]], ["inspect", bundle.folder], ["inspect", log_files[0]]):
        assert all(line == line.rstrip() for line in _run(*words).stdout.splitlines())


def test_one_session_is_said_in_the_singular(bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path) -> None:
    log = tmp_path / "one.jsonl"
    log.write_text(_text(log_files[0]).splitlines()[0] + "\n{\n")
    result = _run("score", bundle.folder, log, "--threshold", 0)
    assert "1 of 1 session alerts at a score of" in result.stdout
    assert "the highest score;" in result.stdout
    assert "1 line rejected, the first: " in result.stderr
    assert "1 query of 6 inputs" in _run("inspect", log).stdout


def test_verdicts_are_packed_where_the_name_says_so(
    bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    _run("score", bundle.folder, log_files[0], "--out", tmp_path / "v.jsonl.gz")
    assert len(_text(tmp_path / "v.jsonl.gz").splitlines()) == 72


def test_a_network_is_told_in_words(bundle: Bundle) -> None:
    shown = " ".join(_run("inspect", bundle.folder).stdout.split())
    reads = f"reads {len(bundle.features)} features"
    assert f"2 networks, each an LSTM of 1 layer of 8 units that {reads}, with dropout 0.5" in shown
    for text in (shown, (bundle.folder / "README.md").read_text()):
        assert "LSTMClassifier" not in text and "(lstm)" not in text


def test_standard_input_is_scored_like_a_file(bundle: Bundle, log_files: tuple[Path, Path]) -> None:
    told = []
    for log in (str(log_files[0]), "-"):
        result = CliRunner().invoke(app, ["score", str(bundle.folder), log, "--json"], input=log_files[0].read_bytes())
        assert result.exit_code == 0
        told.append(json.loads(result.stdout))
    assert told[0] == told[1]


def test_quiet_does_not_hide_that_a_log_breaks_off(
    bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    log = tmp_path / "cut.jsonl.gz"
    content = log_files[0].read_bytes()
    log.write_bytes(content[: len(content) // 2])
    result = _run("score", bundle.folder, log, "--quiet", "--json")
    assert result.stderr.startswith(f"{log}: breaks off before its end")
    assert json.loads(result.stdout)["cut_short"] == [str(log)]


def test_times_that_are_small_numbers_are_told(tmp_path: Path) -> None:
    log, mapping = tmp_path / "a.jsonl", tmp_path / "map.toml"
    log.write_text('{"who": "a", "turn": 5}\n')
    mapping.write_text('[fields]\nclient = "who"\ntime = "turn"\n')
    told = _run("inspect", log, "--map", mapping).stderr
    assert "1 of 1 queries lie before 1973: small numbers are read as seconds since 1970" in told


def test_what_a_log_lacks_as_it_is_mapped_is_told(log_files: tuple[Path, Path], tmp_path: Path) -> None:
    assert "has no" not in _run("score", log_files[0]).stderr
    log, mapping = tmp_path / "log.jsonl", tmp_path / "mine.toml"
    log.write_text("".join(json.dumps({"who": "a", "at": 1.77e9 + at, "p": 0.5}) + "\n" for at in range(20)))
    mapping.write_text('[fields]\nclient = "who"\ntime = "at"\n')
    told = " ".join(_run("score", log, "--map", mapping).stderr.split())
    assert "the log has no confidence and no inputs" in told and "--map" in told
    mapping.write_text('[fields]\nclient = "who"\ntime = "at"\nconfidence = "p"\n')
    assert "the log has no inputs, " in " ".join(_run("score", log, "--map", mapping).stderr.split())


def test_clients_and_models_that_training_met_or_did_not_are_told(
    bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    log = tmp_path / "other.jsonl"
    log.write_text(_text(log_files[0]).replace('"user-', '"new-').replace('"credit"', '"wine"'))
    result = _run("score", bundle.folder, log)
    assert "in the detector's training; it may" not in result.stderr
    assert "1 of 1 model was not in the detector's training (wine)" in result.stderr
    overlap = json.loads(_run("score", bundle.folder, log_files[0], "--json").stdout)["overlap"]
    assert overlap["clients"] == 24
    assert 0 < overlap["known_clients"] < 24
    told = f"{overlap['known_clients']} of 24 clients were in the detector's training"
    assert told in _run("score", bundle.folder, log_files[0]).stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("where", ["stdout", "json", "out", "rejects"])
def test_a_full_disk_names_the_file_that_could_not_be_written(
    where: str, bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    log = tmp_path / "in" / "log.jsonl"
    log.parent.mkdir()
    log.write_text(_text(log_files[0]) + "{\n")
    out, rejects = tmp_path / "v.csv", tmp_path / "rejects.jsonl"
    words: list[object] = ["score", bundle.folder, log]
    if where == "json":
        words += ["--json"]
    elif where == "out":
        words += ["--out", out]
        out.with_name(".v.csv.partial").symlink_to("/dev/full")
    elif where == "rejects":
        words += ["--rejects", rejects]
        rejects.with_name(f".{rejects.name}.partial").symlink_to("/dev/full")
    command = [sys.executable, "-m", "probewatch", *map(str, words)]
    with Path("/dev/full" if where in ("stdout", "json") else "/dev/null").open("w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    named = {"out": str(out), "rejects": str(rejects)}.get(where, "standard output")
    *_, sentence = done.stderr.splitlines()
    assert sentence.startswith(f"probewatch: {named}: ")
    assert "cannot be written" in sentence and "No space left on device" in sentence
    assert sorted(tmp_path.iterdir()) == [log.parent]


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


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
@pytest.mark.parametrize("then", [RuntimeError("Query interrupted"), DataError("the log is cut"), None])
def test_a_signal_that_a_library_swallows_or_turns_into_an_error_is_still_told(
    number: int, name: str, then: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as the suite inherits it in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)

    @sentences
    def verb() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException:
            if then:
                raise then from None

    with pytest.raises(typer.Exit) as ended:
        verb()
    assert ended.value.exit_code == 128 + number
    assert capsys.readouterr().err == f"probewatch: stopped by {name}; nothing was half-written.\n"


def test_no_output_replaces_the_log_or_another(log_files: tuple[Path, Path], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(_text(log_files[0]))
    for words in (("--out", log), ("--rejects", log), ("--out", tmp_path / "a.csv", "--rejects", tmp_path / "a.csv")):
        shown = _run("score", log, *words, code=2)
        assert "choose another" in shown.stderr
    assert log.read_text() == _text(log_files[0])
    assert not (tmp_path / "a.csv").exists()


def test_vectors_of_another_length_than_is_known_are_told(
    bundle: Bundle, log_files: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in gzip.decompress(log_files[0].read_bytes()).splitlines()[:40]]
    for row in rows:
        row["details"]["queryInput"]["featureVector"] = [1.0]
    log = tmp_path / "short.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = _run("score", bundle.folder, log, "--json")
    told = json.loads(result.stdout)
    assert told["other_length"] == told["events"] > 0
    assert "came with another number of inputs than the" in " ".join(result.stderr.split())
    assert json.loads(_run("score", bundle.folder, log_files[0], "--json").stdout)["other_length"] == 0
    assert "came with another number of inputs than the" in " ".join(_run("watch", bundle.folder, log).stderr.split())
