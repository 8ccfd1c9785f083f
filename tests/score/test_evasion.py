"""What a stream's attacker may try, and long benign sessions, on generated sessions."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from probewatch.bundle import Bundle
from probewatch.data.events import Events
from probewatch.data.records import Sessions
from probewatch.score.incidents import Severity
from probewatch.score.limits import Limits
from probewatch.score.stream import StreamScorer

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


def test_the_score_rises_when_an_attack_begins_behind_harmless_queries(
    bundle: Bundle, sessions: Sessions, benign: NDArray[np.int64], attacks: list[Events]
) -> None:
    harmless = evasion["longest_of"](sessions, benign, "credit")
    rises = []
    for attack in attacks:
        events = evasion["padded"](attack, harmless, PADDING)
        assert np.all(np.diff(events.time_s) >= 0)
        scores = StreamScorer(bundle, limits=Limits(threads=1)).push(events).score
        rises.append(scores[-5:].mean() > scores[PADDING - 5 : PADDING].mean())
    assert np.mean(rises) > 0.5


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
def test_a_long_benign_session_does_not_cross_by_patience_alone(
    bundle: Bundle, sessions: Sessions, benign: NDArray[np.int64], what: int
) -> None:
    """What did not cross among its first queries does not later, and what did is told once."""
    events = list(evasion["long_sessions"](sessions, benign).values())[what]
    assert len(events) == 100_000
    watch = StreamScorer(bundle, limits=Limits(idle_s=1e9, threads=1))
    early, late = watch.push(events.slice(0, 200)), watch.push(events.slice(200, len(events)))
    crossed = bool(early.alert.any())
    assert bool(late.alert.any()) == crossed
    counts = watch.counts()
    assert counts["incidents"] == int(crossed)
    assert counts["alerts_per_client_day"] <= 1.0
