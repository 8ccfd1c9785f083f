from __future__ import annotations

import csv
import gzip
import hashlib
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.benchmark import make_benchmark
from probewatch.corpus.generate import make_corpus
from probewatch.corpus.pools import Pools, Records, split_pools
from probewatch.corpus.recipe import Recipe
from probewatch.corpus.run import PROBES, Subject
from probewatch.corpus.target import Target, as_predict
from probewatch.corpus.truth import model_leak
from probewatch.data.logs import read_logs
from probewatch.errors import ConfigError, TargetError

CLASSES = (0, 1)
FEW = Recipe(sessions=120, seed=5, median=24, longest=60, shortest=12, days=1.0).with_changes(
    {
        "attacks": {"threshold_confidence": 2.0, "neighbourhood": 1.0},
        "uses": {"batch": 2.0, "people": 1.0, "device": 1.0, "rescoring": 1.0, "extraction": 1.0},
    }
)


def _pools(seed: int = 0) -> Pools:
    random = np.random.default_rng(seed)
    inputs = np.column_stack([random.integers(0, 50, (700, 3)), random.normal(size=(700, 2)).round(3)])
    label = (inputs[:, 0] + 10 * random.normal(size=700) > 25).astype(np.int64)
    records = Records(inputs.astype(np.float64), label)
    train, others = np.arange(120), np.arange(120, 700)
    return split_pools(records.take(train), records.take(others), (0.4, 0.35, 0.25), random)


