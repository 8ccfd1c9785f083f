"""What a stream's attacker may try, and long benign sessions, on generated sessions."""

from __future__ import annotations

import runpy
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from probewatch.bundle import Bundle, read_bundle, read_own
from probewatch.data.events import Events
from probewatch.data.labels import read_labels
from probewatch.data.logs import read_logs
from probewatch.data.owned import read_targets
from probewatch.data.records import Sessions
from probewatch.score.incidents import Activity, Severity
from probewatch.score.limits import Limits
from probewatch.score.stream import StreamScorer
from probewatch.serve.cli import app

evasion = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "evasion.py"))
ATTACKS = 12
PADDING = 200  # queries


@pytest.fixture(scope="module")
def sessions(labelled: Any) -> Sessions:
    return labelled.sessions


@pytest.fixture(scope="module")
def benign(labelled: Any) -> NDArray[np.int64]:
    return np.flatnonzero(labelled.label == 0)


@pytest.fixture(scope="module")
def attacks(bundle: Bundle, labelled: Any, sessions: Sessions) -> list[Events]:
    """Attacks that are found when they are not hidden."""
    long = np.flatnonzero((labelled.label == 1) & (sessions.lengths >= 15))
    events = [evasion["events_of"](sessions, s) for s in long]
    return [one for one in events if evasion["outcome"](bundle, [one]).alerts][:ATTACKS]


def test_attacks_are_found_behind_harmless_queries_where_the_model_has_a_profile() -> None:
    with as_file(files("probewatch") / "sample") as sample:
        with read_logs([sample / "queries.jsonl.gz"]) as log:
            sessions = log.all_sessions()
        label = read_labels(sample / "labels.csv").match(sessions.session, sessions.client).label
        profiles = read_targets(sample / "targets")[0]
    model = "digits-MLPClassifier"
    harmless = evasion["longest_of"](sessions, np.flatnonzero(label == 0), model)
    own = np.flatnonzero((label == 1) & (sessions.model == model) & (sessions.lengths >= 60))[:ATTACKS]
    found = []
    for s in own:
        events = evasion["padded"](evasion["events_of"](sessions, s), harmless, PADDING)
        assert np.all(np.diff(events.time_s) >= 0)
        alert = StreamScorer(read_own(), limits=Limits(threads=1), profiles=profiles).push(events).alert
        found.append(bool(alert[PADDING:].any()) and not alert[:PADDING].any())
    assert np.mean(found) >= 0.4


def test_an_attack_that_is_spread_over_hours_stays_one_session(bundle: Bundle, attacks: list[Events]) -> None:
    for attack in attacks:
        watch = StreamScorer(bundle, limits=Limits(threads=1))
        scores = watch.push(evasion["spread"](attack, 23))
        assert scores.number.tolist() == list(range(1, len(attack) + 1))
        assert watch.counts()["sessions"] == 1


def test_who_waits_out_the_gap_is_told_with_higher_severity_or_kept_on_record(
    bundle: Bundle, attacks: list[Events]
) -> None:
    for one in attacks:
        watch = StreamScorer(bundle, limits=Limits(threads=1))
        parts = watch.push(evasion["waiting"](one, 5))
        told = [news.incident for news in parts.news]
        suspicious = (parts.peak >= 0.5 * watch.threshold) & (parts.number == 5)
        first = np.flatnonzero(parts.score >= watch.threshold)
        if told and suspicious[: first[0]].any():
            assert told[0].again and told[0].severity > Severity.MEDIUM
        elif suspicious[:-5].any():
            assert watch.remembered or told


@pytest.mark.parametrize("what", [0, 1, 2])
def test_alerts_of_a_long_benign_session_are_counted_by_its_days(
    bundle: Bundle, sessions: Sessions, benign: NDArray[np.int64], what: int
) -> None:
    events = list(evasion["long_sessions"](sessions, benign).values())[what]
    assert len(events) == 100_000
    watch = StreamScorer(bundle, limits=Limits(idle_s=1e9, threads=1))
    news = watch.push(events).news
    counts = watch.counts()
    days = len(np.unique(events.time_s // 86_400))
    assert counts["client_days"] == pytest.approx(days, rel=0.05, abs=1.1)  # two of a few days may share a register
    opened = sum(one.activity is Activity.CREATE for one in news)
    assert counts["alerts_per_client_day"] == pytest.approx(opened / days, rel=0.1)
    assert opened <= 1 + (events.time_s[-1] - events.time_s[0]) / 1800.0  # silent while it lasts


@pytest.mark.slow
@pytest.mark.parametrize("what", [0, 1, 2])
def test_a_long_benign_session_does_not_cross_by_patience_alone(trained: tuple[Bundle, Any, Any], what: int) -> None:
    bundle, sessions, label = trained
    benign = np.flatnonzero(evasion["held_out"](bundle, sessions) & (label == 0))
    events = list(evasion["long_sessions"](sessions, benign).values())[what]
    _, incidents, rate = evasion["long_outcome"](bundle, events)
    assert (incidents, rate) == (0, 0.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Sessions, NDArray[np.int8]]:
    """A smaller default preset, trained on the packaged sample, with the sample's sessions and labels."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.toml").write_text("hidden = 32\nfolds = 2\n")
    with as_file(files("probewatch") / "sample") as sample:
        log, labels, allow = sample / "queries.jsonl.gz", sample / "labels.csv", sample / "allow.txt"
        words = [
            "train",
            log,
            "--labels",
            labels,
            "--allow",
            allow,
            "--config",
            folder / "small.toml",
            "--out",
            folder / "b",
        ]
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        sessions, label = evasion["load"](log, labels)
    return read_bundle(folder / "b"), sessions, label