def _subject(name: str = "knn", fail_after: int | None = None, seed: int = 0) -> Subject:
    """A model that remembers all it was trained on, and may stop answering."""
    pools = _pools(seed)
    model = KNeighborsClassifier(5, weights="distance").fit(pools.members.inputs, pools.members.label)
    predict = as_predict(model, ["0", "1"])
    asked = 0

    def sometimes(rows: Any) -> Any:
        nonlocal asked
        asked += len(rows)
        if fail_after is not None and asked > fail_after:
            raise TargetError("down")
        return predict(rows)

    return Subject.of(Target(name, sometimes, classes=2, budget=50_000), pools, CLASSES, FEW.seed, {"model": "knn"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    make_corpus([_subject(), _subject("other", seed=1)], FEW, out)
    return out


@pytest.fixture(scope="module")
def events(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "events.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_events_have_the_raw_form_in_time_order(events: list[dict[str, Any]]) -> None:
    assert set(events[0]) == {"timestamp", "eventType", "context", "details"}
    assert set(events[0]["context"]) == {"userId", "jobId", "taskId", "sourceIp"}
    assert set(events[0]["details"]) == {"modelName", "queryInput", "queryResponse"}
    stamps = [event["timestamp"] for event in events]
    assert stamps == sorted(stamps) and all(len(stamp) == 27 and stamp.endswith("Z") for stamp in stamps)


def test_sessions_are_interleaved(events: list[dict[str, Any]]) -> None:
    tasks = [event["context"]["taskId"] for event in events]
    changes = sum(one != other for one, other in pairwise(tasks))
    assert changes > 2 * len(set(tasks))


def test_every_query_is_logged_as_it_was_answered(events: list[dict[str, Any]]) -> None:
    rows = [event["details"] for event in events if event["details"]["modelName"] == "knn"]
    answers = _subject().target.answer(np.array([row["queryInput"]["featureVector"] for row in rows]))
    assert [row["queryResponse"]["confidence"] for row in rows] == answers.max(axis=1).tolist()
    assert [row["queryResponse"]["predictedClass"] for row in rows] == answers.argmax(axis=1).tolist()


def test_labels_name_every_session_once(events: list[dict[str, Any]], labels: list[dict[str, str]]) -> None:
    assert list(labels[0]) == ["task_id", "client", "actor", "is_malicious", "attack", "family", "target"]
    assert len(labels) == 120
    asked = {(event["context"]["taskId"], event["context"]["userId"], event["details"]["modelName"])
             for event in events}  # fmt: skip
    assert asked == {(row["task_id"], row["client"], row["target"]) for row in labels}
    assert {row["attack"] for row in labels} == {"none", "membership", "extraction"}
    assert all((row["attack"] != "none") == (row["is_malicious"] == "1") for row in labels)


def test_a_client_has_one_actor_use_and_model_and_an_attacker_may_have_several_clients(
    labels: list[dict[str, str]],
) -> None:
    of_client: dict[str, set[tuple[str, ...]]] = {}
    of_actor: dict[str, set[str]] = {}
    for row in labels:
        of_client.setdefault(row["client"], set()).add((row["actor"], row["family"], row["target"]))
        of_actor.setdefault(row["actor"], set()).add(row["client"])
    assert all(len(found) == 1 for found in of_client.values())
    assert max(map(len, of_actor.values())) > 1


def test_the_allow_list_is_the_rescorers(folder: Path, labels: list[dict[str, str]]) -> None:
    assert (folder / "allow.txt").read_text().split() == sorted(
        {row["client"] for row in labels if row["family"] == "rescoring"}
    )


def test_nobody_asks_for_a_record_of_another_pool(
    events: list[dict[str, Any]], labels: list[dict[str, str]], manifest: dict[str, Any]
) -> None:
    pools = _pools().named()
    owner = {tuple(row): name for name, pool in pools.items() for row in pool.inputs.tolist()}
    family = {row["task_id"]: row["family"] for row in labels}
    seen: dict[str, set[str]] = {}
    for event in events:
        if event["details"]["modelName"] == "knn":
            name = owner.get(tuple(event["details"]["queryInput"]["featureVector"]))
            if name:
                seen.setdefault(family[event["context"]["taskId"]], set()).add(name)
    assert seen["batch"] == {"members", "customers"} and seen["extraction"] == {"attackers"}
    assert seen["rescoring"] == {"members", "customers"} and seen["threshold_confidence"] == {"members", "attackers"}
    told = manifest["targets"]["knn"]["pool_share_by_role"]
    assert 0.0 < told["batch"]["members"] < 0.3 and told["membership"]["customers"] == 0.0
    assert told["batch"]["members"] + told["batch"]["customers"] == pytest.approx(1.0, abs=1e-4)
    assert all(row["holdout"] == 0.0 for row in told.values())
    assert set(manifest["models"]["knn"]["pools"]["shared"].values()) == {0}


def test_an_owner_has_its_records_with_the_models_answers(folder: Path) -> None:
    for name, pool in (("train", _pools().members), ("holdout", _pools().holdout)):
        with gzip.open(folder / "targets" / "knn" / f"{name}.jsonl.gz", "rt") as file:
            rows = [json.loads(line) for line in file]
        assert [row["featureVector"] for row in rows] == pool.inputs.tolist()
        assert set(rows[0]) == {"featureVector", "confidence", "predictedClass"}


def test_the_attack_on_a_model_that_remembers_all_succeeds(manifest: dict[str, Any]) -> None:
    found = manifest["attacks"]["threshold_confidence"]
    assert found["roc_auc"] > 0.8 and found["by_target"]["knn"]["roc_auc"] > 0.8
    assert 0.2 < found["members"] / found["guesses"] < 0.7


def test_the_manifest_tells_a_robust_model_from_an_attack_that_learns_nothing(manifest: dict[str, Any]) -> None:
    found = manifest["attacks"]["threshold_confidence"]["by_target"]["knn"]
    assert 0 < found["records"] <= found["guesses"]
    assert found["interval"][0] < found["roc_auc"] < found["interval"][1] and found["interval"][0] > 0.5
    leak = manifest["targets"]["knn"]["leak"]
    assert leak["roc_auc"] > 0.7 and leak["reading"] == "confidence gives members away"
    random = np.random.default_rng(0)
    answers, label = random.dirichlet([1.0, 1.0], 200), np.zeros(200, np.int64)
    robust = model_leak(answers[:100], label[:100], answers[100:], label[100:])
    assert robust["interval"][0] < 0.5 < robust["interval"][1] and "does not show members" in robust["reading"]


def test_records_that_occur_often_do_not_make_a_model_that_remembers_nothing_leak(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    often = random.random((1600, 1)) < 0.5
    values = np.where(often, random.integers(0, 300, (1600, 1)), 300 + np.arange(1600)[:, None])
    records = Records(values.astype(np.float64), np.zeros(len(values), np.int64))
    pools = split_pools(records.take(np.arange(700)), records.take(np.arange(700, 1600)), (0.4, 0.3, 0.3), random)

    def predict(rows: Any) -> Any:
        return np.where(rows[:, 0] < 300, 0.1, 0.3)  # surest where records occur often

    target = Target("often", predict, classes=2, budget=50_000)
    manifest = make_corpus([Subject.of(target, pools, CLASSES, 0, {})], FEW, tmp_path)
    low, high = manifest["targets"]["often"]["leak"]["interval"]
    assert pools.dropped > 100 and low < 0.5 < high
    attack = manifest["attacks"]["threshold_confidence"]["by_target"]["often"]
    assert attack["interval"][0] < 0.5 < attack["interval"][1]


def test_form_alone_does_not_give_attacks_away(manifest: dict[str, Any]) -> None:
    assert manifest["give_aways"]["roc_auc"] <= 0.70 and manifest["give_aways"]["holds"]
    assert manifest["give_aways"]["roc_auc_alone"]["off_grid_share"] == 0.5


def test_the_manifest_has_every_parameter_and_the_files_hashes(folder: Path, manifest: dict[str, Any]) -> None:
    assert manifest["recipe"] == FEW.to_json()
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert set(_hashes(folder)) == {*manifest["files"], "manifest.json"}


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    make_corpus([_subject(), _subject("other", seed=1)], FEW, tmp_path)
    assert _hashes(tmp_path) == _hashes(folder)


def test_a_stopped_run_leaves_no_corpus_and_goes_on(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="down"):
        make_corpus([_subject(), _subject("other", fail_after=1000, seed=1)], FEW, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name != ".partial"]
    again = _subject(fail_after=2 * PROBES)  # it is asked who it is, and nothing that it was asked before
    make_corpus([again, _subject("other", seed=1)], FEW, tmp_path)
    assert _hashes(tmp_path) == _hashes(folder)
    assert again.target.asked > 1000  # what the first call asked counts for the budget


def test_a_run_of_a_model_that_was_trained_anew_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="down"):
        make_corpus([_subject(fail_after=3000)], FEW, tmp_path)
    assert len(list((tmp_path / ".partial").glob("owner-*.npz"))) == 1
    other = _subject()
    predict = other.target._predict
    other.target._predict = lambda rows: np.round(predict(rows), 1)
    manifest = make_corpus([other], FEW, tmp_path)
    same = make_corpus([_subject()], FEW, tmp_path / "same")
    assert manifest["models"]["knn"]["answers_sha256"] != same["models"]["knn"]["answers_sha256"]
    with gzip.open(tmp_path / "events.jsonl.gz", "rt") as file:
        sure = {json.loads(line)["details"]["queryResponse"]["confidence"] for line in file}
    assert sure == {one for one in sure if round(one, 1) == one}


def test_parquet_holds_the_same_log(folder: Path, tmp_path: Path) -> None:
    make_corpus([_subject(), _subject("other", seed=1)], FEW, tmp_path, parquet=True)
    with read_logs([tmp_path / "events.parquet"]) as one, read_logs([folder / "events.jsonl.gz"]) as other:
        first, second = one.all_sessions(), other.all_sessions()
    assert first.session.tolist() == second.session.tolist()
    for name in ("time_s", "confidence", "predicted_class", "inputs", "input_offsets"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    small = FEW.with_changes({"sessions": 10})
    make_corpus([_subject()], small, tmp_path, told=lambda *one: told.append(one))
    assert told[-1][0] == "writing" and told[-2][1] == pytest.approx(told[-2][2], rel=0.2)


def test_targets_need_different_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected different names"):
        make_corpus([_subject(), _subject()], FEW, tmp_path)


@pytest.mark.parametrize("name", ["", "..", "/tmp/elsewhere", "../up", "a\\b", "a/b"])
def test_a_targets_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="names no folder of its own"):
        make_corpus([_subject(name)], FEW, tmp_path / "corpus")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="the corpus cannot be written there"):
        make_corpus([_subject()], FEW, tmp_path / "file")


def test_another_corpus_in_the_same_folder_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    make_corpus([_subject(), _subject("other", seed=1)], FEW, tmp_path, parquet=True)
    (tmp_path / "targets" / "mine").mkdir()
    make_corpus([_subject()], FEW, tmp_path)
    assert sorted(path.name for path in (tmp_path / "targets").iterdir()) == ["knn", "mine"]
    assert not (tmp_path / "events.parquet").exists()


@pytest.mark.parametrize("text", ['{"format": 1, "files": {"graph": "x.onnx"}}', "[]", "{"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    for make in (lambda: make_corpus([_subject()], FEW, tmp_path), lambda: make_benchmark(tmp_path)):
        with pytest.raises(ConfigError, match=r"manifest\.json: is of something else, .* give another --out"):
            make()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == text


def test_the_manifest_says_who_described_an_attack_and_what_gives_each_target_away(manifest: dict[str, Any]) -> None:
    assert manifest["attacks"]["neighbourhood"]["paper"] == ATTACKS["neighbourhood"].paper
    by_target = manifest["give_aways"]["by_target"]
    assert set(by_target) == {"knn", "other"} and all(0.2 < auc < 0.9 for auc in by_target.values())


def test_what_becomes_of_a_stopped_run_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    few = FEW.with_changes({"sessions": 10})
    for recipe, fails in ((few, 350), (few, 100), (few.with_changes({"seed": 6}), None)):
        with suppress(TargetError):
            make_corpus([_subject(fail_after=fails)], recipe, tmp_path, note=notes.append)
    assert [note.removeprefix(f"{tmp_path}: ") for note in notes] == [
        "goes on where a run was stopped, with 0 parts done.",
        "a stopped run of another model, recipe or version was there; this one begins anew.",
    ]


def test_a_stopped_run_goes_on_at_another_pace_and_with_another_budget(tmp_path: Path) -> None:
    notes: list[str] = []
    few = FEW.with_changes({"sessions": 10})
    for fails, pace in ((350, {"query_budget": 350, "queries_per_second": 200}), (None, {"query_budget": 9000})):
        subject = _subject(fail_after=fails)
        subject.described.update(pace)
        with suppress(TargetError):
            make_corpus([subject], few, tmp_path, note=notes.append)
    assert [note.removeprefix(f"{tmp_path}: ") for note in notes] == [
        "goes on where a run was stopped, with 0 parts done."
    ]


def test_the_trouble_of_a_stopped_run_stays_counted(tmp_path: Path) -> None:
    few = FEW.with_changes({"sessions": 10})
    told = []
    for fails in (350, None):
        subject = _subject(fail_after=fails)
        predict: Any = subject.target._predict
        predict.requests, predict.retries, predict.repeated, predict.trouble = 5, 1, 64, ["attempt 1 of 6: status 503"]
        with suppress(TargetError):
            told.append(make_corpus([subject], few, tmp_path)["targets"]["knn"]["endpoint"])
    assert told == [{"requests": 10, "retries": 2, "repeated": 128, "trouble": ["attempt 1 of 6: status 503"] * 2}]


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    def start(out: Path) -> subprocess.Popen[bytes]:
        words = ["corpus", "--demo", "wine", "--sessions", "150", "--out", str(out), "--quiet"]
        return subprocess.Popen([sys.executable, "-m", "probewatch", *words])

    killed, whole = start(tmp_path / "killed"), start(tmp_path / "whole")
    while killed.poll() is None and not list((tmp_path / "killed").glob(".partial/wave-*.npz")):
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL and whole.wait() == 0
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [".partial"]
    assert start(tmp_path / "killed").wait() == 0
    assert _hashes(tmp_path / "killed") == _hashes(tmp_path / "whole")


def test_corpora_of_two_models_repeat_nothing_with_the_same_seed(tmp_path: Path) -> None:
    names, gaps = [], []
    for salt in ("credit", "churn"):
        make_corpus([_subject()], FEW, tmp_path / salt, salt=salt)
        with read_logs([tmp_path / salt / "events.jsonl.gz"]) as log:
            sessions = log.all_sessions()
        names.append({*sessions.session, *sessions.client})
        times = np.split(sessions.time_s, sessions.offsets[1:-1])
        gaps.append({np.diff(one).round(3).tobytes() for one in times if len(one) > 1})
    assert not names[0] & names[1]
    assert not gaps[0] & gaps[1]
